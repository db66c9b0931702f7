"""A training's lines on the console."""

from mana_dist.progress import duration
from mana_dist.train.events import Checkpointed, Event, Failed, Progress, Started, Validated


def line(event: Event) -> str:
    """One line for a person."""
    if isinstance(event, Started):
        begins = f"resuming after step {event.step}" if event.step else "starting"
        return f"{begins}: {event.workers} worker(s) on {event.device}"
    if isinstance(event, Failed):
        return f"worker {event.rank} failed: {event.reason}"
    if isinstance(event, Progress):
        width = len(str(event.total))
        return (
            f"stage {event.stage}  step {event.step:>{width}}/{event.total}  "
            f"loss {sum(event.losses) / len(event.losses):.5f}  {event.samples_per_second:.1f} samples/s  "
            f"data-wait {event.data_wait:.1%}  ETA {duration(event.eta_seconds)}"
        )
    if isinstance(event, Validated):
        return (
            f"validation at step {event.step}: PSNR {event.psnr:.2f} dB "
            f"({event.psnr - event.psnr_bicubic:+.2f} over bicubic), "
            f"SSIM {event.ssim:.4f} ({event.ssim - event.ssim_bicubic:+.4f})"
        )
    assert isinstance(event, Checkpointed)
    return f"checkpoint at step {event.step} ({event.seconds:.1f} s)"
