"""Pairs of clips that belong together: HR frames, and LR frames that were given with them."""

import dataclasses
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from mana_dist.data.manifest import Rejected
from mana_dist.errors import UserError
from mana_dist.footage.layouts import Truth, numbers_differ, truths_of
from mana_dist.model.config import SCALES
from mana_dist.video.frame_folders import clip_name

if TYPE_CHECKING:
    from mana_dist.footage.expand import Clip


class MismatchError(UserError):
    """HR and given LR frames do not match."""


_LIST = "a table with columns hr,lr says which belong together"


def truths_among(clips: Collection["Clip"], scales: Sequence[int] = SCALES) -> Iterator[tuple["Clip", Truth, "Clip"]]:
    """Yield LR clips among ``clips`` with their ground truth among them, by the layouts of datasets."""
    stems = {_stem(clip): clip for clip in clips}
    for clip in clips:
        for truth in truths_of(clip.uri, is_video=clip.files is None, scales=scales):
            if truth.clip in stems:
                yield clip, truth, stems[truth.clip]
                break


def join(
    clips: Mapping[str, "Clip"], listed: Iterable[tuple[str, str]], scale: int
) -> tuple[list["Clip"], list[Rejected]]:
    """Return HR clips with their LR clips, in the order of the HR clips, and what is in no pair.

    Args:
        clips: all clips, by their sources.
        listed: sources of HR and LR clips that a user says belong together.
        scale: HR side over LR side.
    """
    listed = list(listed)
    names: dict[str, str] = {}
    lows: dict[str, dict[str, str]] = {}  # by the HR clips' sources, the LR clips' with the folder that says so
    for high, low in listed:
        if high in clips and low in clips:
            lows.setdefault(high, {})[low] = low
    in_list = {source for pair in listed for source in pair}
    for clip, truth, hr in truths_among([clip for uri, clip in clips.items() if uri not in in_list], (scale,)):
        lows.setdefault(hr.source, {})[clip.source] = truth.lr
        if truth.hr == truth.clip and truth.hr.rpartition("/")[0] == truth.lr.rpartition("/")[0]:
            names[hr.source] = clip_name(truth.hr.rpartition("/")[0])  # of a folder HR in each clip
    paired: list[Clip] = []
    rejected = []
    for source, found in lows.items():
        if len(found) > 1:
            reason = f"has LR frames in {' and in '.join(found.values())}; {_LIST}"
        else:
            hr, lr = clips[source], clips[next(iter(found))]
            reason = _difference(hr, lr)
            paired += [] if reason else [_joined(hr, lr, names.get(source, hr.name))]
        if reason:
            rejected.append(Rejected(source, reason))
    done = {source for high, found in lows.items() for source in (high, *found)}
    alone = f"is in no pair: HR and LR frames of one name, in folders that evaluation knows; or {_LIST}"
    rejected += [Rejected(source, alone) for source in clips if source not in done]
    order = {source: place for place, source in enumerate(clips)}
    return sorted(paired, key=lambda clip: order[clip.source]), rejected


def _joined(hr: "Clip", lr: "Clip", name: str) -> "Clip":
    changes = [clip.modified for clip in (hr, lr) if clip.modified is not None]
    size = None if hr.bytes is None or lr.bytes is None else hr.bytes + lr.bytes
    modified = max(changes, default=None)
    return dataclasses.replace(hr, lr=lr.uri, lr_files=lr.files, bytes=size, modified=modified, name=name)


def _difference(hr: "Clip", lr: "Clip") -> str:
    """Return why the frames in two folders cannot be paired; empty if they can, or are in a video."""
    if hr.files is None or lr.files is None:
        return ""
    if len(hr.files) != len(lr.files):
        return f"has {len(hr.files)} frames, and {lr.source} {len(lr.files)} LR frames; mend or leave out the pair"
    return numbers_differ(hr.source, hr.files, lr.files)


def _stem(clip: "Clip") -> str:
    """Return a clip's URI without a video's suffix."""
    folder, _, name = clip.uri.rpartition("/")
    return clip.uri if clip.files is not None else f"{folder}/{clip_name(name)}"
