"""Clips that are left out as a whole: near-duplicates, whoever found them first, and those of poor quality."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

from mana_dist.child_task import Task
from mana_dist.data.manifest import load_manifest
from mana_dist.errors import UserError
from mana_dist.ingest import unit_tasks
from mana_dist.ingest.__main__ import main
from mana_dist.ingest.verify import verify
from tests.ingest.datasets import rows, tree, without_ray
from tests.ingest.test_pairs import Frames, film
from tests.video.videos import write_coded, write_pictures


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    without_ray(monkeypatch)


def small(frames: Frames) -> Frames:
    return np.stack([cv2.resize(frame, (144, 96), interpolation=cv2.INTER_AREA) for frame in frames])


def samples(out: Path) -> dict[str, int]:
    return {row.clip: row.samples for row in rows(out)}


@pytest.fixture
def sources(tmp_path: Path) -> list[str]:
    """Two films; of the first a small and compressed copy, and the end; of the second another take."""
    write_pictures(tmp_path / "one" / "first", film(20))
    write_pictures(tmp_path / "one" / "second", film(20, first=100))
    write_coded(tmp_path / "copy.mp4", small(film(20)), options={"crf": "30"})
    write_pictures(tmp_path / "two" / "end", film(20)[8:])
    write_pictures(tmp_path / "two" / "take", film(20, first=160))
    return [str(tmp_path / name) for name in ("one", "copy.mp4", "two")]


def test_near_duplicates_stay_unless_asked(tmp_path: Path, sources: list[str]) -> None:
    main(["--source", *sources, "--out", str(tmp_path / "out")])
    assert samples(tmp_path / "out") == {"first": 14, "second": 14, "copy": 14, "end": 6, "take": 14}


def test_of_near_duplicates_the_first_source_stays(
    tmp_path: Path, sources: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    command = ["--drop-near-duplicates", "--source", *sources, "--out"]
    main([*command, str(out)])
    assert samples(out) == {"first": 14, "second": 14, "copy": 0, "end": 0, "take": 14}
    manifest = load_manifest(str(out))
    assert (manifest.samples, manifest.clips, manifest.drop_near_duplicates) == (42, 3, True)
    reason = f"shows what {tmp_path}/one/first shows: a near-duplicate"
    assert {(item.source, item.reason) for item in manifest.rejected} == {
        (str(tmp_path / "copy.mp4"), reason),
        (str(tmp_path / "two" / "end"), reason),
    }
    assert verify(str(out)) == []
    before = tree(out)
    main([*command, str(out)])  # nothing to do
    assert tree(out) == before

    def forwards(items: Sequence[str], task: Task, _: Callable[[str], str]) -> Iterator[str]:
        return (task(item, lambda: None) for item in items)

    monkeypatch.setattr(unit_tasks, "map_on_ray", forwards)
    main([*command, str(tmp_path / "forwards")])
    assert tree(tmp_path / "forwards") == before
    main(["--drop-near-duplicates", "--source", sources[1], sources[0], "--out", str(tmp_path / "turned")])
    assert samples(tmp_path / "turned") == {"first": 0, "second": 14, "copy": 14}


def test_clips_that_a_dataset_has_stay(tmp_path: Path, sources: list[str]) -> None:
    out = tmp_path / "out"
    main(["--drop-near-duplicates", "--source", sources[1], "--out", str(out)])
    main(["--drop-near-duplicates", "--source", *sources, "--out", str(out)])
    assert samples(out) == {"first": 0, "second": 14, "copy": 14, "end": 0, "take": 14}
    with pytest.raises(UserError, match=r"made with other settings \(drop_near_duplicates: True -> False\)"):
        main(["--source", *sources, "--out", str(out)])


def test_no_near_duplicate_is_on_both_sides_of_a_hold_out(tmp_path: Path, sources: list[str]) -> None:
    command = ["--drop-near-duplicates", "--hold-out", "2", "--source", *sources, "--out", str(tmp_path / "out")]
    main(command)
    kept = samples(tmp_path / "out") | samples(tmp_path / "out-held-out")
    assert len(kept) == 5
    assert sum(kept[name] > 0 for name in ("first", "copy")) == 1
    assert kept["second"] == kept["take"] == 14


def test_nor_on_both_sides_once_more_is_held_out_or_trained_on(tmp_path: Path) -> None:
    """A copy of what is trained on is no validation, and a copy of what is held out is not trained on."""
    begins = {"p": 0, "q": 100, "r": 200}
    for name, first in begins.items():
        write_pictures(tmp_path / "set" / name, film(20, first=first))
    command = ["--drop-near-duplicates", "--out", str(tmp_path / "out"), "--source"]
    main([*command, str(tmp_path / "set"), "--hold-out", "1"])
    (held,) = samples(tmp_path / "out-held-out")
    (trained, _) = samples(tmp_path / "out")
    write_pictures(tmp_path / "set" / "copy", film(20, first=begins[trained]))
    main([*command, str(tmp_path / "set"), "--hold-out", "2"])  # what is trained on stays there, so it is the copy's
    assert samples(tmp_path / "out-held-out") == {held: 14, "copy": 0}
    write_pictures(tmp_path / "more" / "another", film(20, first=begins[held]))
    main([*command, str(tmp_path / "set" / trained), str(tmp_path / "more")])
    assert samples(tmp_path / "out")["another"] == 0


def test_those_that_share_shards_with_a_near_duplicate_are_made_again_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mana_dist.ingest.units.PACKS", 1)
    for name, first in (("a", 0), ("b", 0), ("c", 100), ("d", 100)):
        write_pictures(tmp_path / "set" / name, film(9, first=first))
    write_pictures(tmp_path / "apart" / "a", film(9))
    write_pictures(tmp_path / "apart" / "c", film(9, first=100))
    command = ["--drop-near-duplicates", "--out", str(tmp_path / "out"), "--source"]

    def stopped(items: Sequence[str], task: Task, _: Callable[[str], str]) -> Iterator[str]:
        for item in items:
            if len(list((tmp_path / "out/.work").glob("*.json"))) == 1:  # before what is made again
                raise KeyboardInterrupt
            yield task(item, lambda: None)

    with monkeypatch.context() as patched:
        patched.setattr(unit_tasks, "map_on_ray", stopped)
        with pytest.raises(KeyboardInterrupt):
            main([*command, str(tmp_path / "set")])
    main([*command, str(tmp_path / "set")])
    assert samples(tmp_path / "out") == {"a": 3, "b": 0, "c": 3, "d": 0}
    assert len(list((tmp_path / "out").glob("*-00000.parquet"))) == 1
    assert verify(str(tmp_path / "out")) == []


def test_flat_clips_are_no_near_duplicates(tmp_path: Path) -> None:
    for name, level in (("a", 40), ("b", 200)):
        grey = np.full((9, 64, 96, 3), level, np.uint8)
        grey[:, ::2, ::2] += np.arange(9, dtype=np.uint8)[:, None, None, None]
        write_pictures(tmp_path / "set" / name, grey)
    more = ["--min-detail", "0", "--min-change", "0", "--keep-cuts"]
    main(["--drop-near-duplicates", "--source", str(tmp_path / "set"), "--out", str(tmp_path / "out"), *more])
    assert samples(tmp_path / "out") == {"a": 3, "b": 3}


def test_blocky_and_blurred_clips_are_left_out_if_asked(tmp_path: Path) -> None:
    fine = film(9) // 2 + np.random.default_rng(0).integers(0, 99, (9, 128, 192, 1), np.uint8)
    write_pictures(tmp_path / "set" / "fine", fine)
    blocks = np.random.default_rng(1).integers(0, 100, (9, 16, 24, 1), np.uint8).repeat(8, 1).repeat(8, 2)
    write_pictures(tmp_path / "set" / "blocky", fine // 2 + blocks)
    write_pictures(tmp_path / "set" / "blurred", np.stack([cv2.GaussianBlur(frame, (0, 0), 4) for frame in fine]))
    source = ["--source", str(tmp_path / "set"), "--out"]
    main([*source, str(tmp_path / "all")])
    found = {row.clip: row for row in rows(tmp_path / "all")}
    assert (found["fine"].blockiness or 9) < 1.1
    assert (found["blocky"].blockiness or 0) > 1.3
    assert (found["fine"].blur or 1) < 0.4
    assert (found["blurred"].blur or 0) > 0.6
    assert all(row.samples for row in found.values())
    main([*source, str(tmp_path / "out"), "--max-blockiness", "1.2", "--max-blur", "0.5"])
    assert samples(tmp_path / "out") == {"blocky": 0, "blurred": 0, "fine": 3}
    reasons = {item.source.rpartition("/")[2]: item.reason for item in load_manifest(str(tmp_path / "out")).rejected}
    assert reasons["blocky"].endswith(" is above --max-blockiness 1.2")
    assert reasons["blurred"] == f"its blur of {found['blurred'].blur:.2f} is above --max-blur 0.5"
    with pytest.raises(UserError, match="--max-blockiness must be at least 1, got 0.5"):
        main([*source, str(tmp_path / "out"), "--max-blockiness", "0.5"])
