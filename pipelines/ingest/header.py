"""What a look at a clip's header and first frame shows of its use."""

from mana_dist.data.settings import SampleSettings
from mana_dist.data.video import probe
from mana_dist.errors import UserError
from pipelines.ingest.run_unit import bare_reason, least_side
from pipelines.ingest.sources import Clip


def look(clip: Clip, settings: SampleSettings) -> str:
    """Why the clip can give no sample, by its header and first frame; empty where they do not say so."""
    try:
        info = probe(clip.uri)
    except UserError as error:
        return bare_reason(error, clip.uri)
    except OSError as error:
        return " ".join(f"cannot be read ({error})".split())
    used = info.frames
    if used is not None:
        used = max(0, (used if clip.stop is None else min(used, clip.stop)) - clip.start)
    return refusal(info.width, info.height, used, clip, settings)


def refusal(width: int, height: int, used: int | None, clip: Clip, settings: SampleSettings) -> str:
    """Why frames of this size and number can give no sample; empty if they can.

    Args:
        width: pixels, as shown.
        height: pixels, as shown.
        used: frames in the range asked for; None where that is not known.
        clip: the clip.
        settings: how samples are made.
    """
    least = least_side(clip, settings)
    if min(width, height) < least:
        return f"{width}x{height} is too small; both sides must be at least {least}"
    if used is not None and used < settings.frames_per_sample:
        return f"only {used} frames in the range asked for; a sample needs {settings.frames_per_sample}"
    return ""
