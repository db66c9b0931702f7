"""The layouts of the field's datasets: names of the folders with the ground truth and with the LR frames."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from mana_dist.data.degradation import BD, BI, DEGRADATIONS, Degradation
from mana_dist.data.degradation.bi import UNSAID
from mana_dist.footage import vimeo
from mana_dist.footage.found import FoundClip
from mana_dist.model.config import SCALES
from mana_dist.video.frame_folders import clip_name


@dataclass(frozen=True)
class Layout:
    """HR clips in one folder, LR clips of the same names in others beside it; the first that is there counts.

    Attributes:
        name: for the protocol.
        hr: the HR folder.
        own: LR folders of degradations, by name, for which this layout has others than the degradation says.
    """

    name: str
    hr: str
    own: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def lr(self, degradation: Degradation, scale: int = 4) -> tuple[str, ...]:
        """Return the LR folders of a degradation."""
        names = self.own.get(degradation.name, degradation.lr_folders)
        return tuple(dict.fromkeys(at_scale(name, scale) for name in names))


def at_scale(name: str, scale: int) -> str:
    """Return the name that a folder of LR frames, named here as at scale 4, has at another scale."""
    return _SCALE.sub(str(scale), name)


# mmagic's Vid4, UDM10, SPMCS and REDS4; HR and LR; REDS as it is distributed.
BESIDE = (
    Layout("GT, BIx4, BDx4 (Vid4, UDM10, REDS4)", "GT", {BI.name: ("BIx4", "sharp_bicubic", *UNSAID)}),
    Layout("HR, LR", "HR"),
    Layout("hr, lr", "hr"),
    Layout("REDS, training", "train_sharp", {BI.name: ("train_sharp_bicubic/X4",), BD.name: ()}),
    Layout("REDS, validation", "val_sharp", {BI.name: ("val_sharp_bicubic/X4",), BD.name: ()}),
)
# The same within each clip; first SPMCS as it is distributed; PFNL's test sets have the same with blur4.
_TRUTH = {BI.name: ("input4",), BD.name: ("blur4",)}
_IN_CLIP = {BI.name: ("BIx4", "input4", "LRx4", "LR", "X4", "x4", "lr")}
WITHIN = (
    Layout("truth, input4 (SPMCS) or blur4 in each clip", "truth", _TRUTH),
    *(Layout(f"{hr}, BIx4 or LR in each clip", hr, _IN_CLIP) for hr in ("GT", "HR", "hr")),
)
VIMEO = Layout("Vimeo90K, test list", vimeo.SEQUENCES, {BI.name: ("BIx4", "sequences_LR")})
VIMEO_BESIDE = {BI.name: "_matlabLRx4"}
"""Ends, by degradation, the name of the folder beside Vimeo90K's that has the LR frames, as BasicSR has it."""

_SCALE = re.compile(r"((?<=[xX])|(?<=^input)|(?<=^blur))[234]$")
_LR_NAME = re.compile(
    r"x[2348]|lr([_-]?(x?[2348]|bicubic|bi|bd|unknown|mild|wild))?|.*(lr[_-]?x[2348]|[2348]x[_-]?lr|x[2348][_-]?lr)"
    r"|b[id]x[2348].*|sharp_bicubic|(train|val|test)_(sharp_bicubic|blur.*)|input[2348]|blur[2348]|sequences_lr",
    re.IGNORECASE,
)
_ONLY_LR = re.compile(
    r"b[id]x[2348].*|sharp_bicubic|(train|val|test)_sharp_bicubic|sequences_lr|.*_matlablrx[2348]", re.IGNORECASE
)


def lr_name_in(path: str) -> str | None:
    """Return the name in a folder's path that says that LR frames lie in it; None: none does.

    A name that people give to other things too, like X4, counts only where it is the last.
    """
    *above, last = path.split("/")
    return last if is_lr_name(last) else next((name for name in above if _ONLY_LR.fullmatch(name)), None)


def lr_folder_of(root: str, clip: FoundClip) -> str | None:
    """Return the name of the folder, ``root`` or one above or below it, that says that ``clip`` in it is LR frames."""
    folders = clip.path.split("/") if clip.files is not None else clip.path.split("/")[:-1]
    return lr_name_in(root) or next(filter(is_lr_name, folders), None)


class Truth(NamedTuple):
    """The folders of LR frames and of their ground truth by a layout, and the clip there, without a video's suffix."""

    lr: str
    hr: str
    clip: str


def truths_of(uri: str, *, is_video: bool, scales: Sequence[int] = SCALES) -> Iterator[Truth]:
    """Yield the places at which the ground truth lies if the clip ``uri`` is LR frames, by each layout that it fits.

    Args:
        uri: the clip's.
        is_video: whether it is a video.
        scales: those that the LR frames may have.
    """
    folder, _, name = uri.rpartition("/")
    path = f"{folder}/{clip_name(name)}/" if is_video else f"{uri}/"
    if not any(map(is_lr_name, path.split("/"))):
        return
    for layout in (*BESIDE, *WITHIN, VIMEO):
        names = (name for scale in scales for kind in DEGRADATIONS.values() for name in layout.lr(kind, scale))
        for name in dict.fromkeys(names):
            before, found, after = path.rpartition(f"/{name}/")
            if found:
                hr = f"{before}/{layout.hr}"
                yield Truth(f"{before}/{name}", hr, f"{hr}/{after}".rstrip("/"))
    for beside in (at_scale(name, scale) for name in VIMEO_BESIDE.values() for scale in scales):
        before, found, after = path.rpartition(f"{beside}/")
        if found:
            yield Truth(f"{before}{beside}", before, f"{before}/{after}".rstrip("/"))


def is_lr_name(name: str) -> bool:
    """Return whether a folder of this name holds LR frames, or what was made of them."""
    known = at_scale(name, 4)
    return _LR_NAME.fullmatch(name) is not None or any(known in kind.lr_folders for kind in DEGRADATIONS.values())


def numbers_differ(hr: str, hr_files: Sequence[str], lr_files: Sequence[str]) -> str:
    """Return where the numbers of paired LR and HR frames do not go on alike: a frame is missing; empty: nowhere.

    They are paired by order, wherever their numbers begin. Names in which no number, or more than one, differs from
    frame to frame are not compared.
    """
    high, low = _numbers(hr_files), _numbers(lr_files)
    for position in range(1, len(high) if len(high) == len(low) else 0):
        if high[position] - high[position - 1] != low[position] - low[position - 1]:
            return (
                f"{lr_files[position]} would be the LR frame of {hr}/{hr_files[position]}, but after "
                f"{lr_files[position - 1]} and {hr_files[position - 1]} their numbers do not go on alike"
            )
    return ""


def _numbers(names: Sequence[str]) -> list[int]:
    """Return the number that counts the frames in each of their names; empty if it is not clear which that is."""
    rows = [[int(digits) for digits in re.findall(r"[0-9]+", os.path.splitext(name)[0])] for name in names]
    if len({len(row) for row in rows}) != 1:
        return []
    counting = [column for column in zip(*rows, strict=True) if len(set(column)) > 1]
    return list(counting[0]) if len(counting) == 1 else []
