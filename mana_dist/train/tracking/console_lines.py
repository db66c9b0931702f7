"""A training's lines on the console."""

import contextlib

from mana_dist.console import log
from mana_dist.progress import duration
from mana_dist.train.tracking.events import (
    Checkpointed,
    Damaged,
    Event,
    Failed,
    Progress,
    Stalled,
    Started,
    Stopped,
    Validated,
)

USELESS_GAIN = 0.01
"""Neighbour gain, dB, below which a stage that ends has learned nothing from neighbour frames."""


def say(text: str) -> None:
    """Print lines; never fails, since MLflow shall get the training's events in spite of a closed pipe or full disk."""
    with contextlib.suppress(OSError, ValueError):  # ValueError: closed, or not in the terminal's encoding
        log.info(text)


def line(event: Event) -> str:  # noqa: PLR0911  # one for each kind
    """Return an event as one line for the console; several where a stalled worker's threads are listed."""
    match event:
        case Started():
            begins = f"resuming after step {event.step}" if event.step else "starting"
            peak = f", peak {event.peak} each" if event.peak else ""
            return f"{begins}: {event.workers} worker(s) on {event.device}{peak}"
        case Progress():
            return _progress(event)
        case Validated():
            return _validated(event)
        case Checkpointed():
            return f"checkpoint at step {event.step} ({event.seconds:.1f} s, training waited {event.waited:.1f} s)"
        case Failed():
            return f"worker {event.rank} failed: {event.reason}"
        case Damaged():
            return f"checkpoint {event.checkpoint} is damaged ({event.reason}); going on from one before it"
        case Stalled():
            return (
                f"worker {event.rank} has made no step for {event.seconds:.0f} s (run.stall_timeout); its threads:\n"
                f"{event.stacks.rstrip()}"
            )
        case Stopped():
            return f"stopped after step {event.step} ({event.reason}); everything up to it is in the checkpoint"


def _validated(event: Validated) -> str:
    found = (
        f"validation at step {event.step}: PSNR {event.psnr:.2f} dB "
        f"({event.psnr - event.psnr_bicubic:+.2f} over bicubic), "
        f"SSIM {event.ssim:.4f} ({event.ssim - event.ssim_bicubic:+.4f})"
    )
    gain = event.neighbour_gain
    if gain is None:
        return found
    found += f", neighbour gain {gain:+.3f} dB"
    if event.ended_stage is None or gain >= USELESS_GAIN:
        return found
    return (
        f"{found}\nstage {event.ended_stage}: neighbour frames bring nothing yet ({gain:.3f} dB): the model does as "
        "well with the centre frame alone; train longer, or with another model.attention"
    )


def _progress(event: Progress) -> str:
    width = len(str(event.total))
    parts = [
        f"stage {event.stage}",
        f"step {event.step:>{width}}/{event.total}",
        f"loss {sum(event.losses) / len(event.losses):.5f}",
    ]
    if event.gradient_norms:
        parts.append(f"grad {event.gradient_norms[-1]:.2e}")
    parts += [f"lr {event.lr:.1e}", f"{event.samples_per_second:.1f} samples/s"]
    if event.tflops:
        share = "" if event.peak_share is None else f" ({event.peak_share:.0%} of peak)"
        parts.append(f"{event.tflops:.3g} TFLOP/s{share}")
    parts.append(f"data-wait {event.data_wait:.1%}")
    if event.memory:
        parts.append(f"{event.memory / 2**30:.1f} GiB")
    parts.append(f"ETA {duration(event.eta_seconds)}")
    return "  ".join(parts)
