"""Another method's frames under our protocol."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mana_dist.data.degradation import BI, bicubic_upsample, degrade
from mana_dist.errors import UserError
from mana_dist.evaluate.datasets import find_datasets
from mana_dist.evaluate.given_outputs import find as outputs_of
from mana_dist.evaluate.scored_clips import LrFrame, find_clips
from tests.evaluate.footage import Frames, evaluate, frames_of, mean_of, write_folder
from tests.video.videos import write_video

CLIPS = {"calendar": 4, "walk": 7}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for seed, (name, length) in enumerate(CLIPS.items()):
        write_folder(tmp_path / "data" / name, frames_of(length, seed))
    return tmp_path / "data"


def upsampled(frames: Frames) -> Frames:
    """What bicubic gives."""
    cropped = frames[:, : frames.shape[1] // 4 * 4, : frames.shape[2] // 4 * 4]
    return bicubic_upsample(degrade(np.ascontiguousarray(cropped), BI))


def write_outputs(folder: Path, start: int = 0, stop: int | None = None) -> Path:
    for seed, (name, length) in enumerate(CLIPS.items()):
        write_folder(folder / name, upsampled(frames_of(length, seed))[start:stop], "{:08}_X4.png")
    return folder


def compare(out: Path, data: Path, outputs: Path, *more: str) -> None:
    """Bicubic's frames from files have the numbers of our bicubic."""
    report = evaluate(out, "--data", str(data), "--method", "bicubic", f"frames:other={outputs}", *more)
    assert report["methods"]["other"] == report["methods"]["bicubic"]


def test_folders_of_frames_by_the_clips_names(tmp_path: Path, data: Path) -> None:
    compare(tmp_path / "out", data, write_outputs(tmp_path / "results"))


def test_folders_below_others_and_beside_others(tmp_path: Path, data: Path) -> None:
    """As BasicSR writes them: results/NAME/visualization/DATASET/CLIP."""
    outputs = tmp_path / "results"
    write_outputs(outputs / "visualization" / "data")
    write_folder(outputs / "visualization" / "data" / "city", frames_of(2))
    compare(tmp_path / "out", data, outputs)


def test_videos(tmp_path: Path, data: Path) -> None:
    for seed, (name, length) in enumerate(CLIPS.items()):
        write_video(tmp_path / "results" / f"{name}.mkv", upsampled(frames_of(length, seed)))
    compare(tmp_path / "out", data, tmp_path / "results")


def test_a_single_clips_output_needs_no_name(tmp_path: Path, data: Path) -> None:
    write_outputs(tmp_path / "results")
    compare(tmp_path / "out", data / "walk", (tmp_path / "results" / "walk").rename(tmp_path / "mine"))


def test_names_with_the_datasets_before_them(tmp_path: Path, data: Path) -> None:
    for name in ("other/walk", "data/walk", "data/calendar"):
        source = frames_of(7 if "walk" in name else 4, {"other/walk": 9, "data/walk": 1, "data/calendar": 0}[name])
        write_folder(tmp_path / "results" / name, upsampled(source))
    write_folder(tmp_path / "other" / "walk", frames_of(7, 9))
    outputs, other = f"frames:X={tmp_path / 'results'}", str(tmp_path / "other")
    report = evaluate(tmp_path / "out", "--data", str(data), other, "--method", "bicubic", outputs)
    assert [clip["name"] for clip in report["methods"]["X"]["clips"]] == ["calendar", "data/walk", "other/walk"]
    assert report["methods"]["X"] == report["methods"]["bicubic"]


def test_one_output_for_two_clips_is_refused(tmp_path: Path, data: Path) -> None:
    write_folder(tmp_path / "other" / "walk", frames_of(7, 9))
    write_outputs(tmp_path / "results")
    arguments = ["--data", str(data), str(tmp_path / "other"), "--method", f"frames:X={tmp_path / 'results'}"]
    with pytest.raises(UserError, match="walk is the only output for both data/walk and other/walk"):
        evaluate(tmp_path / "out", *arguments)


def test_scored_frames_alone_and_all_frames(tmp_path: Path, data: Path) -> None:
    compare(tmp_path / "1", data, write_outputs(tmp_path / "inner", 1, -1), "--frame-subset", "inner:1")
    compare(tmp_path / "2", data, write_outputs(tmp_path / "all"), "--frame-subset", "inner:1")
    compare(tmp_path / "3", data, tmp_path / "all", "--frames", "1:4")  # frames of the whole clip, found in it
    compare(tmp_path / "4", data, tmp_path / "all", "--frames", "1:4", "--frame-subset", "centre")


@pytest.mark.parametrize("whole", [True, False])
def test_frames_as_large_as_the_clips_before_cropping(tmp_path: Path, whole: bool) -> None:
    frames = frames_of(2, 0, 50, 67)
    write_folder(tmp_path / "clip", frames)
    padded = np.full_like(frames, 77)
    padded[:, :48, :64] = upsampled(frames)
    write_folder(tmp_path / "results" / "clip", padded if whole else upsampled(frames))
    compare(tmp_path / "out", tmp_path / "clip", tmp_path / "results")


@pytest.mark.parametrize(
    ("start", "stop", "message"),
    [
        (1, -1, r"calendar has 2 frames, but the clip .* has 4; .* add --frame-subset inner:1 for all methods"),
        (0, 3, r"calendar has 3 frames, but the clip .*calendar has 4$"),
        (2, 3, r"calendar has 1 frames, but .* has 4; if it is the centre frame, add --frame-subset centre"),
    ],
)
def test_too_few_frames_are_refused_before_any_work(
    tmp_path: Path, data: Path, start: int, stop: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    outputs = write_outputs(tmp_path / "results", start, stop)
    with pytest.raises(UserError, match=message):
        evaluate(tmp_path / "out", "--data", str(data), "--method", f"frames:X={outputs}")
    assert "clip 1/" not in capsys.readouterr().out


def test_other_mistakes_are_named(tmp_path: Path, data: Path) -> None:
    outputs = write_outputs(tmp_path / "results")

    def refusal(method: str, *more: str) -> str:
        with pytest.raises(UserError) as raised:
            evaluate(tmp_path / "out", "--data", str(data), "--method", method, *more)
        return str(raised.value)

    assert "write frames:NAME=URI" in refusal("frames:results")
    assert "nowhere is no file or folder" in refusal("frames:X=nowhere")
    assert "--method names bicubic twice" in refusal(f"frames:bicubic={outputs}", "bicubic")
    write_outputs(outputs / "again")
    (outputs / "calendar").rename(outputs / "elsewhere")
    (outputs / "walk").rename(outputs / "walked")
    write_outputs(outputs / "twice")
    assert "both fit clip calendar" in refusal(f"frames:X={outputs}")
    assert "no folder of frames (PNG, JPEG) and no video there is called calendar" in refusal(
        f"frames:X={outputs / 'elsewhere'}"
    )
    write_folder(tmp_path / "small" / "calendar", frames_of(4, 0, 44, 64))
    write_folder(tmp_path / "small" / "walk", frames_of(7, 0, 44, 64))
    message = refusal(f"frames:X={tmp_path / 'small'}")
    assert f"X: its frames of calendar are 64x44, those of {data}/calendar 64x48" in message


def test_a_method_may_not_be_better_than_its_files(tmp_path: Path, data: Path) -> None:
    """The truth itself as output is infinitely good, whatever the others are."""
    report = evaluate(tmp_path / "out", "--data", str(data), "--method", f"frames:truth={data}", "bicubic")
    assert (mean_of(report, "truth")["psnr_rgb"], mean_of(report, "truth")["ssim_rgb"]) == (None, 1)
    assert mean_of(report)["psnr_rgb"] < 40


def test_a_report_among_the_outputs_is_none_of_them(tmp_path: Path, data: Path) -> None:
    outputs = write_outputs(tmp_path / "results")
    clips = find_clips(find_datasets([str(data)], BI, "auto"))
    write_folder(outputs / "report" / "walk", frames_of(7))
    write_folder(outputs / "report" / "calendar", frames_of(4))
    for out in ("report", "report/"):
        found = outputs_of(f"frames:X={outputs}", clips, f"{outputs}/{out}").found.values()
        assert [output.uri for output in found] == [f"{outputs}/calendar", f"{outputs}/walk"]
    # Where it goes to the outputs' own folder, what lies directly in that is the report's.
    write_folder(tmp_path / "own" / "x" / "calendar", frames_of(4))
    Image.fromarray(frames_of(1)[0]).save(tmp_path / "own" / "side_by_side.png")
    (found_one,) = outputs_of(f"frames:X={tmp_path}/own", clips[:1], f"{tmp_path}/own").found.values()
    assert found_one.uri == f"{tmp_path}/own/x/calendar"
    with pytest.raises(UserError, match="no folder of frames"):
        outputs_of(f"frames:X={tmp_path}/own", clips[1:], f"{tmp_path}/own")


def test_outputs_are_found_from_another_working_folder(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_outputs(tmp_path / "results")
    clips = find_clips(find_datasets([str(data)], BI, "auto"))
    monkeypatch.chdir(tmp_path)
    method = outputs_of("frames:X=results", clips)
    monkeypatch.chdir("/")
    frames = [LrFrame(number, 0, np.zeros((1, 1, 3), np.uint8)) for number in range(CLIPS["calendar"])]
    assert len(list(method.upscale(clips[0], frames, clips[0].scored(), "cpu"))) == CLIPS["calendar"]


def test_two_files_for_one_frame_are_refused(tmp_path: Path, data: Path) -> None:
    outputs = write_outputs(tmp_path / "results")
    (outputs / "walk" / "00000000_X4.jpg").write_bytes((outputs / "walk" / "00000000_X4.png").read_bytes())
    with pytest.raises(UserError, match="walk: holds both 00000000_X4.(jpg|png) and 00000000_X4.(jpg|png); keep one"):
        outputs_of(f"frames:X={outputs}", find_clips(find_datasets([str(data)], BI, "auto")))
