"""The dry run: counts as the ingest would make them, from headers alone; many clips judged by some of them."""

import os
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mana_dist.data.config import SampleSettings
from mana_dist.data.degradation import BD
from mana_dist.data.manifest import Rejected
from mana_dist.errors import UserError
from mana_dist.footage.expand import Clip, expand
from mana_dist.ingest import dry_run
from mana_dist.video.header_info import HeaderInfo
from tests.video.videos import noise_frames, write_pictures, write_video

SETTINGS = SampleSettings()


def clips_of(*paths: Path, start: int = 0, stop: int | None = None, downscale: int = 1) -> list[Clip]:
    clips, rejected, *_ = expand([str(path) for path in paths], start=start, stop=stop, downscale=downscale)
    assert not rejected
    return clips


def header(width: int = 1280, height: int = 720, frames: int | None = 300) -> HeaderInfo:
    return HeaderInfo(width=width, height=height, frames=frames, rate=Fraction(25), codec="h264")


def clips_with(
    monkeypatch: pytest.MonkeyPatch, headers: list[HeaderInfo], bytes_: int = 1_000_000, **options: Any
) -> list[Clip]:
    """Clips whose headers are these, without any files."""
    by_uri = {f"s3://bucket/{number:06}.mp4": info for number, info in enumerate(headers)}
    monkeypatch.setattr(dry_run, "probe_header", lambda uri, _: by_uri[uri])
    return [Clip(uri=uri, files=None, bytes=bytes_, modified=None, name="clip", **options) for uri in by_uri]


# Counts


def test_counts_of_real_files_are_those_of_the_ingest(tmp_path: Path) -> None:
    clips = clips_of(
        write_video(tmp_path / "a.mp4", noise_frames(20, 72, 96)),
        write_video(tmp_path / "b.mkv", noise_frames(9, 72, 96)),
        write_pictures(tmp_path / "frames", noise_frames(12, 64, 64)),
    )
    told = dry_run.estimate(clips, SETTINGS, cores=2)
    work = dict(told.sizes)
    assert set(work) == {(96, 72), (64, 64)}
    assert (work[96, 72].clips, work[96, 72].frames, work[96, 72].samples) == (2, 29, 14 + 3)
    assert (work[64, 64].clips, work[64, 64].frames, work[64, 64].samples) == (1, 12, 6)
    assert (told.clips, told.looked_at, told.guessed, told.rejected) == (3, 3, 0, ())
    assert told.total.samples == 23


def test_a_folder_of_large_pictures(tmp_path: Path) -> None:
    """As --codec png writes them: larger than the beginning of a file that was once looked at."""
    folder = write_pictures(tmp_path / "frames", noise_frames(7, 320, 400))
    assert min(path.stat().st_size for path in folder.iterdir()) > 300_000
    told = dry_run.estimate(clips_of(folder), SETTINGS, cores=1)
    assert (told.rejected, told.total.samples, [size for size, _ in told.sizes]) == ((), 1, [(400, 320)])


def test_nothing_but_headers_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a video whose pixels are gone the header tells the same."""
    video = write_video(tmp_path / "a.mp4", noise_frames(20), faststart=True)
    before = dry_run.estimate(clips_of(video), SETTINGS, cores=1)
    data = bytearray(video.read_bytes())
    start = data.index(b"mdat") + 4
    data[start:] = bytes(len(data) - start)
    video.write_bytes(data)
    assert dry_run.estimate(clips_of(video), SETTINGS, cores=1) == before


@pytest.mark.parametrize(
    ("frames", "stride", "start", "stop"),
    [(20, 1, 0, None), (20, 3, 0, None), (300, 7, 10, 200), (7, 1, 0, None), (50, 4, 20, 1000), (23, 5, 2, 22)],
)
def test_samples_by_stride_and_range(
    monkeypatch: pytest.MonkeyPatch, frames: int, stride: int, start: int, stop: int | None
) -> None:
    used = range(frames)[start:stop]
    centres = [used[index] for index in range(3, len(used) - 3)]
    slots = {(centre - start - 3) // stride for centre in centres}  # at most one sample in each
    options = {"start": start} if stop is None else {"start": start, "stop": stop}
    clips = clips_with(monkeypatch, [header(frames=frames)], **options)
    total = dry_run.estimate(clips, SampleSettings(stride=stride), cores=1).total
    assert (total.frames, total.samples) == (len(used), len(slots))


def test_patches_cover_the_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    clips = clips_with(monkeypatch, [header(1290, 726, frames=10)])  # LR 322x181: 6 x 3 patches of 64
    whole, cut = (dry_run.estimate(clips, SampleSettings(patch=patch), cores=1).total for patch in (0, 64))
    assert whole.samples == 4
    assert cut.samples == 4 * 6 * 3
    assert cut.bytes / whole.bytes == pytest.approx(18 * 64 * 64 / (322 * 181))


def test_bytes_and_time_follow_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    clips = clips_with(monkeypatch, [header(1280, 720, frames=106)])
    total = dry_run.estimate(clips, SETTINGS, cores=1).total
    raw = 100 * (7 * 320 * 180 * 3 + 1280 * 720 * 3)
    assert total.bytes == pytest.approx(raw * dry_run.COMPRESSED)
    seconds = 106 * 0.9216 / dry_run.MEGAPIXELS_PER_SECOND + raw / 1e6 / dry_run.RAW_MEGABYTES_PER_SECOND
    assert total.seconds == pytest.approx(seconds)
    small = dry_run.estimate(clips_with(monkeypatch, [header(frames=106)], downscale=2), SETTINGS, cores=1).total
    assert small.samples == total.samples
    assert small.bytes == pytest.approx(total.bytes / 4)


def test_cores_share_clips_and_segments_but_not_one_short_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    def seconds(frames: int, count: int, cores: int) -> float:
        clips = clips_with(monkeypatch, [header(frames=frames)] * count)
        return dry_run.estimate(clips, SETTINGS, cores=cores).seconds - dry_run.START_SECONDS

    assert seconds(300, 8, 8) == pytest.approx(seconds(300, 8, 1) / 8)
    assert seconds(300, 1, 8) == pytest.approx(seconds(300, 1, 1))
    assert seconds(100_000, 1, 8) == pytest.approx(seconds(100_000, 1, 1) / 8)


# What headers do not tell


def test_unusable_clips_are_told_with_the_reasons_of_the_ingest(tmp_path: Path) -> None:
    text = tmp_path / "notes.mp4"
    text.write_text("no video")
    clips = clips_of(
        text,
        write_video(tmp_path / "short.mp4", noise_frames(6)),
        write_video(tmp_path / "small.mp4", noise_frames(9, 32, 96)),
        write_video(tmp_path / "good.mp4", noise_frames(9)),
    )
    told = dry_run.estimate(clips, SETTINGS, cores=1)
    assert told.total.clips == 1
    reasons = {Path(item.source).name: item.reason for item in told.rejected}
    assert set(reasons) == {"notes.mp4", "short.mp4", "small.mp4"}
    assert "not a video" in reasons["notes.mp4"]
    assert reasons["short.mp4"] == "only 6 frames in the range asked for; a sample needs 7"
    assert reasons["small.mp4"] == "96x32 is too small; both sides must be at least 64"


def test_a_storage_that_fails_rejects_the_clip_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    clips = clips_with(monkeypatch, [header(), header()])

    def probe(uri: str, _: object) -> HeaderInfo:
        if uri == clips[0].uri:
            raise OSError("connection\nreset")
        raise UserError(f"{uri}: encrypted")

    monkeypatch.setattr(dry_run, "probe_header", probe)
    assert dry_run.estimate(clips, SETTINGS, cores=1).rejected == (
        Rejected(clips[0].uri, "cannot be read (connection reset)"),
        Rejected(clips[1].uri, "encrypted"),
    )


def test_length_of_raw_streams_is_guessed_from_their_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    size = round(100 * 1280 * 720 * dry_run.VIDEO_BYTES_PER_PIXEL)
    told = dry_run.estimate(clips_with(monkeypatch, [header(frames=None)], bytes_=size), SETTINGS, cores=1)
    assert (told.guessed, told.total.frames) == (1, 100)
    assert "the headers of 1 clip do not tell their length" in str(told)


# Many clips


def test_of_many_clips_a_random_thousand_stand_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    headers = [header(frames=int(frames)) for frames in rng.integers(20, 400, 12_000)]
    clips = clips_with(monkeypatch, headers)
    told = dry_run.estimate(clips, SETTINGS, cores=2)
    assert told == dry_run.estimate(clips, SETTINGS, cores=2)
    assert (told.clips, told.looked_at) == (12_000, 1000)
    assert told.total.clips == pytest.approx(12_000)
    assert told.total.frames == pytest.approx(sum(info.frames or 0 for info in headers), rel=0.05)
    assert told != dry_run.estimate(clips, SETTINGS, cores=2, seed=1)
    assert "from the headers of 1000 clips chosen at random, taken for all 12000" in str(told)


# What a person reads


def test_report(monkeypatch: pytest.MonkeyPatch) -> None:
    clips = clips_with(monkeypatch, [header(16 * width, 720, frames=106 + width) for width in range(40, 60)])
    lines = str(
        dry_run.estimate(clips, SETTINGS, rejected=[Rejected("/nowhere", "does not exist")], cores=4)
    ).splitlines()
    assert lines[1].split()[:4] == ["944x720", "1", "165", "159"]  # most work first
    assert lines[13].split()[:3] == ["8", "others", "8"]
    assert lines[14].split()[:4] == ["total", "20", str(sum(range(146, 166))), str(sum(range(140, 160)))]
    assert lines[15] == "would be rejected: /nowhere: does not exist"
    assert lines[16].startswith("at most 2990 samples, ")
    assert lines[16].endswith(" on 4 cores")
    assert max(map(len, lines)) < 140


def test_nothing_to_do() -> None:
    assert "at most 0 samples, 0 B" in str(dry_run.estimate([], SETTINGS, cores=2))


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (4.2e8, "420 MB"), (7.25e12, "7.2 TB"), (4e15, "4000 TB")],
)
def test_bytes_for_people(number: float, text: str) -> None:
    assert dry_run.bytes_text(number) == text


@pytest.mark.skipif("MANA_TEST_CLIPS" not in os.environ, reason="MANA_TEST_CLIPS names no folder of real clips")
def test_real_clips() -> None:
    """Sizes as shown and counts as decoded, measured with ffprobe's packets by others."""
    folder = Path(os.environ["MANA_TEST_CLIPS"])
    names = ["edgetam_01_dog.mp4", "mdn_flower.mp4", "gopro_karma.mp4", "androidx_portrait_4k60.mp4"]
    told = dry_run.estimate(clips_of(*(folder / name for name in names)), SampleSettings(degradation=BD))
    assert not told.rejected
    assert told.total.clips == 4
    assert told.total.frames == 289 + 150 + 362 + 18
    assert any(height > width for width, height in dict(told.sizes))  # the phone was held upright
