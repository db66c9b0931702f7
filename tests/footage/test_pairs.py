"""What evaluation takes for LR frames is never ingested as ground truth, and pairs are refused as such."""

from pathlib import Path

import numpy as np
import pytest

from mana_dist.data.manifest import Rejected
from mana_dist.footage.expand import Expansion, expand
from mana_dist.ingest.__main__ import main
from mana_dist.ingest.header import reject_lookalikes
from tests.conftest import RunHere
from tests.video.videos import moving_frames, write_pictures

# The layouts of docs/evaluation.md, clip by clip: HR, LR.
LAYOUTS = [
    ("HR/c1", "LR/c1"),
    ("hr/c1", "lr/c1"),
    ("HR/c1", "LR/X4/c1"),
    ("HR/c1", "LRx4/c1"),
    ("HR", "LR"),
    ("GT/c1", "BIx4/c1"),
    ("GT/c1", "BDx4/c1"),
    ("GT/000", "sharp_bicubic/000"),
    ("train_sharp/000", "train_sharp_bicubic/X4/000"),
    ("val_sharp/000", "val_sharp_bicubic/X4/000"),
    ("c1/HR", "c1/LR"),
    ("c1/GT", "c1/BIx4"),
    ("c1/truth", "c1/input4"),
    ("c1/truth", "c1/blur4"),
    ("sequences/00001/0001", "sequences_LR/00001/0001"),
    ("sequences/00001/0001", "BIx4/00001/0001"),
    ("vimeo/sequences/00001/0001", "vimeo_matlabLRx4/sequences/00001/0001"),
]


def place(folder: Path, *clips: str) -> None:
    for clip in clips:
        (folder / clip).mkdir(parents=True)
        for number in range(7):
            (folder / clip / f"{number:04}.png").write_bytes(b"x")


def uris(found: Expansion, root: Path) -> list[str]:
    return [clip.uri.removeprefix(f"{root}/") for clip in found.clips]


def reasons(found: Expansion, root: Path) -> dict[str, str]:
    return {item.source.removeprefix(f"{root}/"): item.reason for item in found.rejected}


@pytest.mark.parametrize(("high", "low"), LAYOUTS)
def test_a_tree_of_pairs_is_refused(tmp_path: Path, high: str, low: str) -> None:
    place(tmp_path, high, low, "other")
    found = expand([str(tmp_path)], as_truth=True)
    assert uris(found, tmp_path) == ["other"]
    (hr, told), (lr, told_too) = sorted(reasons(found, tmp_path).items(), key=lambda item: not high.startswith(item[0]))
    assert high.startswith(hr)
    assert low.startswith(lr)
    mend = f"add --pairs to train on both, or name {tmp_path}/{hr} alone, and LR frames are made of it"
    assert told == f"has LR frames beside it, in {tmp_path}/{lr}; {mend}"
    assert told_too == f"holds the LR frames of {tmp_path}/{hr}; {mend}"


@pytest.mark.parametrize(("high", "low"), LAYOUTS)
def test_the_ground_truth_alone_is_ingested_and_lr_frames_never(tmp_path: Path, high: str, low: str) -> None:
    place(tmp_path, high, low)
    top = high.partition("/")[0]
    whole = high if top == low.partition("/")[0] else top
    assert uris(expand([f"{tmp_path}/{whole}"], as_truth=True), tmp_path) == [high]
    named = low.rpartition("/0")[0] or low
    assert uris(expand([f"{tmp_path}/{low.rpartition('/c1')[0] or named}"], as_truth=True), tmp_path) == []


def test_lists_and_patterns_that_name_both(tmp_path: Path) -> None:
    place(tmp_path, "HR/c1", "LR/c1", "HR/c2", "LR/c2")
    (tmp_path / "all.txt").write_text("HR/c1\nLR/c1\n")
    for source in ("all.txt", "*/c1", "[HL]R", "**"):
        found = expand([f"{tmp_path}/{source}"], as_truth=True)
        assert (uris(found, tmp_path), list(reasons(found, tmp_path))) == ([], ["LR", "HR"])
    both = expand([f"{tmp_path}/HR/c1", f"{tmp_path}/LR/c1"], as_truth=True)
    assert uris(both, tmp_path) == []


def test_videos_in_pairs(tmp_path: Path) -> None:
    for path in ("HR/a.mp4", "LR/a.mkv", "LR/b.mkv"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(b"x")
    found = expand([str(tmp_path)], as_truth=True)
    assert (uris(found, tmp_path), list(reasons(found, tmp_path))) == ([], ["LR", "HR"])


def test_lr_frames_without_ground_truth(tmp_path: Path) -> None:
    place(tmp_path, "films/a", "X4/b", "X4/c", "colr/d", "set/BIx4/e")
    found = expand([str(tmp_path)], as_truth=True)
    assert uris(found, tmp_path) == ["colr/d", "films/a"]
    reason = "a folder of LR frames, which are no ground truth; name the folder of the HR frames"
    assert reasons(found, tmp_path) == {"X4": reason, "set/BIx4": reason}


def test_upscaling_takes_what_is_called_lr(tmp_path: Path) -> None:
    place(tmp_path, "HR/c1", "LR/c1")
    assert uris(expand([str(tmp_path)]), tmp_path) == ["HR/c1", "LR/c1"]


def test_the_command_refuses_pairs(cases: Path, tmp_path: Path, run_here: RunHere) -> None:
    done = run_here(main, "--source", cases / "pairs", "--out", tmp_path / "out")
    assert done.returncode == 2
    assert "none of the 2 sources is usable; the first: " in done.stderr
    assert f"LR: holds the LR frames of {cases}/pairs/HR; add --pairs to train on both, or name" in done.stderr
    assert not list((tmp_path / "out").glob("*.parquet"))


@pytest.mark.parametrize(("high", "low"), [("big/c1", "small/c1"), ("c1/a", "c1/b"), ("c1", "c1_small")])
def test_lr_frames_under_other_names_are_seen_by_their_pictures(tmp_path: Path, high: str, low: str) -> None:
    frames = moving_frames(7, 128, 192)
    write_pictures(tmp_path / high, frames)
    write_pictures(tmp_path / low, frames.reshape(7, 32, 4, 48, 4, 3).mean((2, 4)).astype(np.uint8))
    write_pictures(tmp_path / "other", moving_frames(7, 32, 48)[:, ::-1, ::-1])
    clips = expand([str(tmp_path)], as_truth=True).clips
    assert len(clips) == 3
    reason = f"shows {tmp_path}/{high} in a smaller size: LR frames or a preview, no ground truth of its own"
    assert reject_lookalikes(clips) == {f"{tmp_path}/{low}": Rejected(f"{tmp_path}/{low}", reason)}
    whole = (tmp_path / high / "im1.png").read_bytes()
    for broken in (b"no picture", whole[:-500]):  # which is told where it is read
        (tmp_path / high / "im1.png").write_bytes(broken)
        assert reject_lookalikes(clips) == {}
