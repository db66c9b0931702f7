"""Killed, cut short, out of room: nothing half done under the final name, and the same command goes on."""

import contextlib
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from mana_dist import storage
from mana_dist.config import Config
from mana_dist.errors import UserError
from mana_dist.model import Mana, ModelConfig
from mana_dist.model.precision import Processor
from mana_dist.registry import model_folder
from mana_dist.upscale import upscale_segments as segments_module
from mana_dist.upscale import work_folder
from mana_dist.upscale.__main__ import main
from mana_dist.upscale.config import Settings
from mana_dist.upscale.join import join
from mana_dist.upscale.source_video import segments_of, survey
from mana_dist.upscale.upscale_segments import upscale_segments
from mana_dist.video.frame_stream import open_frames
from mana_dist.video.strict import survey as damage_of
from tests.upscale.runs import CONSTANT, LONG, SAME, read, run, synthesise
from tests.video.videos import moving_frames, write_coded
from tests.web_server import web_server

CONFIG = Config(model=ModelConfig(channels=8, encoder_blocks=1, decoder_blocks=1, frames=5, window=3, memory_slots=4))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(0)
    folder = str(tmp_path_factory.mktemp("model"))
    model_folder.save(folder, Mana(CONFIG.model).state_dict(), CONFIG)
    return folder


@pytest.fixture(autouse=True)
def _threads_as_before() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def options(source: Path, destination: Path, model: str) -> list[str]:
    return [
        str(source),
        str(destination),
        "--model",
        model,
        "--device",
        "cpu",
        "--threads",
        "1",
        "--segment",
        "8",
        "--preset",
        "ultrafast",
    ]


KILLED_AFTER_TWO = """
import os, signal, sys
from mana_dist.upscale import segment_record as record
from mana_dist.upscale.__main__ import main
write, written = record.write, []
def write_and_die(*arguments):
    write(*arguments)
    written.append(None)
    if len(written) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
record.write = write_and_die
main(sys.argv[1:])
"""


def test_killed_and_started_again_it_goes_on_and_ends_with_the_same_bytes(
    tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    source = synthesise(tmp_path / "a.mp4", LONG, keyframes=8)
    main(options(source, tmp_path / "whole.mp4", model))
    result = tmp_path / "b.mp4"
    folder = Path(work_folder.work_folder(str(result)))
    command = [sys.executable, "-c", KILLED_AFTER_TWO, *options(source, result, model)]
    killed = subprocess.run(command, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not result.exists()
    finished = {path.name: path.stat().st_mtime_ns for path in folder.glob("segment-*.json")}
    assert len(finished) == 2
    capsys.readouterr()
    main(options(source, result, model))
    assert f"going on: {len(finished)} of 6 segments were finished before" in capsys.readouterr().out
    assert result.read_bytes() == (tmp_path / "whole.mp4").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4", "b.mp4", "whole.mp4"]


STOPPED = """
import os, sys
from mana_dist.errors import run_command
from mana_dist.upscale import run_upscale as run
from mana_dist.upscale import segment_record as record
from mana_dist.upscale.__main__ import main
write, written, number = record.write, [], int(sys.argv.pop(1))
def write_and_stop(*arguments):
    write(*arguments)
    written.append(None)
    if len(written) == 2:
        os.kill(os.getpid(), number)
def join_and_stop(*arguments, **options):
    os.kill(os.getpid(), number)
if sys.argv.pop(1) == "joining":
    run.join = join_and_stop
else:
    record.write = write_and_stop
run_command(main)
"""


@pytest.mark.parametrize(
    ("number", "code", "word"), [(signal.SIGTERM, 143, "terminated"), (signal.SIGINT, 130, "interrupted")]
)
@pytest.mark.parametrize(
    ("stage", "place"),
    [
        ("working", r"at frame \d+ of about 47"),
        ("joining", "after the last of 47 frames, while they were joined"),
    ],
)
def test_a_signal_says_where_it_stopped_and_that_the_same_command_goes_on(
    tmp_path: Path, model: str, number: int, code: int, word: str, stage: str, place: str
) -> None:
    source, result = synthesise(tmp_path / "a.mp4", LONG, keyframes=8), tmp_path / "b.mp4"
    command = [sys.executable, "-c", STOPPED, str(int(number)), stage, *options(source, result, model)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == code, ended.stderr
    *_, stopped, last = ended.stderr.splitlines()  # after lines of progress
    stays = f"what is done stays in {tmp_path / '.b.mp4.partial'}, and the same command goes on from there"
    assert re.fullmatch(f"stopped {place}; {re.escape(stays)}", stopped)
    assert last == word
    assert sorted(path.name for path in tmp_path.iterdir()) == [".b.mp4.partial", "a.mp4"]
    main(options(source, result, model))
    assert len(read(result).frames) == len(LONG)


def test_files_of_segments_are_asked_for_once_and_a_bad_one_is_not_finished_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On an object store each look at a file is a request; a cluster takes whatever has a record for finished."""
    source, folder = synthesise(tmp_path / "a.mp4", LONG, keyframes=8), tmp_path / "work"
    settings, found = Settings(codec="ffv1", segment=8), survey(str(source))
    segments = segments_of(found, SAME.frames, 8)
    upscale_segments(found, segments, SAME, settings, str(folder))
    asked: list[str] = []
    real = storage.stat

    def stat(uri: str) -> storage.FileStat:
        asked.append(uri)
        return real(uri)

    with monkeypatch.context() as patch:
        patch.setattr(storage, "stat", stat)
        join(found, segments, str(folder), str(tmp_path / "b.mkv"), settings)
    assert [uri for uri in asked if "segment-" in uri] == []
    (folder / "segment-000003.mkv").write_bytes(b"")
    with pytest.raises(UserError, match=r"segment-000003 is missing; run the same command again"):
        join(found, segments, str(folder), str(tmp_path / "b.mkv"), settings)
    records = sorted(path.name for path in folder.glob("*.json"))
    assert records == [f"segment-{number:06}.json" for number in (0, 1, 2, 4, 5)]


def test_passwords_of_urls_are_neither_kept_nor_told(
    tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    content = synthesise(tmp_path / "a.mp4", LONG[:20], keyframes=8).read_bytes()

    def no_join(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with web_server() as server:
        server.files = {"/a.mp4": content, "/text.mp4": b"no video"}
        link = server.url.replace("://", "://me:hunter2@")
        arguments = options(tmp_path, tmp_path / "b.mp4", model)[1:]
        with monkeypatch.context() as patch:
            patch.setattr("mana_dist.upscale.run_upscale.join", no_join)
            with pytest.raises(UserError, match="No space left") as full:
                main([f"{link}/a.mp4?token=hunter2", *arguments])
        with pytest.raises(UserError, match=r"text\.mp4\?token=\*\*\*: not a video") as wrong:
            main([f"{link}/text.mp4?token=hunter2", *arguments])
        stored = {path.name: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        main([f"{link}/a.mp4?token=hunter2", *arguments])
    assert {"job.json", "segment-000000.json"} <= stored.keys()
    stored |= {path.name: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert [name for name, data in stored.items() if b"hunter2" in data] == []
    assert "hunter2" not in f"{full.value} {wrong.value} {capfd.readouterr()}"


def test_finished_segments_are_not_made_again_unless_something_else_is_wanted(
    tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, result = synthesise(tmp_path / "a.mp4", LONG, keyframes=8), tmp_path / "b.mp4"
    made: list[int] = []
    real = segments_module.upscale_segments

    def counted(surveyed, segments, *rest):  # type: ignore[no-untyped-def]
        made.extend(segment.number for segment in segments)
        real(surveyed, segments, *rest)

    def no_join(*_: object, **__: object) -> None:
        raise OSError(28, f"{result}: cannot be written (No space left on device)")

    monkeypatch.setattr("mana_dist.upscale.run_upscale.upscale_segments", counted)
    with monkeypatch.context() as patch:
        patch.setattr("mana_dist.upscale.run_upscale.join", no_join)
        with pytest.raises(UserError, match="No space left on device"):
            main(options(source, result, model))
    assert made == [0, 1, 2, 3, 4, 5]
    made.clear()
    for name in ("segment-000001.json", "segment-000003.json"):
        (tmp_path / ".b.mp4.partial" / name).unlink()
    with monkeypatch.context() as patch:
        patch.setattr("mana_dist.upscale.run_upscale.join", no_join)
        with pytest.raises(UserError, match="No space left on device"):
            main(options(source, result, model))
    assert made == [1, 3]
    made.clear()
    for name, share in (("segment-000002.mkv", 0.5), ("segment-000004.mkv", 0)):  # the machine lost power
        path = tmp_path / ".b.mp4.partial" / name
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with monkeypatch.context() as patch:
        patch.setattr("mana_dist.upscale.run_upscale.join", no_join)
        with pytest.raises(UserError, match="No space left on device"):
            main(options(source, result, model))
    assert made == [2, 4]
    made.clear()
    main([*options(source, result, model), "--crf", "30"])
    assert made == [0, 1, 2, 3, 4, 5]


def test_memory_once_chosen_is_kept_however_much_is_free_later(
    tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source, result = synthesise(tmp_path / "a.mp4", LONG[:20], keyframes=8), tmp_path / "b.mp4"
    chosen: list[int | None] = []
    real = segments_module.upscale_segments

    def broken_off(surveyed, segments, network, *rest):  # type: ignore[no-untyped-def]
        chosen.append(network.memory)
        real(surveyed, segments[:1] if len(chosen) == 1 else segments, network, *rest)
        if len(chosen) == 1:
            raise OSError("the storage is away")

    monkeypatch.setattr("mana_dist.upscale.run_upscale.upscale_segments", broken_off)
    monkeypatch.setattr("mana_dist.upscale.frame_memory.free_bytes", lambda _: 2**31)
    with pytest.raises(UserError, match=r"the storage is away.*; what is done stays in"):
        main(options(source, result, model))
    monkeypatch.setattr("mana_dist.upscale.frame_memory.free_bytes", lambda _: 2**33)
    main(options(source, result, model))
    assert chosen == [512, 512]
    printed = capsys.readouterr().out
    assert "going on: 1 of 3 segments" in printed
    assert "beginning anew" not in printed
    assert result.exists()


def test_precision_once_chosen_is_kept_on_whatever_processor(
    tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source, result = synthesise(tmp_path / "a.mp4", LONG[:20], keyframes=8), tmp_path / "b.mp4"
    chosen: list[str] = []
    real = segments_module.upscale_segments

    def broken_off(surveyed, segments, network, *rest):  # type: ignore[no-untyped-def]
        chosen.append(network.precision.precision)
        real(surveyed, segments[:1] if len(chosen) == 1 else segments, network, *rest)
        if len(chosen) == 1:
            raise OSError("the storage is away")

    monkeypatch.setattr("mana_dist.upscale.run_upscale.upscale_segments", broken_off)
    for unit in ("AMX", ""):
        monkeypatch.setattr("mana_dist.model.precision.processor_here", lambda _, unit=unit: Processor("it", unit))
        if unit:
            with pytest.raises(UserError, match="the storage is away"):
                main(options(source, result, model))
            job = json.loads((tmp_path / ".b.mp4.partial" / "job.json").read_text())
            assert job["settings"]["precision"] == "bf16"
        else:
            main(options(source, result, model))
    assert chosen == ["bf16", "bf16"]
    printed = capsys.readouterr().out
    assert "precision: bf16 (it: AMX)" in printed
    assert "precision: bf16 (as the unfinished run)" in printed
    assert "going on: 1 of 3 segments" in printed
    main([*options(source, tmp_path / "c.mp4", model)])
    assert chosen[-1] == "fp32"


def test_what_is_thrown_away_is_told_with_the_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = synthesise(tmp_path / "a.mp4", CONSTANT[:2])
    folder = tmp_path / "work"
    first = work_folder.identity(survey(str(source)), "0" * 64, Settings(), SAME)
    with work_folder.opened(str(folder), first):
        (folder / "segment-000000.json").write_text("{}")
    with work_folder.opened(str(folder), work_folder.identity(survey(str(source)), "1" * 64, Settings(crf=9), SAME)):
        pass
    printed = f"beginning anew: the 1 segments in {folder} are of another job; differs: model, settings.crf\n"
    assert capsys.readouterr().out == printed


def test_a_source_changed_in_between_is_begun_anew(tmp_path: Path, model: str) -> None:
    source, result = synthesise(tmp_path / "a.mp4", LONG, keyframes=8), tmp_path / "b.mp4"
    folder = tmp_path / ".b.mp4.partial"
    before = work_folder.identity(survey(str(source)), "0" * 64, Settings(), SAME)
    os.utime(source, (1, 1))
    after = work_folder.identity(survey(str(source)), "0" * 64, Settings(), SAME)
    assert before != after
    with work_folder.opened(str(folder), before):
        (folder / "segment-000000.json").write_text("{}")
        (folder / ".half").write_text("")
    with work_folder.opened(str(folder), before):
        assert sorted(path.name for path in folder.iterdir()) == ["job.json", "lock", "segment-000000.json"]
        with pytest.raises(UserError, match="another run is at work"), work_folder.opened(str(folder), before):
            pass
    with work_folder.opened(str(folder), after):
        assert sorted(path.name for path in folder.iterdir()) == ["job.json", "lock"]
    assert json.loads((folder / "job.json").read_text()) == after
    assert not result.exists()


@pytest.mark.parametrize("stage", ["segment", "result"])
def test_a_full_disk_leaves_no_half_file_and_the_same_command_goes_on(tmp_path: Path, model: str, stage: str) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (24, 16, 16, 3), dtype=np.uint8)
    source, result = write_coded(tmp_path / "a.mp4", frames, options={"g": "8"}), tmp_path / "b.mp4"
    main(options(source, result, model))
    whole = result.read_bytes()
    result.unlink()
    room = 3000 if stage == "segment" else len(whole) - 500
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    # No file may grow beyond it, as on a disk that is full.
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        with pytest.raises(UserError, match=r"cannot be written \(File too large\)"):
            main(options(source, result, model))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    left = [path.name for path in tmp_path.iterdir()]
    assert sorted(left) == [".b.mp4.partial", "a.mp4"]
    finished = list((tmp_path / ".b.mp4.partial").glob("segment-*.json"))
    assert len(finished) == (0 if stage == "segment" else 2)
    main(options(source, result, model))
    assert result.read_bytes() == whole
    assert len(read(result).frames) == 24
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4", "b.mp4"]


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
@pytest.mark.parametrize("share", [0.5, 0.7])
def test_a_truncated_source_gives_what_can_be_decoded_and_says_where_it_stopped(
    tmp_path: Path, name: str, share: float
) -> None:
    whole = write_coded(tmp_path / f"whole-{name}", moving_frames(60, 64, 96), options={"g": "8"})
    if name == "a.mp4":
        whole = faststart(whole)
    source = tmp_path / name
    source.write_bytes(whole.read_bytes()[: int(len(whole.read_bytes()) * share)])
    expected = decodable(source)
    assert 5 < len(expected) < 60
    summary = run(source, tmp_path / "b.mkv", Settings(codec="ffv1", segment=8))
    result = read(tmp_path / "b.mkv")
    assert len(result.frames) >= len(expected)
    assert summary.frames == len(result.frames)
    # It tells nowhere how long it is; cut between two frames it may lack one that is shown before the last.
    if name == "a.ts" and summary.stopped in ("", "the source is damaged: 1 frame missing"):
        return
    seconds = float(result.times[-1] - result.times[0]) + 1 / 25
    about = re.match(rf"stopped at frame {len(result.frames)} \({seconds:.2f} s\)( of about (\d+))?: ", summary.stopped)
    assert about, summary.stopped
    assert about[2] is None or int(about[2]) > len(result.frames)
    assert "the source cannot be decoded beyond; the result holds what could be" in summary.stopped


def test_a_capture_that_ends_within_a_frame_says_where(tmp_path: Path) -> None:
    whole = write_coded(tmp_path / "whole.ts", moving_frames(60, 64, 96), options={"g": "8"}).read_bytes()
    (tmp_path / "a.ts").write_bytes(whole[: int(len(whole) * 0.7)])
    with av.open(str(tmp_path / "a.ts")) as container:
        assert list(container.decode(video=0))[-1].is_corrupt
    summary = run(tmp_path / "a.ts", tmp_path / "b.mp4", Settings(segment=8))
    assert summary.stopped.startswith(f"stopped at frame {summary.frames} (")


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")
def test_packets_that_give_no_frame_and_no_error_are_said(tmp_path: Path) -> None:
    """A header that was edited afterwards: FFmpeg waits for a picture that never comes."""
    source = ["-f", "lavfi", "-i", "testsrc2=s=64x48:r=24:d=0.25", "-pix_fmt", "yuv444p", "-c:v", "libx264"]
    subprocess.run(["ffmpeg", "-v", "error", *source, str(tmp_path / "a.mp4")], check=True)
    edited = ["-c", "copy", "-bsf:v", "h264_metadata=sample_aspect_ratio=1000/1", str(tmp_path / "b.mp4")]
    subprocess.run(["ffmpeg", "-v", "error", "-i", str(tmp_path / "a.mp4"), *edited], check=True)
    summary = run(tmp_path / "b.mp4", tmp_path / "c.mp4", Settings())
    frames = len(decodable(tmp_path / "b.mp4"))
    assert frames == summary.frames < 6
    assert summary.stopped.startswith(f"stopped at frame {frames} (")
    assert "of about 6" in summary.stopped


def test_damage_in_the_middle_is_passed_over_and_told(tmp_path: Path) -> None:
    source = write_coded(tmp_path / "a.mp4", moving_frames(60, 64, 96), options={"g": "8"})
    data = bytearray(source.read_bytes())
    middle = len(data) // 3
    data[middle : middle + 600] = bytes(value ^ 0x5A for value in data[middle : middle + 600])
    source.write_bytes(data)
    summary = run(source, tmp_path / "b.mp4", Settings(segment=8))
    assert summary.frames >= 50
    damage = damage_of(str(source))
    with open_frames(str(source)) as video:
        marked = [frame.number for frame in video.frames() if frame.damaged]
    assert all(damage.spoils(number) for number in marked)
    found = re.match(r"the source is damaged: (\d+) frames from frame (\d+) \(([\d.]+) s\) on cannot", summary.stopped)
    assert found is not None
    assert int(found[1]) == len(marked)
    assert float(found[3]) == pytest.approx(marked[0] / 25, abs=0.005)


@pytest.mark.parametrize("audio", ["aac", None])
def test_timestamps_that_go_back_lose_no_frame_and_no_sound(tmp_path: Path, audio: str | None) -> None:
    part = synthesise(tmp_path / "part.ts", LONG, audio, keyframes=8)
    once = read(part)
    (tmp_path / "a.ts").write_bytes(3 * part.read_bytes())  # a capture that was begun anew twice
    expected = decodable(tmp_path / "a.ts")
    summary = run(tmp_path / "a.ts", tmp_path / "b.mkv", Settings(segment=8))
    assert summary.frames == len(expected) == 3 * len(LONG)
    assert summary.left_out == ()
    result = read(tmp_path / "b.mkv")
    assert len(result.audio) == 3 * len(once.audio)
    count = len(LONG)
    for number in range(3):
        # Each part is shown as it was, its sound with its pictures, and soon after the part before.
        times, heard = (of[number * len(of) // 3 :][: len(of) // 3] for of in (result.times, result.audio_times))
        for found, original in ((times, once.times), (heard, once.audio_times)):
            moved = [one - other - times[0] + once.times[0] for one, other in zip(found, original, strict=True)]
            assert all(abs(each) <= 0.002 for each in moved)
        if number:
            assert 0 < times[0] - result.times[number * count - 1] < 0.5


def test_the_command_ends_well_with_a_truncated_source(
    tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = faststart(synthesise(tmp_path / "w.mp4", LONG, keyframes=8))
    source = tmp_path / "a.mp4"
    source.write_bytes(whole.read_bytes()[: len(whole.read_bytes()) * 2 // 3])
    main(options(source, tmp_path / "b.mp4", model))
    assert capsys.readouterr().out.splitlines()[-1].startswith("stopped at frame ")


def faststart(path: Path) -> Path:
    copy = path.with_name(f"fast-{path.name}")
    with av.open(str(path)) as source, av.open(str(copy), "w", options={"movflags": "faststart"}) as target:
        streams = {stream.index: target.add_stream_from_template(stream, opaque=True) for stream in source.streams}
        for packet in source.demux():
            if packet.size:
                packet.stream = streams[packet.stream_index]
                target.mux(packet)
    return copy


def decodable(path: Path) -> list[int]:
    """Timestamps of all frames that a plain PyAV loop gives before its first error."""
    found: list[int] = []
    with av.open(str(path)) as container, contextlib.suppress(av.FFmpegError):
        found.extend(frame.pts for frame in container.decode(video=0))
    return found
