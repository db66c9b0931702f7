"""The method ``frames:NAME=URI``: another program's output, as folders of frames or videos."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from mana_dist import storage
from mana_dist.errors import UserError
from mana_dist.evaluate.config import FRAMES_SCHEME
from mana_dist.evaluate.datasets import frame_count, stem
from mana_dist.evaluate.scored_clips import Clip, LrFrame, count_frames
from mana_dist.footage.found import below, clips_in, outside
from mana_dist.model.inference import Frame
from mana_dist.video import reading
from mana_dist.video.frame_names import check_one_clip


@dataclass(frozen=True)
class Output:
    """A method's output for a clip.

    Attributes:
        path: below the method's URI, without a video's suffix; empty for that URI itself.
        uri: a video, or a folder of frames.
        frames: their number in a folder; None for a video.
    """

    path: str
    uri: str
    frames: int | None


@dataclass(frozen=True)
class Outputs:
    """A method of which we have only the frames.

    Attributes:
        name: NAME of ``frames:NAME=URI``.
        found: output for each clip, by the clip's name.
    """

    name: str
    found: Mapping[str, Output]

    def upscale(self, clip: Clip, frames: Iterable[LrFrame], wanted: range, device: str) -> Iterator[Frame]:
        """Read the wanted frames from the files, in the size that they have there.

        The output may have all frames of the clip, only those that the methods see, or only the scored ones.

        Raises:
            UserError: unreadable, or another number of frames.
        """
        output = self.found[clip.name]
        count = count_frames(output.uri) if output.frames is None else output.frames
        total = clip.count_all()
        start = _first_frame(self.name, output.uri, count, total, clip)
        scored = clip.subset.of(clip.within(total))
        numbers = range(len(scored)) if start is None else range(start + scored.start, start + scored.stop)
        return _read_wanted(output.uri, numbers, scored, frames)


def find(method: str, clips: Sequence[Clip], without: str = "") -> Outputs:
    """Find the outputs for every clip at the URI of ``frames:NAME=URI``.

    They are matched by the clip's name, its path in the dataset, with or without the dataset's name before it, or the
    name of its folder; the first of these that fits. They may lie in folders below the URI.

    Args:
        method: as the command line has it.
        clips: for which there must be outputs.
        without: the folder of the report, which is not searched; of the outputs' own folder, the subfolders are.
            Empty: none.

    Raises:
        UserError: another spelling, unreadable, or a clip without an output, with several, or with another number of
            frames.
    """
    name, equals, uri = method.removeprefix(FRAMES_SCHEME).partition("=")
    if not (name and equals and uri):
        raise UserError(f"--method {method}: write frames:NAME=URI, like frames:EDVR=results/edvr")
    there = {output.path: output for output in _outputs_at(method, uri, without)}
    found: dict[str, Output] = {}
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
        found[clip.name] = output
    return Outputs(name, found)


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
    """Return the output for a clip; ``there``: all outputs, by path."""
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
    """Return the number of the first frame in the output that the methods see; None: it has only the scored frames."""
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


def _read_wanted(uri: str, numbers: range, wanted: range, frames: Iterable[LrFrame]) -> Iterator[Frame]:
    """Read the frames ``numbers`` at ``uri``, made of the frames ``wanted``, except those missing in ``frames``."""
    made = zip(wanted, reading.read_places(uri, numbers.start, numbers.stop), strict=False)
    for frame in frames:
        if frame.number in wanted:
            there = next((pixels for number, pixels in made if number == frame.number), None)
            if there is None:
                raise UserError(f"{uri}: its picture of frame {frame.number} cannot be read")
            yield there
