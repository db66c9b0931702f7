"""From the sources that a user names to clips: every clip of them, and what cannot be used."""

import dataclasses
import functools
import math
import os
import re
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from mana_dist import storage
from mana_dist.data.manifest import Rejected
from mana_dist.errors import UserError, redacted
from mana_dist.footage import pairs, source_lists, vimeo
from mana_dist.footage.found import FoundClip, below, clips_in, upwards
from mana_dist.footage.layouts import lr_folder_of
from mana_dist.footage.look_up import Place, look_at, look_up
from mana_dist.footage.source_lists import Entry
from mana_dist.storage import ListedFile
from mana_dist.video.containers import VIDEO_SUFFIXES
from mana_dist.video.frame_folders import FRAME_SUFFIXES, clip_name
from mana_dist.video.frame_names import check_one_clip


@dataclass(frozen=True, kw_only=True, slots=True)
class Clip:
    """A video or a folder of frames, and the part of it to use."""

    uri: str
    files: tuple[str, ...] | None  # names of a folder's frame files in order; None for a video
    bytes: int | None  # size of the video, or of all frames together; None if a web server omits it
    modified: float | None  # newest change, seconds since the epoch; None if a web server omits it
    start: int = 0  # first frame to use
    stop: int | None = None  # frame before which to stop; None for the end
    downscale: int = 1  # factor by which frames are shrunk to become HR frames
    name: str  # name for people
    lr: str | None = None  # URI of the LR frames that were given with it; None: they are made of it
    lr_files: tuple[str, ...] | None = None  # as ``files``, of the LR frames

    @property
    def source(self) -> str:
        """Its URI without passwords, for records and people; unique in a dataset."""
        return redacted(self.uri)

    def used(self, frames: int) -> int:
        """Return how many of its ``frames`` are in the range to use."""
        return max(0, (frames if self.stop is None else min(frames, self.stop)) - self.start)


class Expansion(NamedTuple):
    """The clips of some sources."""

    clips: list[Clip]  # every clip once, in the order of the arguments; those of one argument are sorted by URI
    rejected: list[Rejected]  # sources without a clip, with the reasons
    notes: list[str]  # lines for people about what was left out on purpose
    looked_at: frozenset[str]  # all URIs in the arguments and in lists, without passwords


def expand(
    arguments: Iterable[str],
    *,
    start: int = 0,
    stop: int | None = None,
    downscale: int = 1,
    as_truth: bool = False,
    pairs_at: int | None = None,
    paired: Mapping[str, str] | None = None,
) -> Expansion:
    """Return the clips that ``arguments`` name.

    An argument is a video, a folder (see :func:`mana_dist.footage.found.clips_in`), a pattern with '*', '?', '[…]' or
    '**' if nothing has that very name, a list (see :func:`source_lists.read_list`), or one of Vimeo90K's lists,
    ``sep_trainlist.txt`` or ``sep_testlist.txt``. A folder with ``sep_trainlist.txt`` has the septuplets of that list
    alone, because those for testing must never be trained on.

    Folders are listed instead of requesting clip after clip.

    Args:
        arguments: local paths or URIs.
        start: first frame to use of clips whose frames no list chooses.
        stop: frame before which to stop in those; None for the end.
        downscale: factor by which frames are shrunk, unless a list gives one.
        as_truth: reject LR frames, and ground truth beside its LR frames.
        pairs_at: HR side over LR side of pairs: every clip is HR frames with the LR frames that were given with them,
            by the layouts of datasets or a list; what is in no pair is rejected. None: no pairs.
        paired: sources of HR clips with those of their LR clips, as in a list.

    Raises:
        UserError: a wrong line in a list, a wrong pattern, a clip that is named twice with different frames.
    """
    entries = [Entry(storage.resolve(uri), start, stop, downscale, "the command line") for uri in arguments]
    expander = _Expander()
    for entry, place in zip(entries, look_up([entry.uri for entry in entries]), strict=True):
        expander.take(entry, place)
    if as_truth and pairs_at is None:
        expander.reject_pairs()
    clips = [clip for clip, _ in expander.named.values()]
    if pairs_at is not None:
        there = {clip.source: clip for clip in clips}
        clips, alone = pairs.join(there, [*expander.listed, *(paired or {}).items()], pairs_at)
        expander.rejected += alone
        expander.named = {clip.source: expander.named[clip.source] for clip in clips}
    elif expander.listed:
        raise UserError(
            f"{expander.listed[0][0]}: a list names it as one of a pair (hr, lr), which only mana ingest --pairs takes"
        )
    rejected = {item.source: item for item in expander.rejected if item.source not in expander.named}
    return Expansion(clips, list(rejected.values()), list(dict.fromkeys(expander.notes)), frozenset(expander.looked_at))


@dataclass
class _Expander:
    # By Clip.source, with the argument or line that named it.
    named: dict[str, tuple[Clip, str]] = field(default_factory=dict)
    rejected: list[Rejected] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    looked_at: set[str] = field(default_factory=set)
    listed: list[tuple[str, str]] = field(default_factory=list)  # sources of pairs in lists
    _training: dict[str, frozenset[str]] = field(default_factory=dict)  # training lists by Vimeo90K's folder
    _low: dict[str, str] = field(default_factory=dict)  # folders that mark clips as LR frames, by the clips' URIs

    def take(self, entry: Entry, place: Place, *, within_list: bool = False) -> None:
        """Add the clips of a source, or the reason why there are none."""
        self.looked_at.add(redacted(entry.uri))
        try:
            self._take(entry, place, within_list=within_list)
        except OSError as error:  # from reading a list
            self._reject(entry.uri, f"cannot be read ({error})")

    def _take(self, entry: Entry, place: Place, *, within_list: bool) -> None:
        uri = entry.uri
        if place.error:
            self._reject(uri, f"cannot be read ({place.error})")
        elif place.missing:
            if storage.has_wildcards(uri):
                self._take_pattern(entry)
            else:
                self._reject(uri, "does not exist")
        elif place.files is not None:
            self._take_folder(entry, place)
        elif source_lists.is_list(uri):
            if within_list:
                raise UserError(f"{entry.origin}: {uri} is a list; a list cannot name lists, name it as --source")
            self._take_list(entry)
        elif uri.lower().endswith(FRAME_SUFFIXES):
            self._reject(uri, "is a picture; name the folder of frames")
        elif place.file is not None:
            self._add(entry, uri, [FoundClip("", None, place.file.bytes, place.file.modified)])

    def _take_folder(self, entry: Entry, place: Place) -> None:
        files = place.files or ()
        self._reject_unreadable(place)
        found = self._clips_in(entry.uri, files)
        if not found:
            self._reject(entry.uri, "no videos and no PNG or JPEG frames in this folder or below")
        roots = [below(entry.uri, root) for root in vimeo.roots_in(files)]
        for root in roots:
            there = {below(entry.uri, clip.path) for clip in found}
            self._reject_missing(root, self._names_of(root), there, vimeo.TRAINING)
        named_itself = any(not clip.path for clip in found)
        usable = self._to_train_on(entry.uri, found, roots if named_itself else [*roots, *vimeo.roots_above(entry.uri)])
        if found and not usable:
            self._reject(entry.uri, f"holds no septuplet of {vimeo.TRAINING}")
        self._add(entry, entry.uri, usable)

    def _take_pattern(self, entry: Entry) -> None:
        folder, pattern = storage.split_pattern(entry.uri)
        place = look_at(folder)
        if place.error:
            self._reject(entry.uri, f"cannot be read ({place.error})")
            return
        self._reject_unreadable(place)
        files = place.files or ()
        in_matched, matched = _split_by(pattern, files)
        spelled = os.path.splitext(entry.uri)[1]
        lists = [below(folder, file.path) for file in matched if spelled and source_lists.is_list(file.path)]
        suffixes = VIDEO_SUFFIXES if not spelled or storage.has_wildcards(spelled) else (spelled.lower(),)
        skipped = (*FRAME_SUFFIXES, *source_lists.LIST_SUFFIXES)
        found = self._clips_in(folder, in_matched)
        for file in matched:
            if file.path.lower().endswith(suffixes) and not file.path.lower().endswith(skipped):
                found.append(FoundClip(file.path, None, file.bytes, file.modified))
        roots = [below(folder, root) for root in vimeo.roots_in(files)]
        usable = self._to_train_on(folder, found, [*roots, *vimeo.roots_above(folder)])
        if not usable and not lists:
            self._reject(entry.uri, "does not exist, and as a pattern it matches no video and no folder of frames")
        self._add(entry, folder, usable)
        for uri in sorted(lists):
            self._take_list(dataclasses.replace(entry, uri=uri))

    def _take_list(self, entry: Entry) -> None:
        if vimeo.is_list(entry.uri):
            self._take_septuplets(entry, vimeo.read_names(entry.uri))
            return
        entries = sorted(source_lists.read_list(entry), key=lambda item: item.uri)
        if not entries:
            self._reject(entry.uri, "a list that names no source")
        self.listed += [(redacted(item.uri), redacted(item.lr)) for item in entries if item.lr]
        entries += [dataclasses.replace(item, uri=item.lr) for item in entries if item.lr]
        for item, place in zip(entries, look_up([item.uri for item in entries]), strict=True):
            self.take(item, place, within_list=True)

    def _take_septuplets(self, entry: Entry, names: Sequence[str]) -> None:
        root, _, name_of_list = entry.uri.rpartition("/")
        place = look_at(below(root, vimeo.SEQUENCES))
        if place.files is None:
            self._reject(entry.uri, place.error or f"there is no folder {vimeo.SEQUENCES} beside it")
            return
        self._reject_unreadable(place)
        there = {below(place.uri, clip.path): clip for clip in self._clips_in(place.uri, place.files)}
        self._reject_missing(root, names, there.keys(), name_of_list)
        wanted = {below(place.uri, name) for name in names}
        self._add(entry, place.uri, [clip for uri, clip in there.items() if uri in wanted])

    def reject_pairs(self) -> None:
        """Reject LR frames and the ground truth beside them, by their folders."""
        folders: dict[str, str] = {}
        low = dict(self._low)
        for clip, truth, _ in pairs.truths_among([clip for clip, _ in self.named.values()]):
            mend = f"add --pairs to train on both, or name {truth.hr} alone, and LR frames are made of it"
            folders[truth.lr] = f"holds the LR frames of {truth.hr}; {mend}"
            folders.setdefault(truth.hr, f"has LR frames beside it, in {truth.lr}; {mend}")
            low.pop(clip.uri, None)
        for folder in low.values():
            reason = "a folder of LR frames, which are no ground truth; name the folder of the HR frames"
            folders.setdefault(folder, reason)
        for folder, reason in folders.items():
            self._reject(folder, reason)
        self.named = {
            uri: named for uri, named in self.named.items() if not any(above in folders for above in upwards(uri))
        }

    def _to_train_on(self, folder: str, found: list[FoundClip], roots: Iterable[str]) -> list[FoundClip]:
        """Return the clips in ``folder`` without Vimeo90K's (at ``roots``) that are not in its training list."""
        for root in roots:
            sequences, names = f"{root}/{vimeo.SEQUENCES}/", self._names_of(root)
            used = []
            inside = left_out = 0
            for clip in found:
                before, _, name = below(folder, clip.path).partition(sequences)
                inside += not before
                if before or name in names:
                    used.append(clip)
                else:
                    left_out += 1
            if left_out:
                self.notes.append(
                    f"{root}: {inside - left_out} septuplets of {vimeo.TRAINING}; {left_out} others, "
                    "among them those to test on, are left out"
                )
            found = used
        return found

    def _names_of(self, root: str) -> frozenset[str]:
        if root not in self._training:
            self._training[root] = frozenset(vimeo.read_names(f"{root}/{vimeo.TRAINING}"))
        return self._training[root]

    def _clips_in(self, folder: str, files: Iterable[ListedFile]) -> list[FoundClip]:
        found, previews = clips_in(files)
        if previews:
            more = f" and {len(previews) - 1} folders more" if previews[1:] else ""
            self.notes.append(
                f"{below(folder, previews[0])}{more}: pictures beside or below videos are taken for previews, left out"
            )
        return found

    def _reject_missing(self, root: str, names: Iterable[str], there: Container[str], name_of_list: str) -> None:
        for name in sorted(set(names)):
            uri = f"{root}/{vimeo.SEQUENCES}/{name}"
            if uri not in there:
                self._reject(uri, f"is in {name_of_list}, but there are no frames")

    def _reject_unreadable(self, place: Place) -> None:
        for uri, reason in place.unreadable:
            self._reject(uri, f"cannot be read ({reason})")

    def _reject(self, uri: str, reason: str) -> None:
        self.rejected.append(Rejected(uri.encode(errors="backslashreplace").decode(), reason))

    def _add(self, entry: Entry, folder: str, found: Iterable[FoundClip]) -> None:
        for clip in sorted(found, key=lambda clip: clip.path):
            uri = below(folder, clip.path)
            if not all(map(_is_text, (uri, *(clip.files or ())))):
                self._reject(uri, "its name is not UTF-8; rename it")
                continue
            try:
                check_one_clip(uri, clip.files or ())
            except UserError as error:
                self._reject(uri, str(error).removeprefix(f"{uri}: "))
                continue
            made = Clip(
                uri=uri,
                files=clip.files,
                bytes=clip.bytes,
                modified=_comparable(uri, clip.modified),
                start=entry.start,
                stop=entry.stop,
                downscale=entry.downscale,
                name=_name(uri, is_video=clip.files is None),
            )
            if (lr := lr_folder_of(folder, clip)) is not None:
                self._low[uri] = f"{uri}/".rpartition(f"/{lr}/")[0] + f"/{lr}"
            first, origin = self.named.setdefault(made.source, (made, entry.origin))
            if first.uri != uri:
                raise UserError(
                    f"{uri}: two sources differ in what is secret alone ({origin}; {entry.origin}), and that is not "
                    "recorded; ingest a copy of one of them"
                )
            if (first.start, first.stop, first.downscale) != (made.start, made.stop, made.downscale):
                raise UserError(
                    f"{uri}: named twice, with different frames or downscale ({origin}; {entry.origin}); "
                    "a dataset uses a source in one way, name it once"
                )


def _split_by(pattern: re.Pattern[str], files: Iterable[ListedFile]) -> tuple[list[ListedFile], list[ListedFile]]:
    """Return the files below folders that match, at any depth, and the other files that match themselves."""

    @functools.cache
    def matches(folder: str) -> bool:
        return any(map(pattern.fullmatch, upwards(folder)))

    inside, matched = [], []
    for file in files:
        if matches(file.path.rpartition("/")[0]):
            inside.append(file)
        elif pattern.fullmatch(file.path):
            matched.append(file)
    return inside, matched


def _name(uri: str, *, is_video: bool) -> str:
    *_, parent, group, name = ("", "", *uri.split("/"))
    if not is_video and parent == vimeo.SEQUENCES:
        return f"{group}/{name}"
    return clip_name(uri) if is_video else name


def _comparable(uri: str, modified: float | None) -> float | None:
    """Return a time in whole seconds for remote files: many S3 servers list fractions of them, but HEAD gives none."""
    return float(math.floor(modified)) if modified is not None and storage.is_remote(uri) else modified


def _is_text(name: str) -> bool:
    """Return whether a name is valid UTF-8: names of local files may have any bytes."""
    return name.isascii() or not any("\ud800" <= character <= "\udfff" for character in name)
