"""Clips that are held out: which, where they go, and that no clip is ever in both datasets."""

import hashlib
import re
from pathlib import Path

import pytest

from mana_dist.data.manifest import load_manifest
from mana_dist.errors import UserError
from mana_dist.ingest.__main__ import main
from mana_dist.ingest.run_unit import run_unit
from mana_dist.ingest.units import Unit, UnitResult
from tests.ingest.datasets import rows, tree, without_ray
from tests.video.videos import noise_frames, write_video

NAMES = "abcdefgh"
RANKED = sorted(NAMES, key=lambda name: hashlib.sha256(name.encode()).hexdigest())


@pytest.fixture(autouse=True)
def _without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    without_ray(monkeypatch)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("clips")
    return {name: write_video(folder / f"{name}.mp4", noise_frames(7, seed=ord(name))) for name in NAMES}


def ingest(out: Path, clips: dict[str, Path], names: str = NAMES, *options: str) -> None:
    main(["--source", *(str(clips[name]) for name in names), "--out", str(out), *options])


def held_by(out: Path) -> tuple[str, str]:
    """Names of the clips of both datasets, which share none."""
    training, held = ({row.clip for row in rows(folder)} for folder in (out, beside(out)))
    assert not training & held
    return "".join(sorted(training)), "".join(sorted(held))


def beside(out: Path) -> Path:
    return out.with_name(f"{out.name}-held-out")


def both(out: Path) -> tuple[dict[str, bytes], dict[str, bytes]]:
    return tree(out), tree(beside(out))


@pytest.mark.parametrize(("wanted", "count"), [("25%", 2), ("3", 3), ("19%", 2), ("18%", 1), ("7", 7)])
def test_the_first_by_the_hash_of_their_names_go_into_a_dataset_of_their_own(
    tmp_path: Path, clips: dict[str, Path], wanted: str, count: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever the order of the sources."""
    out = tmp_path / "out"
    ingest(out, clips, NAMES[::-1], "--hold-out", wanted)
    expected = "".join(sorted(RANKED[:count]))
    training = "".join(name for name in NAMES if name not in expected)
    assert held_by(out) == (training, expected)
    assert load_manifest(str(beside(out))).clips == count
    assert load_manifest(str(out)).samples == 8 - count
    printed = capsys.readouterr().out
    listed = re.search(rf"held out, by a hash of their names: {count} clips? of 8 \((.*)\)", printed)
    assert listed is not None
    assert sorted(listed[1].split(", ")) == list(expected)
    assert printed.endswith(f"--data.path {out} --data.validation_path {beside(out)}\n")


def test_without_it_there_is_no_second_dataset(tmp_path: Path, clips: dict[str, Path]) -> None:
    ingest(tmp_path / "out", clips, "ab")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("at", range(1, 5))
def test_stopped_at_any_clip_it_goes_on_to_the_same_bytes(
    tmp_path: Path, clips: dict[str, Path], monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    ingest(tmp_path / "undisturbed", clips, "abcd", "--hold-out", "2")
    begun = []

    def killed(unit: Unit, *arguments: object) -> UnitResult:
        begun.append(unit)
        if len(begun) == at:
            raise KeyboardInterrupt
        return run_unit(unit, *arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr("mana_dist.ingest.unit_tasks.run_unit", killed)
        with pytest.raises(KeyboardInterrupt):
            ingest(tmp_path / "out", clips, "abcd", "--hold-out", "2")
    assert not (tmp_path / "out" / "manifest.json").exists()
    ingest(tmp_path / "out", clips, "abcd", "--hold-out", "2")
    assert both(tmp_path / "out") == both(tmp_path / "undisturbed")


def test_clips_that_are_added_move_none_of_those_that_are_there(tmp_path: Path, clips: dict[str, Path]) -> None:
    out, late = tmp_path / "out", "".join(sorted(RANKED[2:]))  # the first by their hashes come later
    ingest(out, clips, late, "--hold-out", "2")
    held = "".join(sorted(RANKED[2:4]))
    ingest(out, clips, NAMES, "--hold-out", "2")
    assert held_by(out) == ("".join(name for name in NAMES if name not in held), held)
    before = both(out)
    ingest(out, clips, NAMES, "--hold-out", "2")
    assert both(out) == before
    ingest(out, clips, NAMES, "--hold-out", "2", "--overwrite")
    assert held_by(out)[1] == "".join(sorted(RANKED[:2]))


def test_more_may_be_held_out_of_what_is_added(tmp_path: Path, clips: dict[str, Path]) -> None:
    out = tmp_path / "out"
    ingest(out, clips, "abcd", "--hold-out", "1")
    _, first = held_by(out)
    ingest(out, clips, NAMES, "--hold-out", "3")
    added = [name for name in RANKED if name in "efgh"][:2]
    assert held_by(out)[1] == "".join(sorted([first, *added]))


def test_what_is_there_is_never_in_both(tmp_path: Path, clips: dict[str, Path]) -> None:
    out = tmp_path / "out"
    ingest(out, clips, "ab", "--hold-out", "1")
    before = both(out)
    _, held = held_by(out)
    with pytest.raises(UserError, match="of 1 clip none is left to train on"):
        ingest(out, clips, held, "--hold-out", "1")
    with pytest.raises(UserError, match=f"{held}.mp4: is held out, in {beside(out)}; give --hold-out as before"):
        ingest(out, clips, "abc")
    ingest(tmp_path / "all", clips, "ab")
    with pytest.raises(UserError, match=f"--hold-out 50%: {tmp_path}/all has these clips already; name another --out"):
        ingest(tmp_path / "all", clips, "ab", "--hold-out", "50%")
    ingest(tmp_path / "all-held-out", clips, "a")
    with pytest.raises(UserError, match=r"a\.mp4: is in .*/all and in .*/all-held-out; use --overwrite"):
        ingest(tmp_path / "all", clips, "abc", "--hold-out", "1")
    assert both(out) == before


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("5%", "--hold-out 5%: of 2 clips that is none; name a number, --hold-out 1"),
        ("2", "--hold-out 2: of 2 clips none is left to train on; hold out fewer"),
        ("9", "none is left to train on"),
        ("100%", "none is left to train on"),
        ("0", "--hold-out 0: write a share of the clips like 5%, or a number of clips like 4"),
        ("0.05", "write a share of the clips like 5%"),
        ("some", "write a share of the clips like 5%"),
    ],
)
@pytest.mark.parametrize("more", [[], ["--dry-run"]], ids=["", "dry run"])
def test_a_share_that_gives_none_or_all_is_refused_before_any_work(
    tmp_path: Path, clips: dict[str, Path], wanted: str, message: str, more: list[str]
) -> None:
    with pytest.raises(UserError, match=re.escape(message)) as error:
        ingest(tmp_path / "out", clips, "ab", "--hold-out", wanted, *more)
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_a_bucket_has_no_place_beside_it() -> None:
    with pytest.raises(UserError, match="--hold-out: --out s3://bucket/ is a whole bucket; name a folder in it"):
        main(["--source", "x", "--out", "s3://bucket/", "--hold-out", "1"])


def test_what_cannot_be_used_is_said_before_the_rest_is_worked_on(tmp_path: Path, clips: dict[str, Path]) -> None:
    bad = next(name for name in map(str, range(100)) if hashlib.sha256(name.encode()).hexdigest() < "1")
    short = write_video(tmp_path / f"{bad}.mp4", noise_frames(5))
    with pytest.raises(UserError, match=f"{bad}.mp4: only 5 frames in the range asked for"):
        main(["--source", str(short), str(clips["a"]), "--out", str(tmp_path / "out"), "--hold-out", "1"])
    assert [path.name for path in tmp_path.iterdir()] == [short.name]


def test_a_clip_that_cannot_be_used_is_not_held_out_but_rejected(tmp_path: Path, clips: dict[str, Path]) -> None:
    first = next(name for name in map(str, range(100)) if hashlib.sha256(name.encode()).hexdigest() < "1")
    short = write_video(tmp_path / f"{first}.mp4", noise_frames(5))
    out = tmp_path / "out"
    main(["--source", str(short), str(clips["a"]), str(clips["b"]), "--out", str(out), "--hold-out", "1"])
    assert sorted(row.clip for folder in (out, beside(out)) for row in rows(folder) if row.samples) == ["a", "b"]
    (rejected,) = load_manifest(str(out)).rejected
    assert rejected.source == str(short)


def test_a_dry_run_says_which_and_writes_nothing(
    tmp_path: Path, clips: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    ingest(tmp_path / "out", clips, "abcd", "--hold-out", "1", "--dry-run")
    printed = capsys.readouterr().out
    assert f"1 clip of 4 ({min('abcd', key=RANKED.index)})" in printed
    assert f"{beside(tmp_path / 'out')}: 0 clips there already; nothing was written" in printed
    assert list(tmp_path.iterdir()) == []
