"""Folders of HR and LR frames by any of their names, and what lies beside them."""

import os
from pathlib import Path

import numpy as np
import pytest

from mana_dist.data.degradation import BI, degrade
from mana_dist.errors import UserError
from mana_dist.evaluate.datasets import Dataset, find_datasets
from mana_dist.evaluate.scored_clips import find_clips
from mana_dist.footage.layouts import at_scale, is_lr_name
from tests.evaluate.footage import evaluate, frames_of, mean_of, write_folder, write_pair
from tests.video.videos import write_video


def find(root: Path, out: str = "") -> Dataset:
    (dataset,) = find_datasets([str(root)], BI, "auto", out)
    find_clips([dataset])
    return dataset


def paths(dataset: Dataset) -> list[tuple[str, str, str | None]]:
    """Of each clip: its path, and the ground truth and the LR frames below the dataset."""
    cut = f"{os.path.abspath(dataset.uri)}/"
    return [(clip.path, clip.uri.removeprefix(cut), clip.lr and clip.lr.removeprefix(cut)) for clip in dataset.clips]


@pytest.mark.parametrize("lr", ["LR", "LRx4", "X4", "LR/X4", "LR_bicubic/X4", "BIx4"])
@pytest.mark.parametrize("hr", ["HR", "GT"])
def test_hr_and_lr_side_by_side(tmp_path: Path, hr: str, lr: str) -> None:
    for seed in (1, 2):
        write_pair(tmp_path, f"{hr}/c{seed}", f"{lr}/c{seed}", frames_of(2, seed))
    dataset = find(tmp_path)
    assert paths(dataset) == [("c1", f"{hr}/c1", f"{lr}/c1"), ("c2", f"{hr}/c2", f"{lr}/c2")]
    assert (dataset.lr, dataset.notes) == (f"given: {lr}", ())


@pytest.mark.parametrize(("hr", "lr"), [("HR", "LR"), ("GT", "BIx4"), ("hr", "lr"), ("HR", "X4"), ("truth", "input4")])
def test_hr_and_lr_in_each_clip(tmp_path: Path, hr: str, lr: str) -> None:
    for seed in (1, 2):
        write_pair(tmp_path / f"c{seed}", hr, lr, frames_of(2, seed))
    dataset = find(tmp_path)
    assert paths(dataset) == [("c1", f"c1/{hr}", f"c1/{lr}"), ("c2", f"c2/{hr}", f"c2/{lr}")]
    assert dataset.lr == f"given: {lr}"
    assert paths(find(tmp_path / "c1")) == [("", hr, lr)]


@pytest.mark.parametrize(
    ("high", "low"), [("big/c1", "small/c1"), ("c1/a", "c1/b"), ("c1", "c1_small"), ("big/c1.mkv", "small/c1.mkv")]
)
def test_lr_frames_under_other_names_are_no_truth(tmp_path: Path, high: str, low: str) -> None:
    for path, frames in ((high, frames_of(2)), (low, degrade(frames_of(2), BI))):
        (write_video if path.endswith(".mkv") else write_folder)(tmp_path / "set" / path, frames)
    with pytest.raises(UserError, match=rf"{low} holds the LR frames of .*{high}, by size and picture; put them"):
        find(tmp_path / "set")


def test_another_clip_of_a_quarter_of_the_size_is_a_clip(tmp_path: Path) -> None:
    write_folder(tmp_path / "big", frames_of(2, 1))
    write_folder(tmp_path / "small", degrade(frames_of(2, 2), BI))
    write_folder(tmp_path / "black", np.zeros((2, 48, 64, 3), np.uint8))
    write_folder(tmp_path / "dark", np.zeros((2, 12, 16, 3), np.uint8))
    assert len(find(tmp_path).clips) == 4


@pytest.mark.parametrize("name", ["LR", "lr", "X4", "x2", "LRx4", "LR_bicubic", "vimeo_matlabLRx4", "my4xLR", "BIx4",
                                  "BIx4up_direct", "train_sharp_bicubic", "val_blur", "input4", "blur4", "realx4",
                                  "realx2"])  # fmt: skip
def test_names_of_lr_folders(tmp_path: Path, name: str) -> None:
    assert is_lr_name(name)
    write_folder(tmp_path / name, frames_of(1))
    with pytest.raises(UserError, match=f"lies in {name}, a folder of LR frames"):
        find(tmp_path / name)


@pytest.mark.parametrize("name", ["GT", "HR", "truth", "calendar", "000", "lrx", "colr", "train_sharp", "walk_x4"])
def test_names_of_others(name: str) -> None:
    assert not is_lr_name(name)


@pytest.mark.parametrize(
    ("name", "scale", "expected"),
    [
        ("BIx4", 2, "BIx2"),
        ("LR/X4", 3, "LR/X3"),
        ("input4", 2, "input2"),
        ("LR", 2, "LR"),
        ("h264-crf28x4", 2, "h264-crf28x2"),
        ("BIx4", 4, "BIx4"),
    ],
)
def test_names_at_other_scales(name: str, scale: int, expected: str) -> None:
    assert at_scale(name, scale) == expected


def test_a_folder_that_is_called_like_lr_frames_far_above_means_nothing(tmp_path: Path) -> None:
    for depth in ("input4/x", "lr/x/y", "X4/x/y/z"):
        write_folder(tmp_path / depth, frames_of(1))
        assert len(find(tmp_path / depth).clips) == 1
    for depth in ("BIx4/x", "train_sharp_bicubic/X4/000"):
        write_folder(tmp_path / depth, frames_of(1))
        with pytest.raises(UserError, match="a folder of LR frames"):
            find(tmp_path / depth)


def test_clips_beside_the_ground_truth_are_left_out_and_named(tmp_path: Path) -> None:
    for path in ("own/GT/a", "own/clipA", "own/clipB", "own/BIx4up_direct/a"):
        write_folder(tmp_path / path, frames_of(1))
    assert find(tmp_path / "own").notes == ("2 clips beside GT left out: clipA, clipB",)
    for path in ("reds/train_sharp/000", "reds/val_sharp/000", "reds/train_sharp_bicubic/X4/000"):
        write_folder(tmp_path / path, frames_of(1) if "X4" not in path else degrade(frames_of(1), BI))
    assert find(tmp_path / "reds").notes == ("1 clip beside train_sharp left out: val_sharp/000",)


def test_clips_without_a_folder_of_truth_are_left_out_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in ("c1/truth", "c1/input2", "c2", "c3"):
        write_folder(tmp_path / "own" / path, frames_of(1))
    report = evaluate(tmp_path / "out", "--data", str(tmp_path / "own"), "--method", "bicubic")
    told = "2 clips without a folder truth left out: c2, c3"
    assert report["protocol"]["datasets"][0]["notes"] == [told]
    assert told in capsys.readouterr().out


@pytest.mark.parametrize(
    ("hr", "lr"),
    [([1, 2, 3], [0, 1, 2]), ([1, 2, 3], [1, 2, 3]), ([0, 2, 4], [0, 2, 4]), ([9, 10, 11], [0, 1, 2]), ([5], [7])],
)
def test_numbers_that_go_on_alike(tmp_path: Path, hr: list[int], lr: list[int]) -> None:
    write_numbered(tmp_path, hr, lr)
    assert find(tmp_path).lr == "given: BIx4"


def test_a_gap_in_the_numbers_of_one_side_is_refused(tmp_path: Path) -> None:
    write_numbered(tmp_path, [0, 1, 2], [0, 1, 3])
    with pytest.raises(UserError, match=r"BIx4/a: f3x4.png would be the LR frame of .*GT/a/im2.png, .* do not go on"):
        find(tmp_path)


def write_numbered(root: Path, hr: list[int], lr: list[int]) -> None:
    for folder, name, numbers in (("GT/a", "im{}.png", hr), ("BIx4/a", "f{}x4.png", lr)):
        for number in numbers:
            size = (48, 64) if folder == "GT/a" else (12, 16)
            write_folder(root / "one", frames_of(1, 0, *size), name, number)
            (root / folder).mkdir(parents=True, exist_ok=True)
            (root / "one" / name.format(number)).rename(root / folder / name.format(number))
            (root / "one").rmdir()


@pytest.mark.parametrize("side", ["GT", "BIx4"])
def test_two_files_for_one_frame_are_refused(tmp_path: Path, side: str) -> None:
    write_pair(tmp_path, "GT/a", "BIx4/a", frames_of(2))
    (tmp_path / side / "a" / "0000.jpg").write_bytes((tmp_path / side / "a" / "0000.png").read_bytes())
    with pytest.raises(UserError, match=f"{side}/a: holds both 0000.(jpg|png) and 0000.(jpg|png); keep one file"):
        find(tmp_path)


def test_a_report_within_the_data_is_no_clip_of_the_next_run(tmp_path: Path) -> None:
    for seed in (1, 2):
        write_folder(tmp_path / "proj" / f"c{seed}", frames_of(2, seed))
    out = tmp_path / "proj" / "results"
    write_folder(out, frames_of(1), "side_by_side.png")
    (out / "metrics.json").touch()
    assert len(find(tmp_path / "proj").clips) == 3
    again = find(tmp_path / "proj", str(out))
    assert ([clip.path for clip in again.clips], again.notes) == (["c1", "c2"], ())
    write_folder(out / "edvr" / "c1", frames_of(2))
    assert find(tmp_path / "proj", f"file://{out}/").notes == ("1 clip below --out left out: edvr/c1",)


def test_a_report_may_not_go_to_the_data(tmp_path: Path) -> None:
    write_folder(tmp_path / "proj" / "c1", frames_of(2))
    with pytest.raises(UserError, match=r"--out .*proj: is the folder of --data .*proj too; name another"):
        find(tmp_path / "proj", str(tmp_path / "proj"))
    with pytest.raises(UserError, match=r"--out .*c1: holds frames or videos of --data .*proj; name a folder"):
        find(tmp_path / "proj", str(tmp_path / "proj" / "c1"))
    for elsewhere in (tmp_path, tmp_path / "proj2", tmp_path / "proj" / "new"):
        assert len(find(tmp_path / "proj", str(elsewhere)).clips) == 1


def test_files_that_are_called_like_folders_and_the_reverse(tmp_path: Path) -> None:
    write_folder(tmp_path / "set" / "c1", frames_of(2))
    (tmp_path / "set" / "GT").write_text("a file")
    (tmp_path / "set" / "c1" / "x.png").mkdir()
    report = evaluate(tmp_path / "out", "--data", str(tmp_path / "set"), "--method", "bicubic")
    assert mean_of(report)["frames"] == 2


def test_names_that_are_not_utf_8(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "set" / "c1", frames_of(2), "g{}.png")
    os.rename(folder / "g1.png", os.fsencode(folder) + b"/\xff1.png")
    os.rename(folder, os.fsencode(tmp_path / "set") + b"/c\xfc")
    report = evaluate(tmp_path / "out", "--data", str(tmp_path / "set"), "--method", "bicubic")
    assert [clip["name"] for clip in report["methods"]["bicubic"]["clips"]] == ["c\ufffd"]
    assert mean_of(report)["frames"] == 2


def test_an_empty_name_is_not_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(tmp_path / "c1", frames_of(2))
    monkeypatch.chdir(tmp_path)
    for empty in ("", " "):
        with pytest.raises(UserError, match="--data '': an empty name"):
            find_datasets([empty], BI, "auto")


def test_clips_are_found_from_another_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As workers on a cluster have."""
    write_pair(tmp_path, "set/GT/a", "set/BIx4/a", frames_of(2))
    monkeypatch.chdir(tmp_path)
    (dataset,) = find_datasets(["set"], BI, "auto")
    (clip,) = find_clips([dataset])
    monkeypatch.chdir("/")
    assert len(list(clip.frames())) == len(list(clip.lr_frames())) == 2
    assert (dataset.uri, dataset.lr, clip.name) == ("set", "given: BIx4", "a")


def test_vimeo90k_with_the_centre_alone_and_a_list_with_a_byte_order_mark(tmp_path: Path) -> None:
    frames = frames_of(7)
    write_folder(tmp_path / "BIx4" / "00001" / "0001", degrade(frames, BI), "im{}.png", 1)
    truth = write_folder(tmp_path / "GT" / "00001" / "0001", frames[3:4], "im{}.png", 4)
    (tmp_path / "sep_testlist.txt").write_text("\ufeff00001/0001\r\n", "utf-8")
    with pytest.raises(UserError, match=r"GT/00001/0001 holds im4.png alone; put all seven HR frames there"):
        find(tmp_path)
    (truth / "im4.png").unlink()
    truth.rmdir()
    write_folder(truth, frames, "im{}.png", 1)
    assert paths(find(tmp_path)) == [("00001/0001", "GT/00001/0001", "BIx4/00001/0001")]
