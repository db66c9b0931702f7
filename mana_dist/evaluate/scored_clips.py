"""The clips of an evaluation: their frames, and which of them are scored."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from mana_dist.errors import UserError, redacted
from mana_dist.evaluate.datasets import PLAIN, Dataset, Pair
from mana_dist.evaluate.subset import FrameSubset
from mana_dist.footage.lookalikes import Seen, lr_among
from mana_dist.model.inference import Frame
from mana_dist.video import frame_folders, reading
from mana_dist.video.frame_names import breaks_in, describe_breaks
from mana_dist.video.header_info import probe_header


class LrFrame(NamedTuple):
    """An LR frame that a method sees.

    Attributes:
        number: in the clip, from the first used frame.
        run: number of its run; between two runs, frames are missing or cannot be read.
        pixels: (h, w, 3) uint8 RGB.
    """

    number: int
    run: int
    pixels: Frame


@dataclass(frozen=True, kw_only=True)
class Clip:
    """The frames ``start`` to ``stop`` (excluded; None: the end) of a video or of a folder of frames.

    Attributes:
        name: for people and for ``metrics.json``; unique in an evaluation.
        dataset: name of its dataset.
        path: below the dataset's URI; empty where the dataset is the clip.
        uri: the ground truth: the video file or the folder.
        lr: URI of the given LR frames, a video or a folder; None: they are made.
        start: first frame; the methods see none before it.
        stop: the frame after the last that they see.
        subset: the frames in the range that are scored.
        total: number of frames of the whole clip by its header; None: unknown without decoding.
        exact: whether ``total`` is certain, as for a folder; a video's header may be wrong.
    """

    name: str
    dataset: str
    path: str
    uri: str
    lr: str | None
    start: int
    stop: int | None
    subset: FrameSubset
    total: int | None
    exact: bool

    @property
    def short_name(self) -> str:
        """Name of its file without suffix, or of its folder."""
        return frame_folders.clip_name(self.path or self.uri)

    @property
    def length(self) -> int | None:
        """Number of frames in the range; None: unknown without decoding."""
        return None if self.total is None else self.within(self.total)

    def within(self, total: int) -> int:
        """Return the number of frames in the range, of ``total`` in the whole clip."""
        return max(0, (total if self.stop is None else min(self.stop, total)) - self.start)

    def count_all(self) -> int:
        """Count the frames of the whole clip; a video is decoded for that.

        Raises:
            UserError: unreadable.
        """
        return self.total if self.exact and self.total is not None else count_frames(self.uri)

    def scored(self) -> range:
        """Return the numbers of the scored frames, from the range's first frame; counts the clip where it must.

        Raises:
            UserError: none is left.
        """
        if not self.subset.needs_length:
            return self.subset.of(None)
        length = self.within(self.count_all())
        scored = self.subset.of(length)
        if not scored:
            raise UserError(f"{self.uri}: {length} frames, none of which --frame-subset {self.subset} leaves over")
        return scored

    def frames(self, damaged: Callable[[str], None] | None = None) -> Iterator[Frame | None]:
        """Read the HR frames, whole; None for a picture that cannot be read.

        Args:
            damaged: takes a line on the damage of a clip that still gives frames.

        Raises:
            UserError: unreadable, or there are no frames in the range.
        """
        count = 0
        for frame in reading.read_places(self.uri, self.start, self.stop, damaged):
            yield frame
            count += 1
        if not count:
            raise UserError(f"{self.uri}: has no frame {self.start}; name an earlier START in --frames")

    def breaks(self, damaged: Callable[[str], None]) -> frozenset[int]:
        """Return the numbers of the frames, from the range's first, before which others are missing.

        Args:
            damaged: takes a line on where they are missing.

        Raises:
            UserError: unreadable.
        """
        if not frame_folders.is_folder(self.uri):
            return frozenset()
        names = [file.rpartition("/")[2] for file in frame_folders.frame_files(self.uri)][self.start : self.stop]
        breaks = breaks_in(names)
        if breaks:
            damaged(f"{describe_breaks(names, breaks)}; no window spans that")
        return frozenset(breaks)

    def lr_frames(self, damaged: Callable[[str], None] | None = None) -> Iterator[Frame | None]:
        """Read the given LR frames; None for a picture that cannot be read.

        Args:
            damaged: takes a line on the damage of a clip that still gives frames.

        Raises:
            UserError: unreadable.
        """
        if self.lr is None:
            raise ValueError(f"{self.name}: its LR frames are not given")
        return reading.read_places(self.lr, self.start, self.stop, damaged)


def inside(frame: Frame, border: int) -> Frame:
    """Return the frame without ``border`` pixels along each border."""
    return frame[border : frame.shape[0] - border, border : frame.shape[1] - border]


def count_frames(uri: str) -> int:
    """Count the frames of a folder, or of a video, which is decoded for that: headers may be wrong.

    Raises:
        UserError: unreadable.
    """
    if frame_folders.is_folder(uri):
        return len(frame_folders.frame_files(uri))
    return sum(1 for _ in reading.read_frames(uri))


def find_clips(
    datasets: Sequence[Dataset], start: int = 0, stop: int | None = None, subset: FrameSubset | None = None
) -> list[Clip]:
    """Return the clips of ``datasets``, in that order.

    Args:
        datasets: with unique names.
        start: first frame of each clip.
        stop: the frame after the last; None for the end.
        subset: the frames that are scored; None: those that the field scores of each dataset.

    Raises:
        UserError: a video's header cannot be read, a clip has no frame in the range, or one holds the LR frames of
            another.
    """
    entries = [(dataset, pair) for dataset in datasets for pair in dataset.clips]
    clips = []
    seen: dict[str, list[Seen]] = {}
    for (dataset, pair), name in zip(entries, _unique_names(datasets), strict=True):
        try:
            info = probe_header(pair.uri, None) if pair.frames is None else None
        except OSError as error:
            raise UserError(f"{pair.uri}: cannot be read ({error})") from error
        total = pair.frames if info is None else info.frames
        size = None if info is None else (info.width, info.height)
        if dataset.layout == PLAIN:  # in other layouts the folders' names say which hold LR frames
            seen.setdefault(dataset.uri, []).append(Seen(pair.path, pair.uri, total, pair.first, size))
        if total is not None and start >= total:
            raise UserError(
                f"{pair.uri}: has {total} frames, so none from {start} on; name an earlier START in --frames"
            )
        chosen = subset or dataset.subset
        clip = Clip(
            name=name,
            dataset=dataset.name,
            path=pair.path,
            uri=pair.uri,
            lr=pair.lr,
            start=start,
            stop=stop,
            subset=chosen,
            total=total,
            exact=pair.frames is not None,
        )
        if clip.exact:
            clip.scored()  # a mistake is reported before any work
        clips.append(clip)
    for uri, members in seen.items():
        for high, low in lr_among(members):
            raise UserError(
                f"--data {uri}: {low.uri} holds the LR frames of {high.uri}, by size and picture; put them into "
                "folders HR/CLIP and LR/CLIP, or name the folder of the ground truth alone"
            )
    return clips


def _unique_names(datasets: Sequence[Dataset]) -> list[str]:
    """Return short names where they are unique in a dataset, else paths; after the dataset's name where needed."""
    named = [(dataset, name, pair) for dataset in datasets for name, pair in _names_within(dataset)]
    count = Counter(name for _, name, _ in named)
    names = [name if count[name] == 1 or not pair.path else f"{dataset.name}/{name}" for dataset, name, pair in named]
    count = Counter(names)
    return [name if count[name] == 1 else redacted(pair.uri) for name, (_, _, pair) in zip(names, named, strict=True)]


def _names_within(dataset: Dataset) -> Iterator[tuple[str, Pair]]:
    short = [frame_folders.clip_name(pair.path) for pair in dataset.clips]
    whole = dataset.named_by_path or len(set(short)) < len(short)
    for name, pair in zip(short, dataset.clips, strict=True):
        yield _printable((pair.path if whole else name) or dataset.name), pair


def _printable(name: str) -> str:
    """Return a file's name with those bytes replaced that are not UTF-8, which cannot be written anywhere."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
