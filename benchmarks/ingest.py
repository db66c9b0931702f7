"""The ingest against a careful loop in one process: PyAV decodes with all cores, PIL shrinks, pyarrow writes.

``python -m benchmarks.ingest --data VIDEOS [--frames 200]`` for videos that are there.

Both do the same work: decode every frame, make its LR frame once, look for shot cuts, duplicates and detail, measure
the optical flow, and write every 7-frame sample with its HR centre into Parquet files compressed with zstd, synced to
the disk. The loop lets FFmpeg use all cores for decoding; the rest of it runs on one, as scripts do. Ray's start is
told apart: it is some seconds, however long the job. The recipe ``real`` is compared with BI, task by task.
"""

import argparse
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image
from scenedetect import FrameTimecode
from scenedetect.detectors import AdaptiveDetector

from benchmarks.report import Row, show
from mana_dist.data.manifest import load_manifest

FRAMES = 7
GROUP_BYTES = 8 * 2**20
Frame = NDArray[np.uint8]


def main() -> None:
    """Print the figures of videos that are there."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of videos", required=True)
    parser.add_argument("--frames", type=int, default=200, help="frames of each video to use")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        show(measure(sorted(options.data.iterdir()), options.frames, Path(folder)))


def rows(small: bool) -> Iterator[Row]:
    """Made-up 720p clips."""
    count, frames = (1, 10) if small else (4, 100)
    with tempfile.TemporaryDirectory() as folder:
        yield from measure(make_videos(Path(folder) / "videos", frames, count), frames, Path(folder))


def measure(videos: list[Path], frames: int, folder: Path) -> Iterator[Row]:
    """Measure both on the first frames of some videos."""
    start = start_seconds(videos[0], folder / "small")
    samples, seconds = loop(videos, frames, folder / "loop")
    theirs = samples / seconds
    yield Row("loop in one process: PyAV, PIL", theirs, "samples/s", 1.0, "the loop")
    before = time.perf_counter()
    samples = ingest(videos, frames, folder / "ours")
    seconds = time.perf_counter() - before
    yield Row("ingest, the whole command", samples / seconds, "samples/s", samples / seconds / theirs, "the loop")
    yield Row("its start", start, "s")
    if seconds > start:
        rate = samples / (seconds - start)
        yield Row("ingest, without its start", rate, "samples/s", rate / theirs, "the loop")
    yield from recipe_rows(videos[0], min(frames, 30), folder)


def recipe_rows(video: Path, frames: int, folder: Path) -> Iterator[Row]:
    """Compare a task whose LR frames the recipe ``real`` makes with one of BI, by processor time, in turns."""
    os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # as Ray has it in its tasks
    seconds: dict[str, list[float]] = {"BI": [], "real": []}
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        for _ in range(4):  # the first of each warms up
            for name, taken in seconds.items():
                taken.append(pool.submit(task_seconds, name, video, frames, folder / name).result())
    bi, real = (statistics.median(taken[1:]) for taken in seconds.values())
    yield Row("a task by the recipe real", 1000 * real / frames, "ms processor time/frame", bi / real, "BI")


def task_seconds(degradation: str, video: Path, frames: int, out: Path) -> float:
    """Return the processor time of one task of the ingest, without Ray."""
    from mana_dist.data.config import SampleSettings
    from mana_dist.data.degradation import DEGRADATIONS
    from mana_dist.footage.expand import expand
    from mana_dist.ingest import units
    from mana_dist.ingest.run_unit import run_unit

    settings = SampleSettings(degradation=DEGRADATIONS[degradation])
    unit = units.whole(expand([str(video)], stop=frames).clips, settings)
    before = time.process_time()
    run_unit(unit, str(out), settings)
    return time.process_time() - before


def ingest(videos: list[Path], frames: int, out: Path) -> int:
    """The command; gives its samples."""
    command = [sys.executable, "-m", "pipelines.ingest", "--source", *map(str, videos), "--out", str(out)]
    subprocess.run([*command, "--frames", f":{frames}"], check=True, stdout=subprocess.DEVNULL)
    return load_manifest(str(out)).samples


def start_seconds(video: Path, out: Path) -> float:
    """What the command takes for a single sample."""
    before = time.perf_counter()
    ingest([video], FRAMES, out)
    return time.perf_counter() - before


def loop(videos: list[Path], frames: int, out: Path) -> tuple[int, float]:
    """The same in one process; gives its samples and seconds."""
    out.mkdir()
    before = time.perf_counter()
    samples = 0
    for number, video in enumerate(videos):
        samples += write(out / f"{number}.parquet", windows(video, frames))
    return samples, time.perf_counter() - before


def windows(video: Path, frames: int) -> Iterator[tuple[Frame, Frame, int, float]]:
    """LR window, HR centre, its number and the flow, of every window."""
    lrs: deque[Frame] = deque(maxlen=FRAMES)
    hrs: deque[Frame] = deque(maxlen=FRAMES // 2 + 1)
    flows: deque[float] = deque(maxlen=FRAMES - 1)
    detector = AdaptiveDetector(min_scene_len=1)
    for number, hr in enumerate(decode(video, frames)):
        height, width = hr.shape[0] // 4, hr.shape[1] // 4
        lr = np.asarray(Image.fromarray(hr).resize((width, height), Image.Resampling.BICUBIC))
        grey = cv2.cvtColor(lr, cv2.COLOR_RGB2GRAY)
        detector.process_frame(FrameTimecode(number, 25.0), lr[..., ::-1])
        if lrs:
            last = cv2.cvtColor(lrs[-1], cv2.COLOR_RGB2GRAY)
            cv2.blur(cv2.absdiff(grey, last), (8, 8)).max()
            field = cv2.calcOpticalFlowFarneback(last, grey, None, 0.5, 3, 15, 3, 5, 1.2, 0)
            flows.append(float(np.mean(np.hypot(field[..., 0], field[..., 1]))))
        lrs.append(lr)
        hrs.append(hr)
        if len(lrs) == FRAMES:
            luma = cv2.cvtColor(hrs[0], cv2.COLOR_RGB2GRAY)
            cv2.absdiff(luma[1:], luma[:-1]).mean() + cv2.absdiff(luma[:, 1:], luma[:, :-1]).mean()
            yield np.stack(lrs), hrs[0], number - FRAMES // 2, float(np.mean(flows))


def decode(video: Path, frames: int) -> Iterator[Frame]:
    """The first frames as RGB, all cores decoding."""
    with av.open(str(video)) as container:
        container.streams.video[0].thread_type = "AUTO"
        for number, frame in enumerate(container.decode(video=0)):
            if number == frames:
                return
            pixels = frame.to_ndarray(format="rgb24")
            yield pixels[: pixels.shape[0] // 4 * 4, : pixels.shape[1] // 4 * 4]


def write(path: Path, samples: Iterator[tuple[Frame, Frame, int, float]]) -> int:
    """One Parquet file, row groups of 8 MiB as in our shards; gives its rows."""
    rows, pending, writer = 0, [], None
    for sample in samples:
        pending.append(sample)
        if len(pending) >= max(1, GROUP_BYTES // (sample[0].nbytes + sample[1].nbytes)):
            writer = writer or pq.ParquetWriter(path, table(pending).schema, compression="zstd", use_dictionary=False)
            writer.write_table(table(pending))
            rows, pending = rows + len(pending), []
    if pending:
        writer = writer or pq.ParquetWriter(path, table(pending).schema, compression="zstd", use_dictionary=False)
        writer.write_table(table(pending))
    if writer:
        writer.close()
        with path.open("rb") as file:
            os.fsync(file.fileno())  # as we do: what is called done must survive a crash
    return rows + len(pending)


def table(samples: list[tuple[Frame, Frame, int, float]]) -> pa.Table:
    """A row group."""
    lr, hr, centre, flow = zip(*samples, strict=True)
    tensors = [pa.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(column)) for column in (lr, hr)]
    return pa.Table.from_arrays([*tensors, pa.array(centre), pa.array(flow)], names=["lr", "hr", "centre", "flow"])


def make_videos(folder: Path, frames: int, count: int) -> list[Path]:
    """Moving textures, H.264 as cameras write it."""
    folder.mkdir()
    paths = [folder / f"{number}.mp4" for number in range(count)]
    for number, path in enumerate(paths):
        rng = np.random.default_rng(number)
        coarse = rng.integers(0, 256, (60, 120, 3), dtype=np.uint8)
        picture = cv2.resize(coarse, (2400, 1200), interpolation=cv2.INTER_CUBIC)
        picture = cv2.add(picture, rng.integers(0, 24, picture.shape, dtype=np.uint8))
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=Fraction(25), options={"crf": "20", "preset": "veryfast"})
            stream.width, stream.height, stream.pix_fmt = 1280, 720, "yuv420p"
            for frame in range(frames):
                left = 3 * frame % 1100
                view = np.ascontiguousarray(picture[frame : frame + 720, left : left + 1280])
                container.mux(stream.encode(av.VideoFrame.from_ndarray(view, format="rgb24")))
            container.mux(stream.encode())
    return paths


if __name__ == "__main__":
    main()
