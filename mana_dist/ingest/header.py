"""Reasons to refuse a clip that show in its header or its first frame, before anything is decoded."""

from collections.abc import Sequence
from itertools import islice

from mana_dist.data.config import SampleSettings
from mana_dist.data.manifest import Rejected
from mana_dist.errors import UserError, one_line
from mana_dist.footage.expand import Clip
from mana_dist.footage.found import below
from mana_dist.footage.lookalikes import Seen, lr_among
from mana_dist.ingest.pair_frames import size_problem
from mana_dist.ingest.run_unit import bare_reason, refusal
from mana_dist.video.header_info import probe_header
from mana_dist.video.reading import read_frames

LOOKED_AT = 200
"""Pictures whose size is read to find LR frames by what they show; each is a request."""


def reject_lookalikes(clips: Sequence[Clip]) -> dict[str, Rejected]:
    """Return the folders of frames that show another one in a smaller size, by URI.

    Of very many folders with names that differ in one part alone, the first :data:`LOOKED_AT` are looked at.
    """
    seen = [
        Seen(clip.uri, clip.uri, len(clip.files), below(clip.uri, clip.files[0]), None) for clip in clips if clip.files
    ]
    reason = "shows {} in a smaller size: LR frames or a preview, no ground truth of its own"
    return {low.uri: Rejected(low.uri, reason.format(high.uri)) for high, low in lr_among(seen, LOOKED_AT)}


def reason_to_refuse(clip: Clip, settings: SampleSettings) -> str:
    """Return why the clip can give no sample, by its header; empty where that does not say so.

    Frames are counted where a video's header has too few: that of a fragmented mp4 knows its first fragment alone.
    """
    try:
        info = probe_header(clip.uri, clip.files)
        used = None if info.frames is None else clip.used(info.frames)
        if used is not None and used < settings.frames_per_sample and clip.files is None:
            there = sum(1 for _ in islice(read_frames(clip.uri), clip.start + settings.frames_per_sample))
            used = clip.used(there)
        if reason := refusal(info.width, info.height, used, clip, settings):
            return reason
        if clip.lr is None:
            return ""
        lr = probe_header(clip.lr, clip.lr_files)
        return size_problem((info.width, info.height), (lr.width, lr.height), settings.scale)
    except UserError as error:
        return bare_reason(error, clip.uri)
    except OSError as error:
        return f"cannot be read ({one_line(error)})"
