"""Wrong options are refused in one line, before anything is done."""

from pathlib import Path

import pytest

from mana_dist.errors import UserError
from mana_dist.upscale.__main__ import main
from tests.command_lines import bucket_options
from tests.conftest import RunHere
from tests.upscale.bucket.runs import run_command_line, write_film

LEAST = ["--source", "a", "--out", "b", "--model", "m"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "b", "--model", "m"], "--source"),
        (["--source", "a", "--model", "m"], "--out"),
        (["--source", "", "--out", "b", "--model", "m"], "--source: a source is empty"),
        ([*LEAST, "--codec", "vp9"], "vp9"),
        ([*LEAST, "--codec", "ffv1", "--crf", "3"], "--crf 3: ffv1 is lossless"),
        ([*LEAST, "--crf", "52"], "--crf must be from 0"),
        ([*LEAST, "--memory", "much"], "'much' is neither a number of MiB nor auto nor none"),
        ([*LEAST, "--threads", "2"], "--threads: on a cluster --cpus-per-worker sets it"),
        ([*LEAST, "--memory", "0"], "--memory"),
        ([*LEAST, "--segment", "3"], "--segment"),
        ([*LEAST, "--workers", "0"], "--workers must be at least 1"),
        ([*LEAST, "--codec", "png", "--suffix", ".mp4"], "--suffix: --codec png writes folders"),
        ([*LEAST, "--worker", "2"], "--worker"),
        (["a.mp4", *LEAST], "a.mp4: give SRC and DST, or --source and --out, not both"),
        (["a.mp4", "b.mp4", "--model", "m", "--workers", "2"], "--workers goes with --source and --out"),
    ],
)
def test_wrong_options_say_which(arguments: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        main(arguments)


def test_suffixes_fit_the_codec() -> None:
    suffixes = {
        codec: bucket_options([*LEAST, "--codec", codec]).suffix for codec in ("h264", "hevc", "av1", "ffv1", "png")
    }
    assert suffixes == {"h264": ".mp4", "hevc": ".mp4", "av1": ".mp4", "ffv1": ".mkv", "png": ""}
    assert bucket_options([*LEAST, "--suffix", ".mkv"]).suffix == ".mkv"


def test_memory_is_a_figure_unless_another_is_given() -> None:
    memory = {text: bucket_options([*LEAST, "--memory", text]).settings.memory for text in ("auto", "none", "7")}
    assert memory == {"auto": 4096, "none": None, "7": 7}


def test_mistakes_leave_with_one_line_and_nothing_made(tmp_path: Path, run_here: RunHere) -> None:
    film = write_film(tmp_path / "film.mp4", 12)
    (tmp_path / "file").touch()
    out = tmp_path / "out"
    cases: dict[tuple[str | Path, ...], str] = {
        ("--source", tmp_path / "gone.mp4", "--out", out, "--model", "m"): "gone.mp4: does not exist",
        ("--source", film, "--out", tmp_path / "file" / "below", "--model", "m"): "--out: cannot write to",
        ("--source", film, "--out", tmp_path, "--model", "m"): f"--out: {tmp_path} holds the source",
    }
    for arguments, message in cases.items():
        result = run_here(main, *arguments)
        assert (result.returncode, result.stderr.count("\n")) == (2, 1), result.stderr
        assert result.stderr.startswith("error: ")
        assert message in result.stderr
    result = run_command_line(*next(iter(cases)))  # the same in a process of its own
    assert (result.returncode, result.stderr.count("\n"), result.stderr[:7]) == (2, 1, "error: "), result.stderr
    assert not out.exists()


def test_the_container_must_take_the_codec(tmp_path: Path) -> None:
    film = write_film(tmp_path / "film.mp4", 12)
    arguments = ["--source", str(film), "--out", str(tmp_path / "out"), "--model", "m"]
    with pytest.raises(UserError, match=r"ffv1 goes into \.mkv"):
        main([*arguments, "--codec", "ffv1", "--suffix", ".mp4"])
    with pytest.raises(UserError, match="m"):
        main(arguments)  # there is no such model: seen before Ray starts
