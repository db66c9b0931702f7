"""The whole network: ``python -m benchmarks.model [--device cpu|cuda] [--quick]``. Torch alone.

Forward and training step on crops of 64x64, where the time goes, and frames of a video, streaming against the plain
sliding window that encodes T frames for each frame of output.
"""

import argparse
from collections.abc import Callable

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from benchmarks.timing import describe, timed
from mana_dist.model import Mana, ModelConfig

# What the profiler calls convolutions and matrix products, their backward passes included.
CONVOLUTIONS = ("conv",)
PRODUCTS = ("mm", "matmul", "gemm", "linear")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description="The whole network's speed.")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, help="CPU threads")
    parser.add_argument("--batch", type=int, help="crops in a training step (default: 16 on a GPU, 1 on a CPU)")
    parser.add_argument("--compile", action="store_true", help="torch.compile the blocks (run.compile of a training)")
    parser.add_argument("--quick", action="store_true", help="a small network and frame: seconds instead of minutes")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    device = options.device
    config = ModelConfig(channels=32, encoder_blocks=2, decoder_blocks=6) if options.quick else ModelConfig()
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    batch = options.batch or (16 if device == "cuda" else 1)
    torch.manual_seed(0)
    model = Mana(config).to(device, dtype)
    if options.compile:
        for part in (model.encoder, model.decoder, model.upsampler):
            part.compile()
    print(f"{describe(device)}; {dtype}; {sum(p.numel() for p in model.parameters()):,} parameters")
    crops(model, device, batch)
    frame = (45, 80) if options.quick else (135, 240)
    streaming(model, device, *frame)


def crops(model: Mana, device: str, batch: int) -> None:
    """Forward and training step at 64x64, and the share of convolutions and matrix products."""
    frames = torch.rand(batch, model.config.frames, 3, 64, 64, device=device)
    optimizer = torch.optim.Adam(model.parameters())

    @torch.no_grad()
    def forward() -> Tensor:
        output: Tensor = model(frames)
        return output

    def step() -> None:
        optimizer.zero_grad()
        model(frames).float().abs().mean().backward()
        optimizer.step()

    for name, call, passes in (("forward", forward, 1), ("training step", step, 3)):
        result = timed(call, device)
        rate = passes * forward_flops(model.config, frames) / result.seconds / 1e12
        convolutions, products = shares(call, device)
        print(
            f"{name:14} {batch} x 64x64: {result.seconds * 1e3:9.1f} ms (spread {result.spread:.0%}), "
            f"{rate:.3f} TFLOP/s; {convolutions:.1%} of the time in convolutions, {products:.1%} in matrix products"
        )


def streaming(model: Mana, device: str, height: int, width: int) -> None:
    """One more frame of a video: embed it and reconstruct, against the whole window anew."""
    size = model.config.frames
    video = torch.rand(1, size, 3, height, width, device=device)
    with torch.no_grad():
        embedded = [model.embed(video[:, t]) for t in range(size)]

    @torch.no_grad()
    def stream() -> Tensor:
        newest = [*embedded[1:], model.embed(video[:, -1])]
        key, value = torch.stack([e.key for e in newest], 1), torch.stack([e.value for e in newest], 1)
        return model.reconstruct(video[:, size // 2], newest[size // 2].feature, key, value)

    @torch.no_grad()
    def slide() -> Tensor:
        output: Tensor = model(video)
        return output

    plain, streamed = timed(slide, device, least_runs=3), timed(stream, device, least_runs=3)
    print(
        f"{4 * width}x{4 * height} output: sliding window {plain.seconds * 1e3:.1f} ms, "
        f"streaming {streamed.seconds * 1e3:.1f} ms a frame: {plain.seconds / streamed.seconds:.2f}x"
    )


def forward_flops(config: ModelConfig, frames: Tensor) -> float:
    """Of the convolutions in a plain forward pass: two for each multiply-add."""
    channels, inner = config.channels, config.channels // 2
    block = 2 * 9 * channels**2
    encoder = config.frames * (27 * channels + config.encoder_blocks * block + 2 * channels * inner)
    decoder = config.decoder_blocks * block + (config.frames + 2) * inner * channels
    upsampler = 9 * (4 * channels**2 + 4 * 2 * channels**2 + 16 * inner**2 + 16 * 3 * inner)
    pixels = frames.shape[0] * frames.shape[-2] * frames.shape[-1]
    return 2.0 * pixels * (encoder + decoder + upsampler)


def shares(call: Callable[[], object], device: str) -> tuple[float, float]:
    """The shares of convolutions and of matrix products in the time that operators take."""
    call()
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if device == "cuda" else [])
    with profile(activities=activities) as profiler:
        call()
    own = "self_device_time_total" if device == "cuda" else "self_cpu_time_total"
    times = [(event.key, float(getattr(event, own))) for event in profiler.key_averages()]
    total = sum(time for _, time in times)
    convolutions = sum(time for key, time in times if any(name in key for name in CONVOLUTIONS))
    products = sum(
        time
        for key, time in times
        if any(name in key for name in PRODUCTS) and not any(name in key for name in CONVOLUTIONS)
    )
    return convolutions / total, products / total


if __name__ == "__main__":
    main()
