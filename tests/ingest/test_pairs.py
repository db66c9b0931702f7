"""Pairs that users bring: taken as they are where LR shows what HR does, else refused with what is wrong, and where."""

import functools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

import mana_dist
from mana_dist.child_task import Task
from mana_dist.data.degradation import BD, BI, REAL, degrade, degrade_clip
from mana_dist.data.manifest import load_manifest
from mana_dist.errors import UserError
from mana_dist.footage.expand import expand
from mana_dist.ingest import unit_tasks
from mana_dist.ingest.__main__ import main
from mana_dist.ingest.verify import verify
from tests.data.shards import plain_array
from tests.data.test_recipe import Hr
from tests.footage.test_pairs import LAYOUTS, place, reasons, uris
from tests.ingest.datasets import rows, tree, without_ray
from tests.ingest.test_recipes import PROGRAM
from tests.video.videos import write_pictures, write_video

Frames = NDArray[np.uint8]
SIZE = (128, 192)
WAVES = np.random.default_rng(0).uniform([-0.05, -0.05, 0], [0.05, 0.05, 2 * np.pi], (24, 3))


@functools.cache
def film(count: int = 20, right: float = 0, down: float = 0, first: int = 0) -> Frames:
    """HR frames of waves that run at speeds of their own, seen from so many HR pixels further left and up.

    In closed form, so that a shifted LR frame is made of a frame that really lies elsewhere, not of a resampled one.
    """
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    across, along, phase = (value[:, None, None] for value in WAVES.T)
    speeds = np.linspace(-0.4, 0.4, len(WAVES))[:, None, None]
    places = 2 * np.pi * (across * (x - right) + along * (y - down)) + phase
    waves = [np.cos(places + speeds * time).sum(0) for time in range(first, first + count)]
    grey = np.rint(128 + 7 * np.stack(waves)).clip(0, 255).astype(np.uint8)
    return np.stack([grey, grey // 2 + 60, grey // 3], axis=-1)


def write(folder: Path, hr: Frames, lr: Frames, kind: str = "pictures") -> list[str]:
    """The command that ingests this pair."""
    if kind == "pictures":
        write_pictures(folder / "HR" / "c1", hr)
        write_pictures(folder / "LR" / "c1", lr)
    else:
        write_video(folder / "HR" / "c1.mp4", hr)
        write_video(folder / "LR" / "c1.mkv", lr)
    return ["--pairs", "--source", str(folder), "--out", str(folder.with_name("out"))]


def reason(tmp_path: Path, hr: Frames, lr: Frames, kind: str = "pictures") -> str:
    """Why the pair is refused."""
    with pytest.raises(UserError) as refused:
        main(write(tmp_path / "set", hr, lr, kind))
    assert not list((tmp_path / "out").glob("*.parquet"))
    return str(refused.value)


def note(tmp_path: Path, hr: Frames, lr: Frames) -> str:
    """What is said of the pair, which is taken."""
    main(write(tmp_path / "set", hr, lr))
    (row,) = rows(tmp_path / "out")
    assert row.samples == len(hr) - 6
    return row.note


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    without_ray(monkeypatch)


@pytest.mark.parametrize("kind", ["pictures", "videos"])
def test_a_true_pair_gives_the_samples_that_its_hr_frames_give(tmp_path: Path, kind: str) -> None:
    hr = film()
    lr = degrade(hr, BI)
    main(write(tmp_path / "set", hr, lr, kind))
    alone = tmp_path / "set" / "HR" / ("c1" if kind == "pictures" else "c1.mp4")
    main(["--source", str(alone), "--out", str(tmp_path / "made")])
    (given,), (made,) = (
        [pq.read_table(path) for path in (tmp_path / name).glob("c1-*.parquet")] for name in ("out", "made")
    )
    assert given.num_rows == 14
    assert given.equals(made)
    for centre, sample in zip(given["centre"].to_pylist(), plain_array(given, "lr"), strict=True):
        np.testing.assert_array_equal(sample, lr[centre - 3 : centre + 4])
    manifest = load_manifest(str(tmp_path / "out"))
    assert (manifest.degradation, manifest.degradation_version, manifest.recipe) == ("given", 1, None)
    assert verify(str(tmp_path / "out")) == []
    (row,) = rows(tmp_path / "out")
    assert (row.lr, row.note) == (str(tmp_path / "set/LR" / ("c1" if kind == "pictures" else "c1.mkv")), "")


def test_lr_frames_of_any_kind_are_taken_byte_for_byte(tmp_path: Path) -> None:
    """Noise and compression look unlike what BI makes, and show the same."""
    hr = film()
    whole = (Hr(number, 0, frame) for number, frame in enumerate(hr))
    lr = np.stack([low for _, low in degrade_clip(whole, REAL, "c1")])
    assert note(tmp_path, hr, lr) == ""
    (table,) = [pq.read_table(path) for path in (tmp_path / "out").glob("c1-*.parquet")]
    for centre, sample in zip(table["centre"].to_pylist(), plain_array(table, "lr"), strict=True):
        np.testing.assert_array_equal(sample, lr[centre - 3 : centre + 4])


@pytest.mark.parametrize("kind", ["pictures", "videos"])
@pytest.mark.parametrize(
    ("offset", "what"), [(-2, "two frames late"), (1, "one frame early"), (3, "three frames early")]
)
def test_an_offset_in_time_is_refused_and_named(tmp_path: Path, offset: int, what: str, kind: str) -> None:
    said = reason(tmp_path, film(), degrade(film(first=offset), BI), kind)
    number = int(said.split("LR frame ")[1].split()[0])
    assert f": LR is {what}: LR frame {number} shows frame {number + offset} of {tmp_path}/set/HR/c1" in said
    assert said.endswith("; mend or leave out the pair")


def test_an_offset_shows_through_noise_and_compression(tmp_path: Path) -> None:
    whole = (Hr(number, 0, frame) for number, frame in enumerate(film(first=-1)))
    lr = np.stack([low for _, low in degrade_clip(whole, REAL, "c1")])
    assert "LR is one frame late" in reason(tmp_path, film(), lr)


def test_a_dropped_frame_is_named(tmp_path: Path) -> None:
    """Of a folder the last frame stands twice: the counts are right, the names too."""
    lr = degrade(film(), BI)
    dropped = np.concatenate([lr[:9], lr[10:], lr[-1:]])
    assert "LR is one frame early: LR frame 9 shows frame 10" in reason(tmp_path / "pictures", film(), dropped)
    assert "LR is one frame early: LR frame 9 shows frame 10" in reason(tmp_path / "v", film(), dropped[:-1], "videos")


@pytest.mark.parametrize("kind", ["pictures", "videos"])
def test_other_numbers_of_frames_are_refused(tmp_path: Path, kind: str) -> None:
    said = reason(tmp_path / "fewer", film(), degrade(film()[:-1], BI), kind)
    assert "has 20 frames, and " in said
    assert "19 LR frames; mend or leave out the pair" in said
    assert "has 19 frames, and " in reason(tmp_path / "more", film()[:-1], degrade(film(), BI), kind)


def test_a_missing_number_is_named(tmp_path: Path) -> None:
    command = write(tmp_path / "set", film(), degrade(film(), BI))
    (tmp_path / "set/LR/c1/im9.png").unlink()
    (tmp_path / "set/HR/c1/im20.png").unlink()
    with pytest.raises(UserError, match=r"im10\.png would be the LR frame of .*/im9\.png, but after im8\.png"):
        main(command)


def test_another_size_is_refused_before_anything_is_decoded(tmp_path: Path) -> None:
    said = reason(tmp_path, film(), degrade(film(), BI, 2))
    assert said.endswith("its LR frames are 96x64; frames of 192x128 need 48x32 at scale 4; mend or leave out the pair")


def test_a_crop_is_refused(tmp_path: Path) -> None:
    """The same size of another part of the picture: 12 HR pixels further, or the middle, enlarged."""
    far = degrade(film(right=-12, down=8), BI)
    assert "does not show what frame" in reason(tmp_path / "far", film(), far)
    import cv2

    middle = np.stack([cv2.resize(frame[24:-24, 36:-36], SIZE[::-1], interpolation=cv2.INTER_AREA) for frame in film()])
    assert "does not show what frame" in reason(tmp_path / "middle", film(), degrade(middle, BI))


def test_a_shift_below_two_pixels_is_taken_and_named(tmp_path: Path) -> None:
    said = note(tmp_path, film(), degrade(film(right=2, down=-4), BI))
    right, down = (float(part.split()[-1]) for part in said.split(" LR pixels further ")[:2])
    assert (right, down) == pytest.approx((0.5, 1), abs=0.05)
    assert "further right and" in said
    assert said.endswith("further up than our BI's")


def test_bd_has_its_phase_named(tmp_path: Path) -> None:
    assert note(tmp_path, film(), degrade(film(), BD)).startswith("the given LR frames lie 0.3")


@pytest.mark.parametrize(("gamma", "what"), [(1.3, "darker"), (0.8, "brighter")])
def test_a_gamma_is_named(tmp_path: Path, gamma: float, what: str) -> None:
    lr = degrade(film(), BI)
    said = note(tmp_path, film(), np.rint(255 * (lr / 255.0) ** gamma).astype(np.uint8))
    assert said.startswith(f"the given LR frames are {what} than our BI's: ")
    name, given, _, ours = said.rpartition(": ")[2].split()
    assert name in ("red", "green", "blue")
    assert int(given[:-1]) == pytest.approx(255 * (int(ours) / 255) ** gamma, abs=2)


def test_another_clip_is_refused(tmp_path: Path) -> None:
    said = reason(tmp_path, film(), degrade(film(first=90), BI))
    assert "LR frame 0 does not show what frame 0" in said


def test_a_single_wrong_frame_is_named(tmp_path: Path) -> None:
    lr = degrade(film(), BI)
    lr[13] = lr[13, ::-1]
    assert "LR frame 13 does not show what frame 13" in reason(tmp_path, film(), lr)


def test_frames_that_stand_still_are_taken(tmp_path: Path) -> None:
    """Which of them an LR frame shows, nobody can see; noise must not decide it."""
    rng = np.random.default_rng(0)
    hr = np.repeat(film(1), 12, axis=0)
    lr = degrade(hr, BI) + rng.normal(0, 3, (12, 32, 48, 3))
    command = [*write(tmp_path / "set", hr, lr.clip(0, 255).astype(np.uint8)), "--min-change", "0"]
    main(command)
    assert rows(tmp_path / "out")[0].samples == 6


def test_the_clips_beside_a_wrong_pair_are_taken(tmp_path: Path) -> None:
    for name, offset in (("a", 0), ("b", 1), ("c", 0), ("d", 90)):
        write_pictures(tmp_path / "set/HR" / name, film(8))
        write_pictures(tmp_path / "set/LR" / name, degrade(film(8, first=offset), BI))
    main(["--pairs", "--source", str(tmp_path / "set"), "--out", str(tmp_path / "out")])
    assert {row.clip: row.samples for row in rows(tmp_path / "out")} == {"a": 2, "b": 0, "c": 2, "d": 0}
    manifest = load_manifest(str(tmp_path / "out"))
    assert [item.source[-1] for item in manifest.rejected] == ["b", "d"]
    assert manifest.samples == 4
    assert verify(str(tmp_path / "out")) == []


def test_a_table_names_pairs(tmp_path: Path) -> None:
    write_pictures(tmp_path / "one", film(9))
    write_pictures(tmp_path / "small", degrade(film(9), BI))
    write_video(tmp_path / "b.mp4", film(9, first=30))
    write_video(tmp_path / "tiny.mp4", degrade(film(9, first=30), BI))
    table = tmp_path / "pairs.csv"
    table.write_text("hr,lr,frames\none,small,\nb.mp4,tiny.mp4,1:\n")
    command = ["--source", str(table), "--out", str(tmp_path / "out")]
    with pytest.raises(UserError, match=r"/b.mp4: a list names it as one of a pair \(hr, lr\), which only mana ingest"):
        main(command)
    main(["--pairs", *command])
    assert [(row.clip, row.lr, row.samples) for row in rows(tmp_path / "out")] == [
        ("b", str(tmp_path / "tiny.mp4"), 2),
        ("one", str(tmp_path / "small"), 3),
    ]
    before = tree(tmp_path / "out")
    main(["--pairs", *command])  # nothing to do
    assert tree(tmp_path / "out") == before
    write_pictures(tmp_path / "small", degrade(film(9, first=5), BI))  # the LR frames alone are others now
    main(["--pairs", *command])
    assert [row.samples for row in rows(tmp_path / "out")] == [2, 0]
    table.write_text("hr,lr\none,\n")
    with pytest.raises(UserError, match=r"line 2: names no source; write its path or URI as hr and lr"):
        main(["--pairs", *command])


def test_a_pair_that_shares_shards_is_made_again_with_its_lr_frames(tmp_path: Path) -> None:
    for name in "ab":
        write_pictures(tmp_path / f"set/{name}/HR", film(8, first=ord(name)))
        write_pictures(tmp_path / f"set/{name}/LR", degrade(film(8, first=ord(name)), BI))
    out = tmp_path / "out"
    command = ["--pairs", "--out", str(out), "--source"]
    main([*command, str(tmp_path / "set")])
    assert [row.clip for row in rows(out)] == ["a", "b"]
    write_pictures(tmp_path / "set/a/HR", film(9, first=5))
    write_pictures(tmp_path / "set/a/LR", degrade(film(9, first=5), BI))
    main([*command, str(tmp_path / "set/a")])
    assert [(row.clip, row.samples, (row.lr or "")[-4:]) for row in rows(out)] == [("a", 3, "a/LR"), ("b", 2, "b/LR")]
    assert verify(str(out)) == []


@pytest.mark.parametrize(("high", "low"), LAYOUTS)
def test_trees_of_any_layout(tmp_path: Path, high: str, low: str) -> None:
    place(tmp_path, high, low, "other")
    found = expand([str(tmp_path)], as_truth=True, pairs_at=4)
    assert uris(found, tmp_path) == [high]
    assert [clip.lr for clip in found.clips] == [str(tmp_path / low)]
    assert list(reasons(found, tmp_path)) == ["other"]
    assert found.rejected[0].reason.startswith("is in no pair: HR and LR frames of one name, in folders that")


def test_lr_frames_of_another_scale_are_no_part_of_it(tmp_path: Path) -> None:
    place(tmp_path, "GT/c1", "BIx4/c1", "BIx2/c1", "BDx4/c1")
    found = expand([str(tmp_path)], as_truth=True, pairs_at=2)
    assert [clip.lr for clip in found.clips] == [str(tmp_path / "BIx2/c1")]
    found = expand([str(tmp_path)], as_truth=True, pairs_at=4)
    assert not found.clips
    said = f"has LR frames in {tmp_path}/BDx4 and in {tmp_path}/BIx4; a table with columns hr,lr says which"
    assert reasons(found, tmp_path)["GT/c1"].startswith(said)


def test_stopped_anywhere_it_goes_on_to_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, first in (("a", 0), ("b", 40)):
        write_pictures(tmp_path / f"set/HR/{name}", film(9, first=first))
        write_pictures(tmp_path / f"set/LR/{name}", degrade(film(9, first=first), BI))
    write_video(tmp_path / "films/HR/film.mp4", film(30), keyframes=10)
    write_video(tmp_path / "films/LR/film.mp4", degrade(film(30), BI), keyframes=7)
    command = ["--pairs", "--source", str(tmp_path / "set"), str(tmp_path / "films"), "--segment-frames", "16"]
    main([*command, "--out", str(tmp_path / "whole")])

    def stopped(items: Sequence[str], task: Task, _: Callable[[str], str]) -> Iterator[str]:
        for number, item in enumerate(items):
            if number == 1:
                raise KeyboardInterrupt
            yield task(item, lambda: None)

    with monkeypatch.context() as patched:
        patched.setattr(unit_tasks, "map_on_ray", stopped)
        with pytest.raises(KeyboardInterrupt):
            main([*command, "--out", str(tmp_path / "out")])
    main([*command, "--out", str(tmp_path / "out")])
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")
    assert load_manifest(str(tmp_path / "out")).samples == 3 + 3 + 24


def test_a_degradation_or_a_downscale_does_not_go_with_pairs(tmp_path: Path) -> None:
    for more in (["--degradation", "BD"], ["--downscale", "2"]):
        with pytest.raises(UserError, match="--pairs takes the LR frames that are there; leave --degradation and"):
            main(["--pairs", "--source", str(tmp_path), "--out", str(tmp_path / "out"), *more])


@pytest.mark.slow
def test_any_number_of_workers_gives_the_same_bytes(tmp_path: Path) -> None:
    for number in range(3):
        write_pictures(tmp_path / f"set/HR/c{number}", film(9, first=40 * number))
        write_pictures(tmp_path / f"set/LR/c{number}", degrade(film(9, first=40 * number), BI))
    command = ["--source", str(tmp_path / "set"), "--pairs"]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    environment["PYTHONPATH"] = str(Path(mana_dist.__file__).parents[1])
    line = [sys.executable, "-c", PROGRAM, *command, "--out"]
    result = subprocess.run(line, check=False, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    main([*command, "--out", str(tmp_path / "here")])
    assert tree(tmp_path / "1") == tree(tmp_path / "2") == tree(tmp_path / "5") == tree(tmp_path / "here")
