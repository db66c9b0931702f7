"""Which clips an evaluation's ``--data`` means."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mana_dist import storage
from mana_dist.data import video
from mana_dist.data.degradation import crop_to_multiple
from mana_dist.data.sources import clips_at
from mana_dist.errors import UserError
from mana_dist.inference import Frame


@dataclass(frozen=True)
class Clip:
    """The frames ``start`` to ``stop`` (excluded; None: the end) of a video or of a folder of frames.

    Attributes:
        name: for people and for ``metrics.json``; unique in an evaluation.
        uri: the video file or the folder.
        start: first frame.
        stop: the frame after the last.
        length: frames in the range as far as the header tells, for the progress line; None if it does not.
    """

    name: str
    uri: str
    start: int
    stop: int | None
    length: int | None

    def frames(self) -> Iterator[Frame]:
        """The HR frames, cropped to multiples of 4.

        Raises:
            UserError: unreadable, or there are no frames in the range.
        """
        frames = video.read_frames(self.uri, self.start, self.stop)
        first = next(frames, None)
        if first is None:
            raise UserError(f"{self.uri}: has no frame {self.start}; name an earlier START in --frames")
        yield crop_to_multiple(first, 4)
        for frame in frames:
            yield crop_to_multiple(frame, 4)


def find_clips(uris: Sequence[str], start: int = 0, stop: int | None = None) -> list[Clip]:
    """The clips that lie at ``uris``, in the order given; within a folder, by name.

    Args:
        uris: video files, folders of frames, or folders that hold either at any depth; what a folder stands for is
            said at :func:`mana_dist.data.sources.clips_at`.
        start: first frame of each clip.
        stop: the frame after the last; None for the end.

    Raises:
        UserError: something is not there, cannot be read, or holds no clip.
    """
    found = [clip for uri in uris for clip in _clips_at(uri)]
    names = _unique_names(found)
    clips = []
    for name, uri in zip(names, found, strict=True):
        length = video.probe(uri).frames
        if length is not None:
            if start >= length:
                raise UserError(
                    f"{uri}: has {length} frames, so none from {start} on; name an earlier START in --frames"
                )
            length = min(length, stop if stop is not None else length) - start
        clips.append(Clip(name, uri, start, stop, length))
    return clips


def _clips_at(uri: str) -> list[str]:
    try:
        clips = clips_at(uri)
        missing = not clips and not storage.exists(uri)
    except OSError as error:
        raise UserError(f"--data {uri}: cannot be read ({error})") from error
    if missing:
        raise UserError(f"--data {uri}: no such file or folder")
    if not clips:
        raise UserError(f"--data {uri}: holds neither frames (PNG, JPEG) nor videos, nor does any folder in it")
    return clips


def _unique_names(uris: Sequence[str]) -> list[str]:
    """Short names where they tell clips apart, else the URIs."""
    short = [video.clip_name(uri) for uri in uris]
    count = Counter(short)
    names = [name if count[name] == 1 else uri for name, uri in zip(short, uris, strict=True)]
    for name, times in Counter(names).items():
        if times > 1:
            raise UserError(f"--data names {name} twice")
    return names
