"""Every option that moves a number, against the number computed by hand."""

import re
from pathlib import Path

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio

from mana_dist import metrics
from mana_dist.data.degradation import BI, bicubic_upsample, degrade
from mana_dist.errors import UserError
from mana_dist.evaluate.config import EvaluationOptions, split_label
from mana_dist.evaluate.subset import FrameSubset, parse_subset
from mana_dist.model import Padding, inference
from mana_dist.registry import model_folder
from tests.evaluate.footage import Frames, evaluate, frames_of, mean_of, write_folder


def by_hand(outputs: Frames, frames: Frames, border: int = 0) -> tuple[float, float]:
    """Mean PSNR and luma SSIM over frames."""
    inside = slice(border, -border or None)
    pairs = [(a[inside, inside], b[inside, inside]) for a, b in zip(outputs, frames, strict=True)]
    psnr = [peak_signal_noise_ratio(b, a, data_range=255) for a, b in pairs]
    return float(np.mean(psnr)), float(np.mean([metrics.ssim_y(a, b) for a, b in pairs]))


def test_border_crop_is_of_hr_pixels_along_every_border(tmp_path: Path) -> None:
    frames = frames_of(3)
    write_folder(tmp_path / "clip", frames)
    report = evaluate(tmp_path / "out", "--data", str(tmp_path / "clip"), "--method", "bicubic", "--border-crop", "8")
    outputs = bicubic_upsample(degrade(frames, BI))
    mean = mean_of(report)
    assert (mean["psnr_rgb"], mean["ssim_y"]) == pytest.approx(by_hand(outputs, frames, 8))
    assert mean["psnr_rgb"] != pytest.approx(by_hand(outputs, frames)[0], abs=1e-3)
    assert report["protocol"]["border_crop"] == 8


@pytest.mark.parametrize(
    ("subset", "frames", "scored"),
    [("inner:2", ":", [2, 3, 4]), ("centre", ":", [3]), ("inner:1", "1:5", [2, 3]), ("centre", "1:5", [3])],
)
def test_a_subset_is_scored_while_windows_see_all(
    tmp_path: Path, model: str, subset: str, frames: str, scored: list[int]
) -> None:
    clip = frames_of(7)
    write_folder(tmp_path / "clip", clip)
    report = evaluate(
        tmp_path / "out",
        *["--data", str(tmp_path / "clip"), "--method", model],
        *["--frames", frames, "--frame-subset", subset],
    )
    start, stop = (1, 5) if frames != ":" else (0, 7)
    lr = degrade(clip[start:stop], BI)
    outputs = list(inference.super_resolve(model_folder.load(model)[0], lr))
    mean = mean_of(report, model)
    expected = by_hand(np.stack([outputs[number - start] for number in scored]), clip[scored])
    assert (mean["psnr_rgb"], mean["ssim_y"]) == pytest.approx(expected)
    assert mean["frames"] == len(scored)
    assert report["protocol"]["frame_subset"] == subset
    assert report["protocol"]["datasets"][0]["frame_subset"] == subset


@pytest.mark.parametrize("padding", ["reflection", "replicate", "reflection_circle", "circle"])
def test_padding_is_the_models(tmp_path: Path, model: str, padding: Padding) -> None:
    clip = frames_of(5, step=3)
    write_folder(tmp_path / "clip", clip)
    report = evaluate(tmp_path / "out", "--data", str(tmp_path / "clip"), "--method", model, "--padding", padding)
    lr = degrade(clip, BI)
    outputs = np.stack(list(inference.super_resolve(model_folder.load(model)[0], lr, padding=padding)))
    assert mean_of(report, model)["psnr_rgb"] == pytest.approx(by_hand(outputs, clip)[0])
    assert report["protocol"]["padding"] == padding


def test_two_datasets_have_their_own_means_and_count_by_clips_in_all(tmp_path: Path) -> None:
    for seed, name in enumerate(("one/a", "one/b", "two/c")):
        write_folder(tmp_path / name, frames_of(2 + seed, seed))
    report = evaluate(
        tmp_path / "out", *["--data", str(tmp_path / "two"), str(tmp_path / "one"), "--method", "bicubic"]
    )
    bicubic = report["methods"]["bicubic"]
    rows = {row["name"]: row["psnr_rgb"] for row in bicubic["clips"]}
    assert list(rows) == ["c", "a", "b"]  # in the order of the command line
    assert bicubic["datasets"]["one"]["psnr_rgb"] == pytest.approx((rows["a"] + rows["b"]) / 2)
    assert bicubic["datasets"]["two"]["psnr_rgb"] == rows["c"]
    assert bicubic["mean"]["psnr_rgb"] == pytest.approx(sum(rows.values()) / 3)


@pytest.mark.parametrize(
    ("text", "length", "expected"),
    [
        ("all", 5, [0, 1, 2, 3, 4]),
        ("inner:0", 2, [0, 1]),
        ("inner:2", 5, [2]),
        ("inner:2", 4, []),
        ("centre", 7, [3]),
        ("centre", 4, [2]),
        ("centre", 1, [0]),
    ],
)
def test_which_frames_a_subset_picks(text: str, length: int, expected: list[int]) -> None:
    subset = parse_subset(text)
    assert list(subset.of(length)) == expected
    assert str(subset) == text


def test_all_needs_no_length_and_others_do() -> None:
    assert 10**9 in FrameSubset().of(None)
    assert not FrameSubset().needs_length
    assert parse_subset("centre").needs_length


@pytest.mark.parametrize("text", ["some", "inner", "inner:", "inner:-1", "1:3", "centre:2"])
def test_wrong_subsets_are_refused(text: str) -> None:
    with pytest.raises(UserError, match=f"--frame-subset {text}: write all, centre, or inner:N"):
        parse_subset(text)


def test_a_subset_that_leaves_nothing_is_refused_before_any_work(tmp_path: Path) -> None:
    write_folder(tmp_path / "clip", frames_of(4))
    with pytest.raises(UserError, match="clip: 4 frames, none of which --frame-subset inner:2 leaves over"):
        evaluate(
            tmp_path / "out", *["--data", str(tmp_path / "clip"), "--method", "bicubic", "--frame-subset", "inner:2"]
        )


def test_a_label_is_the_name_of_a_model_in_the_table_the_page_and_the_numbers(tmp_path: Path, model: str) -> None:
    write_folder(tmp_path / "clip", frames_of(2))
    data = ("--data", str(tmp_path / "clip"))
    plain = evaluate(tmp_path / "plain", *data, "--method", "bicubic", model)
    report = evaluate(tmp_path / "out", *data, "--method", "bicubic", f"best one={model}")
    assert list(report["methods"]) == ["bicubic", "best one"]
    assert report["methods"]["best one"] == plain["methods"][model]
    (_, source) = report["protocol"]["models"]
    assert (source["name"], source["uri"]) == ("best one", model)
    for name in ("report.html", "report.md", "psnr_per_clip.svg"):
        shown = (tmp_path / "out" / name).read_text()
        assert "best one" in shown
    assert model not in (tmp_path / "out" / "psnr_per_clip.svg").read_text()


@pytest.mark.parametrize(
    ("method", "found"),
    [
        ("best=models:/mana-x4/1", ("best", "models:/mana-x4/1")),
        ("a b=runs/x=1", ("a b", "runs/x=1")),
        ("runs/lr=0.1/model", ("", "runs/lr=0.1/model")),
        ("./lr=0.1", ("", "./lr=0.1")),
        ("s3://bucket/lr=1", ("", "s3://bucket/lr=1")),
        ("frames:EDVR=x", ("", "frames:EDVR=x")),
        ("bicubic", ("", "bicubic")),
    ],
)
def test_what_is_a_label_and_what_a_folder(method: str, found: tuple[str, str]) -> None:
    assert split_label(method) == found


@pytest.mark.parametrize(
    ("methods", "message"),
    [
        (["bicubic=runs/x"], "bicubic=runs/x: bicubic is the name of a method already; give another label"),
        (["pretrained=runs/x"], "pretrained is the name of a model already"),
        (["HR=runs/x"], "HR is the name of a picture already"),
        (["=runs/x"], "=runs/x: write LABEL=MODEL, like best=models:/mana-x4/1"),
        (["best="], "best=: write LABEL=MODEL"),
        (["best=bicubic"], "only models take a label; write bicubic"),
        (["best=frames:x=y"], "only models take a label; write frames:x=y"),
        (["best=a", "bicubic", "best=b"], "--method names best twice"),
        (["frames:best=a", "best=b"], "--method names best twice"),
    ],
)
def test_labels_that_would_mislead_are_refused_in_one_line(methods: list[str], message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)) as found:
        EvaluationOptions(data=("x",), methods=tuple(methods), out="o").check()
    assert "\n" not in str(found.value)
