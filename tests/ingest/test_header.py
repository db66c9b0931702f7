"""The look before Ray starts: it must not refuse what could be used."""

from pathlib import Path

import av
import pytest

from mana_dist.data.config import SampleSettings
from mana_dist.ingest.header import reason_to_refuse
from tests.ingest.datasets import clip_at
from tests.video.videos import noise_frames, write_video


@pytest.fixture
def fragmented(tmp_path: Path) -> Path:
    """30 frames, of which the header tells of the first fragment alone."""
    path = tmp_path / "f.mp4"
    with av.open(str(path), "w", options={"movflags": "frag_keyframe"}) as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.gop_size, stream.pix_fmt = 96, 64, 5, "yuv420p"
        for frame in noise_frames(30, 64, 96):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    with av.open(str(path)) as container:
        assert container.streams.video[0].frames < 7
    return path


def test_a_header_that_tells_too_few_frames_is_not_believed(fragmented: Path) -> None:
    assert reason_to_refuse(clip_at(fragmented), SampleSettings()) == ""
    assert reason_to_refuse(clip_at(fragmented, start=23), SampleSettings()) == ""
    too_few = "only 6 frames in the range asked for; a sample needs 7"
    assert reason_to_refuse(clip_at(fragmented, start=24), SampleSettings()) == too_few
    assert reason_to_refuse(clip_at(fragmented, start=3, stop=9), SampleSettings()) == too_few


def test_short_and_small_clips_are_refused(tmp_path: Path) -> None:
    settings = SampleSettings()
    short = clip_at(write_video(tmp_path / "s.mp4", noise_frames(5)))
    assert reason_to_refuse(short, settings) == "only 5 frames in the range asked for; a sample needs 7"
    small = clip_at(write_video(tmp_path / "t.mp4", noise_frames(9, 64, 96)), downscale=2)
    assert reason_to_refuse(small, settings) == "96x64 is too small; both sides must be at least 128"
