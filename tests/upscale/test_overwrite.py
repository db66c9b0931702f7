"""A finished result is known for what made it, and nothing else that lies in its place is lost without a word."""

import errno
import os
import shutil
import subprocess
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from mana_dist import storage
from mana_dist.config import Config
from mana_dist.errors import UserError
from mana_dist.model import Mana, ModelConfig
from mana_dist.registry import model_folder
from mana_dist.upscale import mark
from mana_dist.upscale.__main__ import main
from mana_dist.upscale.config import Settings
from mana_dist.upscale.destination import is_done
from tests.upscale.runs import run
from tests.video.videos import moving_frames, write_coded

CONFIG = Config(model=ModelConfig(channels=8, encoder_blocks=1, decoder_blocks=1, frames=3, window=3, memory_slots=4))
needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")


def write_model(folder: Path, seed: int) -> str:
    torch.manual_seed(seed)
    model = Mana(CONFIG.model)
    torch.nn.init.normal_(model.attention.project.weight)
    model_folder.save(str(folder), model.state_dict(), CONFIG)
    return str(folder)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    folder = tmp_path_factory.mktemp("models")
    return write_model(folder / "a", 0), write_model(folder / "b", 1)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = write_coded(tmp_path / "in.mp4", moving_frames(3, 24, 32))
    os.utime(path, (1e9, 1e9))
    return path


def upscale(source: Path, destination: Path, model: str, *more: str) -> None:
    fixed = ["--device", "cpu", "--threads", "1", "--preset", "ultrafast"]
    fixed = fixed[:4] if "png" in more or "ffv1" in more else fixed
    main([str(source), str(destination), "--model", model, *fixed, *more])


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(("name", "more"), [("out.mp4", ["--compare"]), ("out", ["--codec", "png"])])
def test_what_is_done_already_may_lie_where_nothing_can_be_written(
    tmp_path: Path, source: Path, models: tuple[str, str], monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], name: str, more: list[str],
) -> None:  # fmt: skip
    out = tmp_path / name
    upscale(source, out, models[0], *more)

    def read_only(path: str, *_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system", path)

    monkeypatch.setattr(storage, "write_bytes", read_only)
    monkeypatch.setattr(os, "makedirs", read_only)
    capsys.readouterr()
    upscale(source, out, models[0], *more)
    assert capsys.readouterr().out == f"{out}: is done already, by the same command\n"
    for other in (out, tmp_path / f"new-{name}"):
        with pytest.raises(UserError, match=rf"^{other}: cannot .*Read-only file system"):
            upscale(source, other, models[1], *more, "--overwrite")


@pytest.mark.parametrize(
    ("name", "more"), [("out.mp4", []), ("out.mkv", []), ("out.mov", []), ("out", ["--codec", "png"])]
)
def test_the_same_job_is_done_already_and_another_is_refused_and_replaces_when_told(
    tmp_path: Path, source: Path, models: tuple[str, str], capsys: pytest.CaptureFixture[str], name: str,
    more: list[str],
) -> None:  # fmt: skip
    out = tmp_path / name
    upscale(source, out, models[0], *more)
    first = contents(tmp_path)
    capsys.readouterr()
    # How the work is done is no matter.
    for how in ([], ["--segment", "99"], ["--memory", "none"], ["--overwrite"]):
        upscale(source, out, models[0], *more, *how)
        assert capsys.readouterr().out == f"{out}: is done already, by the same command\n"
    with pytest.raises(UserError, match=rf"^{out}: is there already, and another .*replace it with --overwrite$"):
        upscale(source, out, models[1], *more)
    with pytest.raises(UserError, match="replace it with --overwrite"):
        upscale(source, out, models[0], *more, "--bits", "8")
    assert contents(tmp_path) == first
    upscale(source, out, models[1], *more, "--overwrite")
    second = contents(tmp_path)
    assert second.keys() == first.keys()
    assert second != first
    upscale(source, out, models[1], *more)
    assert contents(tmp_path) == second


def test_a_source_that_changed_makes_another_job(tmp_path: Path, source: Path, models: tuple[str, str]) -> None:
    out = tmp_path / "out.mp4"
    upscale(source, out, models[0])
    later = out.stat().st_mtime + 9
    os.utime(source, (later, later))
    with pytest.raises(UserError, match="is there already"):
        upscale(source, out, models[0])
    os.utime(source, (1e9, 1e9))
    upscale(source, out, models[0])
    write_coded(source, moving_frames(4, 24, 32))
    os.utime(source, (1e9, 1e9))  # another size alone tells it
    with pytest.raises(UserError, match="is there already"):
        upscale(source, out, models[0])


@pytest.mark.parametrize("name", ["out.mp4", "out.mp4.compare.mp4", "out.mp4.compare.png"])
@pytest.mark.parametrize("more", [[], ["--compare"]])
def test_a_file_that_is_no_result_is_left_alone(
    tmp_path: Path, source: Path, models: tuple[str, str], name: str, more: list[str]
) -> None:
    (tmp_path / name).write_text("mine")
    before = contents(tmp_path)
    with pytest.raises(UserError, match=rf"{name}: is there already"):
        upscale(source, tmp_path / "out.mp4", models[0], *more)
    assert contents(tmp_path) == before


def test_no_comparison_is_left_beside_a_result_that_it_does_not_show(
    tmp_path: Path, source: Path, models: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.mp4"
    upscale(source, out, models[0], "--compare")
    assert contents(tmp_path).keys() == {"in.mp4", "out.mp4", "out.mp4.compare.mp4", "out.mp4.compare.png"}
    capsys.readouterr()
    upscale(source, out, models[0])  # of the same result: it stays
    assert "is done already" in capsys.readouterr().out
    assert (tmp_path / "out.mp4.compare.png").exists()
    with pytest.raises(UserError, match="is there already"):
        upscale(source, out, models[1])
    upscale(source, out, models[1], "--overwrite")
    assert contents(tmp_path).keys() == {"in.mp4", "out.mp4"}
    # A comparison that is wanted and missing is made, and its own result again with it.
    result = out.read_bytes()
    upscale(source, out, models[1], "--compare")
    assert contents(tmp_path).keys() == {"in.mp4", "out.mp4", "out.mp4.compare.mp4", "out.mp4.compare.png"}
    assert out.read_bytes() == result
    # Killed after the comparison and before the result, the same command goes on.
    out.unlink()
    upscale(source, out, models[1], "--compare")
    assert out.read_bytes() == result


def test_pictures_that_an_older_version_wrote_are_not_replaced_unasked(
    tmp_path: Path, source: Path, models: tuple[str, str]
) -> None:
    out = tmp_path / "out"
    run(source, out, Settings(codec="png"))  # without a mark
    before = contents(tmp_path)
    with pytest.raises(UserError, match="is there already"):
        upscale(source, out, models[0], "--codec", "png")
    assert contents(tmp_path) == before
    (out / "letter.txt").write_text("dear")
    with pytest.raises(UserError, match="the folder is not empty"):
        upscale(source, out, models[0], "--codec", "png", "--overwrite")


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_mark_holds_no_name_and_a_copy_elsewhere_gets_the_same(
    tmp_path: Path, source: Path, models: tuple[str, str], suffix: str
) -> None:
    (tmp_path / "private").mkdir()
    elsewhere = Path(shutil.copy(source, tmp_path / "private" / "else.mp4"))
    upscale(source, tmp_path / f"a{suffix}", models[0])
    upscale(elsewhere, tmp_path / f"b{suffix}", models[0])
    found = (tmp_path / f"a{suffix}").read_bytes()
    assert found == (tmp_path / f"b{suffix}").read_bytes()
    assert b"private" not in found


@needs_ffmpeg
@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.mkv"])
def test_ffmpeg_reads_a_marked_file_as_if_it_were_not(tmp_path: Path, name: str) -> None:
    source = write_coded(tmp_path / "in.mp4", moving_frames(5, 64, 96))
    plain, marked = tmp_path / name, tmp_path / f"marked-{name}"
    run(source, plain)
    shutil.copy(plain, marked)
    mark.append(str(marked), mark.mark("0" * 64, 9, Settings()))
    outputs = []
    for path in (plain, marked):
        command = ["ffmpeg", "-v", "warning", "-i", str(path), "-map", "0", "-f", "framemd5", "-"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stderr == ""
        outputs.append(done.stdout)
    assert outputs[0] == outputs[1]
    assert outputs[0].count("\n0,") == 5
    with av.open(str(marked)) as container:
        assert len(list(container.decode(video=0))) == 5


def test_marks_of_whatever_is_at_the_end_of_a_file(tmp_path: Path) -> None:
    marks = {mark.mark(model, size, Settings(crf=crf)) for model in ("0", "1") for size in (1, 2) for crf in (9, 10)}
    assert len(marks) == 8
    assert mark.mark("0", 1, Settings()) == mark.mark("0", 1, Settings(crf=16, preset="medium", threads=3, memory=9))
    for number, data in enumerate([b"", b"x", bytes(48), np.random.default_rng(0).bytes(99), marks.pop()[:40]]):
        path = tmp_path / f"{number}.mp4"
        path.write_bytes(data)
        assert mark.read(str(path)) is None
    assert mark.read(str(tmp_path / "nowhere.mp4")) is None


def test_a_remote_result_is_known_too(tmp_path: Path, bucket: Path) -> None:
    source = write_coded(tmp_path / "in.mp4", moving_frames(2, 24, 32))
    marked, settings = mark.mark("0" * 64, 1, Settings()), Settings()
    run(source, Path(tmp_path / "out.mp4"))
    shutil.copy(tmp_path / "out.mp4", bucket / "out.mp4")
    with pytest.raises(UserError, match="mock://out.mp4: is there already"):
        is_done("mock://out.mp4", marked, None, settings, overwrite=False)
    mark.append(str(bucket / "out.mp4"), marked)
    assert is_done("mock://out.mp4", marked, None, settings, overwrite=False)
    assert not is_done("mock://other.mp4", marked, None, settings, overwrite=False)


def test_a_name_that_leaves_no_room_for_a_comparisons_is_written(
    tmp_path: Path, source: Path, models: tuple[str, str]
) -> None:
    out = tmp_path / ("n" * 247 + ".mp4")
    upscale(source, out, models[0])
    assert out.stat().st_size > 0
