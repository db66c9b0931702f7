"""Datasets at ``--data`` URIs: their layouts, their clips, and the LR frames that are given with them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from mana_dist import storage
from mana_dist.data.degradation import Degradation
from mana_dist.errors import UserError, redacted
from mana_dist.evaluate.subset import ALL, CENTRE, FrameSubset
from mana_dist.footage import vimeo
from mana_dist.footage.found import FoundClip, below, clips_in, outside, relative
from mana_dist.footage.layouts import (
    BESIDE,
    VIMEO,
    VIMEO_BESIDE,
    WITHIN,
    Layout,
    at_scale,
    is_lr_name,
    lr_folder_of,
    numbers_differ,
)
from mana_dist.progress import count, some
from mana_dist.storage import ListedFile
from mana_dist.video.frame_folders import clip_name
from mana_dist.video.frame_names import check_one_clip

LrSource = Literal["made", "given", "auto"]

REDS4 = ("000", "011", "015", "020")
"""The clips of REDS's training set on which EDVR and those after it are measured (BasicSR's and mmagic's choice)."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A clip of a dataset.

    Attributes:
        path: below the dataset's URI, for names; empty where the dataset is the clip.
        uri: the ground truth: a video, or a folder of frames.
        frames: their number in a folder; None for a video.
        first: URI of a folder's first frame; None for a video.
        lr: URI of the given LR frames; None: they are made.
    """

    path: str
    uri: str
    frames: int | None
    first: str | None = None
    lr: str | None = None


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """The dataset at one ``--data`` URI.

    Attributes:
        name: unique in the evaluation.
        uri: as given.
        layout: name of the layout that was recognised.
        lr: ``made``, or ``given:`` and the folder of the LR frames.
        subset: the frames of each clip that the field scores.
        clips: at least one.
        named_by_path: whether clips are named by their whole paths, since the last part says too little.
        notes: what was left out, in words.
    """

    name: str
    uri: str
    layout: str
    lr: str
    subset: FrameSubset
    clips: tuple[Pair, ...]
    named_by_path: bool = False
    notes: tuple[str, ...] = ()


PLAIN = "clips"
# A folder with any of these directly in it is an earlier evaluation's --out.
_REPORT = frozenset({"metrics.json", "report.html", "report.md"})


@dataclass(frozen=True)
class _Place:
    """A ``--data`` URI, and what to find there.

    Attributes:
        uri: as given, for people.
        root: the same URI, absolute.
        degradation: of the LR frames to look for.
        lr: which LR frames are wanted.
        without: a folder below the root that is left out; empty: none.
        scale: HR side over LR side.
    """

    uri: str
    root: str
    degradation: Degradation
    lr: LrSource
    without: str
    scale: int

    def listing(self, folder: str) -> list[ListedFile]:
        return outside(folder, storage.list_files(folder), self.without)

    def clips(self, folder: str) -> list[FoundClip]:
        return clips_in(self.listing(folder))[0]


def find_datasets(
    uris: Sequence[str], degradation: Degradation, lr: LrSource, without: str = "", scale: int = 4
) -> list[Dataset]:
    """Find the datasets at ``uris``, in that order.

    Args:
        uris: videos, folders of frames, folders with several of either, or of one of the field's layouts.
        degradation: of the LR frames to look for.
        lr: ``made``: LR frames that lie there are not used; ``given``: they must be there; ``auto``: they are used
            where they are there.
        without: the folder of the report, which is not searched; empty: none.
        scale: HR side over LR side.

    Raises:
        UserError: a URI cannot be read or holds no clip, or LR frames do not match; ``without`` is one of ``uris``, or
            holds frames and no report.
    """
    found: list[Dataset] = []
    for uri in uris:
        if not uri.strip():
            raise UserError("--data '': an empty name; name a file or a folder")
        if any(storage.resolve(uri) == storage.resolve(other.uri) for other in found):
            raise UserError(f"--data names {uri} twice")
        try:
            dataset = _find(uri, degradation, lr, without, scale)
        except OSError as error:
            raise UserError(f"--data {uri}: cannot be read ({error})") from error
        found.append(_only_reds4(dataset))
    return [replace(dataset, name=name) for dataset, name in zip(found, _names(found), strict=True)]


def _find(uri: str, degradation: Degradation, lr: LrSource, without: str, scale: int) -> Dataset:
    place = _Place(uri, storage.resolve(uri), degradation, lr, without, scale)
    if not storage.is_folder(uri):
        if not storage.exists(uri):
            raise UserError(f"--data {uri}: no such file or folder")
        return _plain(place, [FoundClip("", None, None, None)], [])
    notes = _check_out(place)
    names = {file.rpartition("/")[2] for file in storage.list_folder(place.root)}
    if vimeo.TESTING in names:
        return _vimeo(place, names)
    for layout in BESIDE:
        if layout.hr in names and storage.is_folder(below(place.root, layout.hr)):
            return _beside(place, layout, names)
    found, previews = clips_in(place.listing(place.root))
    for layout in WITHIN:
        if any(_parted(clip.path)[1] == layout.hr and clip.files is not None for clip in found):
            return _with_notes(_within(place, layout, found), notes)
    return _with_notes(_plain(place, found, previews), notes)


def _check_out(place: _Place) -> list[str]:
    """Check that the report's folder holds no data; return the notes on clips that are left out there."""
    out = place.without
    inside = relative(out, place.root) if out else None
    if inside is None or not storage.is_folder(out):
        return []
    if not inside:
        raise UserError(f"--out {out}: is the folder of --data {place.uri} too; name another for the report")
    found, _ = clips_in(storage.list_files(out))
    names = {file.rpartition("/")[2] for file in storage.list_folder(out)}
    direct = any(not clip.path or (clip.files is None and "/" not in clip.path) for clip in found)
    if direct and not names & _REPORT:
        raise UserError(
            f"--out {out}: holds frames or videos of --data {place.uri}; name a folder for the report alone"
        )
    left_out = [clip.path for clip in found if clip.path]
    return [_left_out(left_out, "below --out")] if left_out else []


def _plain(place: _Place, found: Sequence[FoundClip], previews: Sequence[str]) -> Dataset:
    uri = place.uri
    if not found:
        raise UserError(f"--data {uri}: holds neither frames (PNG, JPEG) nor videos, nor does any folder in it")
    for clip in found:
        wrong = lr_folder_of(place.root, clip)
        if wrong is not None:
            raise UserError(
                f"--data {uri}: {below(uri, clip.path)} lies in {wrong}, a folder of LR frames; "
                "name the dataset's own folder, which holds the ground truth and the LR folders"
            )
    if place.lr == "given":
        raise UserError(
            f"--lr given: {uri} has no folder of {place.degradation} LR frames "
            f"({at_scale(place.degradation.lr_folders[0], place.scale)} beside GT, for one); use --lr made"
        )
    notes = [f"{below(uri, path)}: pictures beside or below videos are previews, left out" for path in previews[:1]]
    return _dataset(place, PLAIN, None, ALL, [_pair(place.root, clip) for clip in found], notes)


def _beside(place: _Place, layout: Layout, names: Iterable[str]) -> Dataset:
    folder = _given_folder(place, layout.lr(place.degradation, place.scale))
    hr = below(place.root, layout.hr)
    dataset = _paired(place, layout.name, ALL, hr, place.clips(hr), folder)
    others = []
    for name in sorted(names):
        if name != layout.hr and not is_lr_name(name):
            entry = below(place.root, name)
            if storage.is_folder(entry):
                others += [below(name, clip.path) for clip in place.clips(entry)]
            else:
                others += [clip.path or name for clip in clips_in([ListedFile(name, None, None)])[0]]
    return _with_notes(dataset, [_left_out(others, f"beside {layout.hr}")] if others else [])


def _vimeo(place: _Place, names: Iterable[str]) -> Dataset:
    uri, root = place.uri, place.root
    listed = list(dict.fromkeys(vimeo.read_names(below(root, vimeo.TESTING))))
    hr = below(root, vimeo.SEQUENCES if vimeo.SEQUENCES in names else "GT")
    by_path = {clip.path: clip for clip in place.clips(hr)} if listed and storage.is_folder(hr) else {}
    missing = [name for name in listed if name not in by_path]
    if missing or not listed:
        raise UserError(
            f"--data {uri}: {len(missing)} of the {len(listed)} septuplets in {vimeo.TESTING} have no frames in {hr}"
            + (f", the first of them {missing[0]}" if missing else "")
        )
    found = [by_path[name] for name in listed]
    alone = next((clip for clip in found if frame_count(clip) == 1), None)
    if alone is not None and alone.files is not None:
        raise UserError(
            f"--data {uri}: {below(hr, alone.path)} holds {alone.files[0]} alone; put all seven HR frames there "
            "(im1 to im7): the centre is scored, but frames are matched by their order"
        )
    candidates = VIMEO.lr(place.degradation, place.scale)
    if ending := VIMEO_BESIDE.get(place.degradation.name):
        candidates += (f"../{root.rpartition('/')[2]}{at_scale(ending, place.scale)}/{vimeo.SEQUENCES}",)
    dataset = _paired(place, VIMEO.name, CENTRE, hr, found, _given_folder(place, candidates))
    return replace(dataset, named_by_path=True)


def _given_folder(place: _Place, candidates: Sequence[str]) -> str | None:
    """Return the URI of the first of the LR folders ``candidates`` that is there; None: LR frames are made."""
    if place.lr == "made":
        return None
    for candidate in candidates:
        folder = below(_parted(place.root)[0], candidate[3:]) if candidate[:3] == "../" else None
        folder = folder or below(place.root, candidate)
        if storage.is_folder(folder):
            return folder
    if place.lr == "given":
        looked = " or ".join(candidates) or "none is known of this layout"
        raise UserError(
            f"--lr given: {place.uri} has no folder of {place.degradation} LR frames ({looked}); use --lr made"
        )
    return None


def _paired(
    place: _Place, layout: str, subset: FrameSubset, hr: str, found: Sequence[FoundClip], folder: str | None
) -> Dataset:
    given = {} if folder is None else {stem(clip): clip for clip in place.clips(folder)}
    clips = []
    for clip in found:
        if folder is not None and stem(clip) not in given:
            raise UserError(f"{folder}: has no LR frames of {below(hr, clip.path)}; complete it or use --lr made")
        clips.append(_pair(hr, clip, folder or "", given.get(stem(clip))))
    return _dataset(place, layout, folder, subset, clips)


def _within(place: _Place, layout: Layout, found: Sequence[FoundClip]) -> Dataset:
    """Return a dataset whose clips are folders, each with its ground truth in one folder and LR frames in others."""
    truths = [clip for clip in found if _parted(clip.path)[1] == layout.hr and clip.files is not None]
    names = layout.lr(place.degradation, place.scale)
    there = {clip.path: clip for clip in found}
    name = next(
        (name for name in names if any(_joined(_parted(truth.path)[0], name) in there for truth in truths)), None
    )
    if name is None and place.lr == "given":
        name = names[0]
    clips = []
    for truth in truths:
        path = _parted(truth.path)[0]
        low = there.get(_joined(path, name)) if name is not None and place.lr != "made" else None
        if low is None and name is not None and place.lr != "made":
            raise UserError(
                f"{below(place.root, path)}: has no folder {name} of {place.degradation} LR frames beside {layout.hr}; "
                "use --lr made"
            )
        clips.append(replace(_pair(place.root, truth, place.root, low), path=path))
    others = [clip.path for clip in found if clip not in truths and not is_lr_name(_parted(clip.path)[1])]
    notes = [_left_out(others, f"without a folder {layout.hr}")] if others else []
    given = name if place.lr != "made" else None
    return _dataset(place, layout.name, given, ALL, clips, notes)


def _pair(hr: str, clip: FoundClip, lr: str = "", low: FoundClip | None = None) -> Pair:
    """Return a clip below the folder ``hr`` with its LR frames below ``lr``, checked against each other.

    Raises:
        UserError: two files for one frame, other numbers of frames, numbers that do not go on alike.
    """
    uri = below(hr, clip.path)
    check_one_clip(uri, clip.files or ())
    frames = frame_count(clip)
    pair = Pair(path=clip.path, uri=uri, frames=frames, first=below(uri, clip.files[0]) if clip.files else None)
    if low is None:
        return pair
    low_uri = below(lr, low.path)
    check_one_clip(low_uri, low.files or ())
    low_frames = frame_count(low)
    if None not in (frames, low_frames) and frames != low_frames:
        raise UserError(f"{low_uri}: {low_frames} LR frames, but {uri} has {frames}; mend the dataset or use --lr made")
    if trouble := numbers_differ(uri, clip.files or (), low.files or ()):
        raise UserError(f"{low_uri}: {trouble}; complete the frames or use --lr made")
    return replace(pair, lr=low_uri)


def _dataset(
    place: _Place, layout: str, lr: str | None, subset: FrameSubset, clips: Sequence[Pair], notes: Sequence[str] = ()
) -> Dataset:
    if not clips:
        raise UserError(f"--data {place.uri}: recognised as {layout}, but there is no ground truth in it")
    return Dataset(
        name=clip_name(place.root),
        uri=place.uri,
        layout=layout,
        lr="made" if lr is None else f"given: {relative(lr, place.root) or lr}",
        subset=subset,
        clips=tuple(clips),
        notes=tuple(notes),
    )


def _with_notes(dataset: Dataset, notes: Sequence[str]) -> Dataset:
    return replace(dataset, notes=(*dataset.notes, *notes))


def _left_out(paths: Sequence[str], why: str) -> str:
    return f"{count(len(paths), 'clip')} {why} left out: {some(paths, 3)}"


def _only_reds4(dataset: Dataset) -> Dataset:
    """Leave only the four clips of REDS4, if the folder is called REDS4 and holds clips of REDS."""
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
    """Return the last part of each URI, with as many parts before it as make it unique; else the URI."""
    above = [redacted(storage.resolve(dataset.uri)).rstrip("/").split("/")[:-1] for dataset in datasets]
    names = []
    for dataset, mine in zip(datasets, above, strict=True):
        rivals = [theirs for other, theirs in zip(datasets, above, strict=True) if other.name == dataset.name]
        tails = range(1 + len(mine))
        unique = (tail for tail in tails if sum(_last(theirs, tail) == _last(mine, tail) for theirs in rivals) == 1)
        tail = next(unique, None)
        names.append(redacted(dataset.uri) if tail is None else "/".join([*_last(mine, tail), dataset.name]))
    return names


def _last(parts: Sequence[str], count: int) -> Sequence[str]:
    return parts[len(parts) - count :] if count <= len(parts) else parts


def frame_count(clip: FoundClip) -> int | None:
    """Return the number of frames of a folder; None for a video."""
    return None if clip.files is None else len(clip.files)


def stem(clip: FoundClip) -> str:
    """Return a clip's path, without a video's suffix."""
    folder, name = _parted(clip.path)
    return clip.path if clip.files is not None else _joined(folder, clip_name(name))


def _joined(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def _parted(path: str) -> tuple[str, str]:
    folder, _, name = path.rpartition("/")
    return folder, name
