"""A file that is opened as a video opens no other."""

from collections.abc import Callable
from pathlib import Path

import av
import pytest

from mana_dist.errors import UserError
from mana_dist.upscale.source_video import survey
from mana_dist.video.header_info import probe_header
from mana_dist.video.reading import read_frames
from mana_dist.video.strict import numbered_frames
from tests.video.videos import noise_frames, write_video

HLS = "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nsecret.ts\n#EXT-X-ENDLIST\n"
SDP = "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n"
LISTS = {
    "concat.mp4": "ffconcat version 1.0\nfile secret.ts\n",
    "hls.m3u8": HLS,
    "hls.mp4": HLS,
    "far.m3u8": HLS.replace("secret.ts", "http://127.0.0.1:9/secret.ts"),
    "session.mp4": SDP,
}
READERS: list[Callable[[str], object]] = [
    lambda uri: next(read_frames(uri)),
    lambda uri: next(numbered_frames(uri)),
    lambda uri: probe_header(uri, None),
    survey,
]


def place(folder: Path, name: str) -> str:
    """A file that names another, the other beside it."""
    write_video(folder / "clear.mp4", noise_frames(9))
    with av.open(str(folder / "clear.mp4")) as source, av.open(str(folder / "secret.ts"), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    (folder / name).write_text(LISTS[name])
    return str(folder / name)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("name", LISTS)
def test_lists_of_other_files_are_refused(tmp_path: Path, name: str, reader: Callable[[str], object]) -> None:
    uri = place(tmp_path, name)
    with pytest.raises(UserError) as raised:
        reader(uri)
    reason = "a list of other files, which are not opened; name the videos themselves"
    assert str(raised.value) == f"{uri}: not a video that can be read ({reason})"


def test_the_lists_work_where_other_files_may_be_opened(tmp_path: Path) -> None:
    """Without the refusal FFmpeg does read the other file."""
    for name in ("concat.mp4", "hls.m3u8"):
        with open(place(tmp_path, name), "rb") as file, av.open(file) as container:
            assert sum(1 for packet in container.demux(video=0) if packet.size) == 9
