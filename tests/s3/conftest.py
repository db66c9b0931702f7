"""The server, the clips in its bucket, and what undisturbed commands make of them."""

import io
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.s3.commands import Command
from tests.s3.seaweedfs import OWNER, SeaweedFS
from tests.video.videos import Frames, moving_frames, write_video

KEYS = (
    "takes/plain/a.mp4",
    "takes/two words/50% #1.mkv",
    "takes/ünï/日本 ☃.mp4",
    "takes/a%20b/c+d&e=f.mov",
    "takes/why;who'/what?.mp4",
)
"""Names that a URI must not trip over."""


@dataclass(frozen=True)
class Clip:
    """A clip in the bucket ``clips``.

    Attributes:
        uri: where it lies.
        name: what the column ``clip`` says.
        frames: uint8 (count, H, W, 3), RGB, exactly what it holds.
    """

    uri: str
    name: str
    frames: Frames = field(repr=False)


@pytest.fixture(scope="session")
def server() -> Iterator[SeaweedFS]:
    with tempfile.TemporaryDirectory(prefix="weed-") as folder:
        weed = SeaweedFS(Path(folder))
        weed.start()
        try:
            weed.create_buckets()
            yield weed
        finally:
            weed.kill()


@pytest.fixture(scope="session")
def clips(server: SeaweedFS, tmp_path_factory: pytest.TempPathFactory) -> list[Clip]:
    """Videos of some 5 MB each, in folders of their own, and a folder of frames."""
    client, folder = server.client(), tmp_path_factory.mktemp("clips")
    made = []
    for number, key in enumerate(KEYS):
        frames = grainy_frames(32 + 4 * number, seed=number)
        video = write_video(folder / f"{number}{Path(key).suffix}", frames, keyframes=16)
        client.upload_file(str(video), "clips", key)
        video.unlink()
        made.append(Clip(f"s3://clips/{key}", Path(key).stem, frames))
    frames = grainy_frames(12, seed=99)
    for number, frame in enumerate(frames, 1):
        stream = io.BytesIO()
        Image.fromarray(frame).save(stream, "PNG", compress_level=1)
        client.put_object(Bucket="clips", Key=f"takes/frames of #9/im{number}.png", Body=stream.getvalue())
    made.append(Clip("s3://clips/takes/frames of #9", "frames of #9", frames))
    return made


def grainy_frames(count: int, seed: int) -> Frames:
    """uint8 (count, 256, 384, 3), RGB: a moving picture with film grain, which lossless codecs cannot make small."""
    moving = moving_frames(count, 256, 384, step=3).astype(np.int16)
    grain = np.random.default_rng(seed).integers(-12, 13, moving.shape, dtype=np.int16)
    return np.clip(moving + grain, 0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def dataset(server: SeaweedFS, clips: list[Clip], tmp_path_factory: pytest.TempPathFactory) -> str:
    """URI of the samples of all clips, made without any disturbance."""
    folder, out = tmp_path_factory.mktemp("ingest"), "s3://samples/undisturbed"
    with ingest(server, out, folder) as command:
        command.succeed()
    return out


def ingest(server: SeaweedFS, out: str, folder: Path) -> Command:
    """The ingest of everything in the bucket ``clips`` into ``out``, running; videos are split at every keyframe."""
    arguments = ["mana_dist.ingest", "--source", "s3://clips/takes", "--out", out, "--segment-frames", "16"]
    return Command(*arguments, folder=folder, environment=OWNER.environment(server.endpoint))
