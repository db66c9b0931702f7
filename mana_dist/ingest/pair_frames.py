"""The frames of a pair, HR frames with the LR frames that were given with them, both in their order."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain

from mana_dist.footage.expand import Clip
from mana_dist.footage.pairs import MismatchError
from mana_dist.video.colours import Frame
from mana_dist.video.frame_folders import folder_frames
from mana_dist.video.frame_stream import NumberedFrame
from mana_dist.video.strict import Damage, Segment, numbered_frames

MEND = "mend or leave out the pair"


def size_problem(hr: tuple[int, int], lr: tuple[int, int], scale: int) -> str:
    """Return how LR frames of size ``lr``, width and height, do not fit HR frames; empty if they do."""
    width, height = (side // scale for side in hr)
    if lr == (width, height):
        return ""
    needed = f"frames of {hr[0]}x{hr[1]} need {width}x{height} at scale {scale}"
    return f"its LR frames are {lr[0]}x{lr[1]}; {needed}; {MEND}"


def frames_of(
    uri: str, files: Sequence[str] | None, clip: Clip, segment: Segment | None, damage: Damage | None
) -> Iterator[NumberedFrame]:
    """Return the frames of a video, or of a folder's ``files``, that a clip uses."""
    if files is not None:
        return folder_frames(uri, files, clip.start, clip.stop)
    return numbered_frames(uri, segment, start=clip.start, stop=clip.stop, damage=damage)


def pair_frames(clip: Clip, scale: int, damage: Mapping[str, Damage]) -> Iterator[tuple[int, Frame, Frame]]:
    """Yield the HR frames of a pair with their LR frames; what cannot be read of either is left out of both.

    Args:
        clip: a clip with LR frames.
        scale: HR side over LR side.
        damage: what is known to be damaged, by the videos' URIs.

    Raises:
        MismatchError: other sizes or other numbers of frames.
        DamageFound, UserError, OSError: as :func:`numbered_frames`.
    """
    lr_uri = str(clip.lr)
    high = frames_of(clip.uri, clip.files, clip, None, damage.get(clip.uri))
    low = frames_of(lr_uri, clip.lr_files, clip, None, damage.get(lr_uri))
    hr_end = lr_end = clip.start
    lr = next(low, None)
    for frame in high:
        hr_end = frame.number + 1
        while lr is not None and lr.number < frame.number:
            lr_end, lr = lr.number + 1, next(low, None)
        if lr is None or lr.number > frame.number:
            continue
        if problem := size_problem(frame.pixels.shape[1::-1], lr.pixels.shape[1::-1], scale):
            raise MismatchError(f"frame {frame.number}: {problem}")
        yield frame.number, frame.pixels, lr.pixels
    for left in chain([] if lr is None else [lr], low):
        lr_end = left.number + 1
    # Pictures that cannot be read count.
    hr_end, lr_end = (
        end if files is None else len(files[: clip.stop])
        for files, end in ((clip.files, hr_end), (clip.lr_files, lr_end))
    )
    if hr_end != lr_end and not any(damage[uri].reason for uri in (clip.uri, lr_uri) if uri in damage):
        raise MismatchError(f"has {hr_end} frames, and {lr_uri} {lr_end} LR frames; {MEND}")
