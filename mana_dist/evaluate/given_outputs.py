"""Another method's output, as folders of frames or videos: ``frames:NAME=URI``."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from mana_dist import storage
from mana_dist.errors import UserError
from mana_dist.evaluate.datasets import frame_count, stem
from mana_dist.evaluate.scored_clips import Clip, LrFrame, count_frames
from mana_dist.footage.found import below, clips_in, outside
from mana_dist.model.inference import Frame
from mana_dist.video import reading
from mana_dist.video.frame_names import check_one_clip

FRAMES_SCHEME = "frames:"


@dataclass(frozen=True)
class Output:
    """What a method made of a clip.

    Attributes:
        path: below the method's URI, without a video's suffix; empty for that itself.
        uri: a video, or a folder of frames.
        frames: how many of a folder; None for a video.
    """

    path: str
    uri: str
    frames: int | None


@dataclass(frozen=True)
class Outputs:
    """A method of which there are only the frames that it gave.

    Attributes:
        name: NAME of ``frames:NAME=URI``.
        clips: names of the clips.
        found: what there is of each, in the same order.
    """

    name: str
    clips: tuple[str, ...]
    found: tuple[Output, ...]

    def upscale(self, clip: Clip, frames: Iterable[LrFrame], wanted: range, device: str) -> Iterator[Frame]:
        """The wanted frames, from the file; of the size that they have there.

        A clip's output may hold a frame for each of the clip, for each of those that the methods see, or for each
        scored one.

        Raises:
            UserError: unreadable, or another number of frames.
        """
        output = self.found[self.clips.index(clip.name)]
        count = count_frames(output.uri) if output.frames is None else output.frames
        total = clip.total if clip.exact and clip.total is not None else count_frames(clip.uri)
        start = _first_frame(self.name, output.uri, count, total, clip)
        scored = clip.subset.of(clip.within(total))
        numbers = range(len(scored)) if start is None else range(start + scored.start, start + scored.stop)
        return _of_those_there(output.uri, numbers, scored, frames)


def find(method: str, clips: Sequence[Clip], without: str = "") -> Outputs:
    """The outputs that ``frames:NAME=URI`` means, of every clip.

    They are matched by the clip's name, its path in the dataset, with or without the dataset's name before it, or the
    name of its folder; the first of these that fits. Folders above are looked through.

    Args:
        method: as the command line has it.
        clips: of which there must be outputs.
        without: the folder that the report goes to; what lies there is no output. Where it is the outputs' own folder,
            only what lies directly in it is none. Empty: none.

    Raises:
        UserError: not written like that, unreadable, or for some clip there is no output, or more than one, or the
            number of frames does not fit.
    """
    name, equals, uri = method.removeprefix(FRAMES_SCHEME).partition("=")
    if not (name and equals and uri):
        raise UserError(f"--method {method}: write frames:NAME=URI, like frames:EDVR=results/edvr")
    there = {output.path: output for output in _outputs_at(method, uri, without)}
    found: list[Output] = []
    taken: dict[str, str] = {}
    for clip in clips:
        output = _match(method, clip, there, alone=len(clips) == 1)
        other = taken.setdefault(output.uri, clip.name)
        if other != clip.name:
            raise UserError(
                f"--method {method}: {output.uri} is the only output for both {other} and {clip.name}; "
                f"put each into a folder named like its dataset, as {clip.dataset}/{clip.path}"
            )
        if output.frames is not None and clip.exact and clip.total is not None:
            _first_frame(name, output.uri, output.frames, clip.total, clip)
        found.append(output)
    return Outputs(name, tuple(clip.name for clip in clips), tuple(found))


def _outputs_at(method: str, uri: str, without: str) -> list[Output]:
    root = storage.resolve(uri)  # the same for workers with another working folder
    try:
        if storage.is_folder(uri):
            files = storage.list_files(root)
            same = bool(without) and storage.resolve(without) == root
            clips, _ = clips_in([file for file in files if "/" in file.path] if same else outside(root, files, without))
            for clip in clips:
                check_one_clip(below(root, clip.path), clip.files or ())
            return [Output(stem(clip), below(root, clip.path), frame_count(clip)) for clip in clips]
        if storage.exists(uri):
            return [Output("", root, None)]
    except OSError as error:
        raise UserError(f"--method {method}: {uri} cannot be read ({error})") from error
    raise UserError(f"--method {method}: {uri} is no file or folder")


def _match(method: str, clip: Clip, there: Mapping[str, Output], *, alone: bool) -> Output:
    """The output of a clip; ``there`` is all there is, by path."""
    keys = list(dict.fromkeys([clip.name, f"{clip.dataset}/{clip.path}", clip.path, clip.short_name]))
    for key in filter(None, keys):
        if key in there:
            return there[key]
        fitting = [output for path, output in there.items() if path.endswith(f"/{key}")]
        if len(fitting) > 1:
            raise UserError(
                f"--method {method}: {fitting[0].uri} and {fitting[1].uri} both fit clip {clip.name}; "
                "name the folder of one of them"
            )
        if fitting:
            return fitting[0]
    if alone and "" in there:
        return there[""]
    raise UserError(
        f"--method {method}: no folder of frames (PNG, JPEG) and no video there is called {keys[0]}, "
        f"like the clip {clip.uri}"
    )


def _first_frame(name: str, uri: str, count: int, total: int, clip: Clip) -> int | None:
    """Which of the output's frames is the first that the methods see; None: it has the scored frames alone."""
    seen = clip.within(total)
    scored = len(clip.subset.of(seen))
    if count == total:
        return clip.start
    if count == seen:
        return 0
    if count == scored:
        return None
    fewer = seen - count
    hint = ""
    if count == 1:
        hint = "; if it is the centre frame, add --frame-subset centre"
    elif fewer > 0 and fewer % 2 == 0:
        hint = f"; if it leaves out {fewer // 2} at each end, add --frame-subset inner:{fewer // 2} for all methods"
    raise UserError(f"{name}: {uri} has {count} frames, but the clip {clip.uri} has {seen}{hint}")


def _of_those_there(uri: str, numbers: range, wanted: range, frames: Iterable[LrFrame]) -> Iterator[Frame]:
    """The frames ``numbers`` at ``uri``, made of those ``wanted``, but for those that are not among ``frames``."""
    made = zip(wanted, reading.read_places(uri, numbers.start, numbers.stop), strict=False)
    for frame in frames:
        if frame.number in wanted:
            there = next((pixels for number, pixels in made if number == frame.number), None)
            if there is None:
                raise UserError(f"{uri}: its picture of frame {frame.number} cannot be read")
            yield there
