"""What lies at a ``--data`` URI: which of the field's layouts it has, its clips, and the LR frames given with them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from mana_dist import storage
from mana_dist.data import vimeo
from mana_dist.data.degradation import Degradation
from mana_dist.data.sources import FoundClip, below, clips_in
from mana_dist.data.video import clip_name
from mana_dist.errors import UserError
from mana_dist.evaluate.subset import ALL, CENTRE, FrameSubset

LrSource = Literal["made", "given", "auto"]

REDS4 = ("000", "011", "015", "020")
"""The clips of REDS's training set on which EDVR and those after it are measured (BasicSR's and mmagic's choice)."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A clip of a dataset.

    Attributes:
        path: in the dataset, for names; empty where the dataset is the clip.
        uri: the ground truth: a video, or a folder of frames.
        frames: how many of a folder; None for a video.
        lr: URI of the LR frames that are given with it; None: they are made.
        lr_frames: how many of a folder; None for a video.
    """

    path: str
    uri: str
    frames: int | None
    lr: str | None = None
    lr_frames: int | None = None


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """What lies at one ``--data`` URI.

    Attributes:
        name: unique in the evaluation.
        uri: as given.
        layout: which layout was recognised.
        lr: ``made``, or ``given:`` and the folder of the LR frames.
        subset: the frames of each clip that this dataset's numbers are customarily of.
        clips: at least one.
        named_by_path: whether the last name of a clip's path says too little of it.
        notes: what was left out, for people.
    """

    name: str
    uri: str
    layout: str
    lr: str
    subset: FrameSubset
    clips: tuple[Pair, ...]
    named_by_path: bool = False
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Layout:
    """HR clips in one folder, LR clips of the same names in others beside it; the first that is there counts.

    Attributes:
        name: for the protocol.
        hr: the HR folder.
        bi: LR folders of BI.
        bd: LR folders of BD.
        subset: the frames that are scored.
    """

    name: str
    hr: str
    bi: tuple[str, ...]
    bd: tuple[str, ...]
    subset: FrameSubset = ALL

    def lr(self, degradation: Degradation) -> tuple[str, ...]:
        return self.bi if degradation is Degradation.BI else self.bd


# mmagic's Vid4, UDM10, SPMCS and REDS4; REDS as it is distributed.
_BESIDE = (
    _Layout("GT, BIx4, BDx4 (Vid4, UDM10, REDS4)", "GT", ("BIx4", "sharp_bicubic"), ("BDx4",)),
    _Layout("REDS, training", "train_sharp", ("train_sharp_bicubic/X4",), ()),
    _Layout("REDS, validation", "val_sharp", ("val_sharp_bicubic/X4",), ()),
)
# SPMCS as it is distributed; PFNL's test sets have the same with blur4.
_TRUTH, _INPUT_BI, _INPUT_BD = "truth", "input4", "blur4"
_VIMEO, _PLAIN = "Vimeo90K, test list", "clips"
_LR_FOLDERS = frozenset(
    {"BIx4", "BDx4", "sharp_bicubic", "train_sharp_bicubic", "val_sharp_bicubic", _INPUT_BI, _INPUT_BD, "sequences_LR"}
)


def find_datasets(uris: Sequence[str], degradation: Degradation, lr: LrSource) -> list[Dataset]:
    """The datasets at ``uris``, in that order.

    Args:
        uris: videos, folders of frames, folders with several of either, or one of the layouts above.
        degradation: of which LR frames are looked for.
        lr: ``made``: LR frames that lie there are not used; ``given``: they must be there; ``auto``: used where they
            are.

    Raises:
        UserError: something is not there, cannot be read, holds no clip, or the LR frames do not match.
    """
    found: list[Dataset] = []
    for uri in uris:
        if any(storage.resolve(uri) == storage.resolve(other.uri) for other in found):
            raise UserError(f"--data names {uri} twice")
        try:
            dataset = _find(uri, degradation, lr)
        except OSError as error:
            raise UserError(f"--data {uri}: cannot be read ({error})") from error
        found.append(_only_reds4(dataset))
    return [replace(dataset, name=name) for dataset, name in zip(found, _names(found), strict=True)]


def _find(uri: str, degradation: Degradation, lr: LrSource) -> Dataset:
    if not storage.is_folder(uri):
        if not storage.exists(uri):
            raise UserError(f"--data {uri}: no such file or folder")
        return _plain(uri, [FoundClip("", None, None, None)], [], degradation, lr)
    names = {entry.rpartition("/")[2] for entry in storage.list_folder(uri)}
    if vimeo.TESTING in names:
        return _vimeo(uri, names, degradation, lr)
    for layout in _BESIDE:
        if layout.hr in names:
            return _beside(uri, layout, degradation, lr)
    found, previews = clips_in(storage.list_files(uri))
    if any(_parted(clip.path)[1] == _TRUTH for clip in found):
        return _within(uri, found, degradation, lr)
    return _plain(uri, found, previews, degradation, lr)


def _plain(
    uri: str, found: Sequence[FoundClip], previews: Sequence[str], degradation: Degradation, lr: LrSource
) -> Dataset:
    if not found:
        raise UserError(f"--data {uri}: holds neither frames (PNG, JPEG) nor videos, nor does any folder in it")
    for clip in found:
        wrong = _LR_FOLDERS.intersection([*storage.resolve(uri).split("/")[-2:], *clip.path.split("/")])
        if wrong:
            raise UserError(
                f"--data {uri}: {below(uri, clip.path)} lies in {min(wrong)}, a folder of LR frames; "
                "name the dataset's own folder, which holds the ground truth and the LR folders"
            )
    if lr == "given":
        raise UserError(
            f"--lr given: {uri} has no folder of {degradation} LR frames "
            f"({_folder_of(degradation)} beside GT, for one); use --lr made"
        )
    notes = [f"{below(uri, path)}: pictures beside or below videos are previews, left out" for path in previews[:1]]
    clips = [Pair(path=clip.path, uri=below(uri, clip.path), frames=_count(clip)) for clip in found]
    return _dataset(uri, _PLAIN, None, ALL, clips, notes)


def _beside(uri: str, layout: _Layout, degradation: Degradation, lr: LrSource) -> Dataset:
    folder = _given_folder(uri, layout.lr(degradation), degradation, lr)
    hr = below(uri, layout.hr)
    found, _ = clips_in(storage.list_files(hr))
    return _paired(uri, layout.name, layout.subset, hr, found, folder)


def _vimeo(uri: str, names: Iterable[str], degradation: Degradation, lr: LrSource) -> Dataset:
    root = storage.resolve(uri)
    listed = list(dict.fromkeys(vimeo.read_names(below(uri, vimeo.TESTING))))
    hr = below(uri, vimeo.SEQUENCES if vimeo.SEQUENCES in names else "GT")
    by_path = {clip.path: clip for clip in clips_in(storage.list_files(hr))[0]} if listed else {}
    missing = [name for name in listed if name not in by_path]
    if missing or not listed:
        raise UserError(
            f"--data {uri}: {len(missing)} of the {len(listed)} septuplets in {vimeo.TESTING} have no frames in {hr}"
            + (f", the first of them {missing[0]}" if missing else "")
        )
    beside = f"../{root.rpartition('/')[2]}_matlabLRx4/{vimeo.SEQUENCES}"  # as BasicSR has it
    candidates = ("BIx4", "sequences_LR", beside) if degradation is Degradation.BI else ("BDx4",)
    folder = _given_folder(root, candidates, degradation, lr)
    dataset = _paired(uri, _VIMEO, CENTRE, hr, [by_path[name] for name in listed], folder)
    return replace(dataset, named_by_path=True)


def _given_folder(uri: str, candidates: Sequence[str], degradation: Degradation, lr: LrSource) -> str | None:
    """URI of the first of the LR folders ``candidates`` that is there; None: LR is made."""
    if lr == "made":
        return None
    for candidate in candidates:
        folder = below(uri.rstrip("/").rpartition("/")[0], candidate[3:]) if candidate[:3] == "../" else None
        folder = folder or below(uri, candidate)
        if storage.is_folder(folder):
            return folder
    if lr == "given":
        looked = " or ".join(candidates) or "none is known of this layout"
        raise UserError(f"--lr given: {uri} has no folder of {degradation} LR frames ({looked}); use --lr made")
    return None


def _paired(
    uri: str, layout: str, subset: FrameSubset, hr: str, found: Sequence[FoundClip], folder: str | None
) -> Dataset:
    given = {}
    if folder is not None:
        given = {_stem(clip): clip for clip in clips_in(storage.list_files(folder))[0]}
    clips = []
    for clip in found:
        pair = Pair(path=clip.path, uri=below(hr, clip.path), frames=_count(clip))
        if folder is not None:
            low = given.get(_stem(clip))
            if low is None:
                raise UserError(f"{folder}: has no LR frames of {pair.uri}; complete it or use --lr made")
            pair = replace(pair, lr=below(folder, low.path), lr_frames=_count(low))
        clips.append(pair)
    return _dataset(uri, layout, folder, subset, clips)


def _within(uri: str, found: Sequence[FoundClip], degradation: Degradation, lr: LrSource) -> Dataset:
    """Every clip is a folder with its ground truth in one folder and LR frames in others."""
    name = _INPUT_BI if degradation is Degradation.BI else _INPUT_BD
    low = {_parted(clip.path)[0]: clip for clip in found if _parted(clip.path)[1] == name}
    truths = [clip for clip in found if _parted(clip.path)[1] == _TRUTH]
    use = lr == "given" or (lr == "auto" and bool(low))
    clips = []
    for clip in truths:
        path = _parted(clip.path)[0]
        pair = Pair(path=path, uri=below(uri, clip.path), frames=_count(clip))
        if use:
            if path not in low:
                raise UserError(
                    f"{below(uri, path)}: has no folder {name} of {degradation} LR frames beside {_TRUTH}; "
                    "use --lr made"
                )
            pair = replace(pair, lr=below(uri, low[path].path), lr_frames=_count(low[path]))
        clips.append(pair)
    return _dataset(uri, "truth, input4 (SPMCS) or blur4 in each clip", name if use else None, ALL, clips)


def _dataset(
    uri: str, layout: str, lr: str | None, subset: FrameSubset, clips: Sequence[Pair], notes: Sequence[str] = ()
) -> Dataset:
    if not clips:
        raise UserError(f"--data {uri}: recognised as {layout}, but there is no ground truth in it")
    for clip in clips:
        if clip.lr is not None and None not in (clip.frames, clip.lr_frames) and clip.frames != clip.lr_frames:
            raise UserError(
                f"{clip.lr}: {clip.lr_frames} LR frames, but {clip.uri} has {clip.frames}; "
                "mend the dataset or use --lr made"
            )
    folder = None if lr is None else lr.removeprefix(f"{storage.resolve(uri)}/").removeprefix(f"{uri.rstrip('/')}/")
    told = "made" if folder is None else f"given: {folder}"
    return Dataset(
        name=clip_name(storage.resolve(uri)),
        uri=uri,
        layout=layout,
        lr=told,
        subset=subset,
        clips=tuple(clips),
        notes=tuple(notes),
    )


def _only_reds4(dataset: Dataset) -> Dataset:
    """Of a folder that is called REDS4, and holds clips of REDS, the four."""
    if dataset.name.upper() != "REDS4":
        return dataset
    chosen = [clip for name in REDS4 for clip in dataset.clips if clip_name(clip.path) == name]
    if not chosen:
        return dataset
    missing = [name for name in REDS4 if name not in {clip_name(clip.path) for clip in chosen}]
    if missing:
        raise UserError(f"--data {dataset.uri}: is called REDS4 and has no clip {missing[0]}; complete or rename it")
    left_out = len(dataset.clips) - len(chosen)
    notes = (f"the four clips of REDS4; {left_out} others are left out",) if left_out else ()
    return replace(dataset, clips=tuple(chosen), notes=(*dataset.notes, *notes))


def _names(datasets: Sequence[Dataset]) -> list[str]:
    """The last name of each URI, with as many of the names above as tell it from the others; else the URI."""
    above = [storage.resolve(dataset.uri).rstrip("/").split("/")[:-1] for dataset in datasets]
    names = []
    for dataset, mine in zip(datasets, above, strict=True):
        rivals = [theirs for other, theirs in zip(datasets, above, strict=True) if other.name == dataset.name]
        tails = range(1 + len(mine))
        unique = (tail for tail in tails if sum(_last(theirs, tail) == _last(mine, tail) for theirs in rivals) == 1)
        tail = next(unique, None)
        names.append(dataset.uri if tail is None else "/".join([*_last(mine, tail), dataset.name]))
    return names


def _last(parts: Sequence[str], count: int) -> Sequence[str]:
    return parts[len(parts) - count :] if count <= len(parts) else parts


def _folder_of(degradation: Degradation) -> str:
    return _BESIDE[0].lr(degradation)[0]


def _count(clip: FoundClip) -> int | None:
    return None if clip.files is None else len(clip.files)


def _stem(clip: FoundClip) -> str:
    """Its path, without a video's suffix."""
    folder, name = _parted(clip.path)
    return clip.path if clip.files is not None else "/".join(filter(None, [folder, clip_name(name)]))


def _parted(path: str) -> tuple[str, str]:
    folder, _, name = path.rpartition("/")
    return folder, name
