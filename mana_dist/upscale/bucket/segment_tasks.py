"""The tasks of the cluster: look at a video, upscale a segment, join a result. Nothing of Ray in it."""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from mana_dist import storage
from mana_dist.errors import UserError, one_line, redacted
from mana_dist.model.precision import Precision
from mana_dist.registry import model_folder
from mana_dist.storage.lease import Fence
from mana_dist.upscale import mark, segment_record
from mana_dist.upscale.bucket.output_names import Output
from mana_dist.upscale.config import Settings
from mana_dist.upscale.join import Summary, join
from mana_dist.upscale.segments import Segment
from mana_dist.upscale.source_video import SourceError, Survey, check_size, segments_of, survey
from mana_dist.upscale.upscale_segments import network, upscale_segments

RETRY_SECONDS = (2, 4, 8, 16, 30)
"""Pauses before a task is tried again whose storage failed: a minute in all."""

_T = TypeVar("_T")


@dataclass(frozen=True)
class Failure:
    """The reason why something was not done.

    Attributes:
        reason: one line.
        rejected: whether the source is to blame: another run would not help, nor another machine.
    """

    reason: str
    rejected: bool = False


@dataclass(frozen=True)
class Video:
    """A source whose packets were read, cut into segments.

    Attributes:
        output: its result.
        survey: survey of the source.
        segments: all of them.
        folder: URI of its work folder.
    """

    output: Output
    survey: Survey
    segments: tuple[Segment, ...]
    folder: str

    def frames(self, segment: Segment) -> int:
        """Return about how many frames a segment has."""
        return max((self.survey.frames if segment.stop is None else segment.stop) - segment.start, 0)

    def label(self, segment: Segment) -> str:
        """Return a segment's name for people."""
        part = f" segment {segment.number + 1}/{len(self.segments)}" if len(self.segments) > 1 else ""
        return f"{self.output.name}{part}"


@dataclass(frozen=True)
class Recipe:
    """The settings that all videos share.

    Attributes:
        model: the model's URI, which means the same weights on every machine.
        tracking_uri: URI of MLflow.
        sha256: SHA-256 of the weights.
        frames: T, of the network's window.
        scale: the network's.
        settings: ``device`` is ``cpu`` or ``cuda``.
        precision: what all workers compute in.
        fence: checks that the folder of the results is still this job's; None: nobody else works in it.
    """

    model: str
    tracking_uri: str
    sha256: str
    frames: int
    scale: int
    settings: Settings
    precision: Precision = "fp32"
    fence: Fence | None = None

    def check(self) -> None:
        """Make sure, before anything is written, that the folder of the results is this job's.

        Raises:
            LostError: it is another's.
            OSError: that cannot be found out.
        """
        if self.fence is not None:
            self.fence.check()


def inspect(output: Output, folder: str, recipe: Recipe) -> Video | Failure:
    """Read the packets of a video, and cut it into segments."""

    def looked() -> Video:
        found = survey(output.source, keep_gaps=recipe.settings.keep_gaps)
        check_size(found, recipe.settings, recipe.scale)
        return Video(output, found, segments_of(found, recipe.frames, recipe.settings.segment), folder)

    return _tried(looked, output.source, [output.source])


@dataclass
class Upscaler:
    """A worker, which holds the model.

    Attributes:
        recipe: what it does.
        pauses: seconds before each further try, where a storage failed.
    """

    recipe: Recipe
    pauses: Sequence[float] = RETRY_SECONDS
    _model: Any = field(default=None, init=False)

    def upscale(self, video: Video, segment: Segment, step: Callable[[], None] = lambda: None) -> Failure | None:
        """Upscale a segment into the video's work folder, calling ``step`` after every frame; None if it is done."""

        def upscaled() -> None:
            self.recipe.check()
            if segment_record.read(video.folder, segment) is None:  # else a process died right after
                settings = replace(self.recipe.settings, precision=self.recipe.precision)
                prepared = network(self._loaded(), settings, video.survey)
                upscale_segments(video.survey, [segment], prepared, self.recipe.settings, video.folder, step)

        result = _tried(upscaled, video.output.source, [video.output.source, video.folder], self.pauses)
        return result if isinstance(result, Failure) else None

    def _loaded(self) -> Any:
        if self._model is None:
            try:
                loaded = model_folder.load_identified(self.recipe.model, self.recipe.tracking_uri)
            except UserError as error:  # the driver could read it: no fault of the video
                raise OSError(one_line(error)) from error
            if loaded.sha256 != self.recipe.sha256:
                raise OSError(f"{self.recipe.model}: its weights are not those that the command began with")
            self._model = loaded.model
        return self._model


def finish(video: Video, recipe: Recipe) -> Summary | Failure:
    """Join the segments of a video into its result."""
    uri = video.output.uri

    def joined() -> Summary:
        if not storage.is_remote(uri):
            os.makedirs(os.path.dirname(uri), exist_ok=True)
        marked = mark.mark(recipe.sha256, video.survey.bytes, recipe.settings)
        return join(video.survey, video.segments, video.folder, uri, recipe.settings, recipe.check, marked)

    return _tried(joined, video.output.source, [video.output.source, uri])


def _tried(
    call: Callable[[], _T], source: str, touched: Sequence[str], pauses: Sequence[float] = RETRY_SECONDS
) -> _T | Failure:
    """Call ``call``, again after the ``pauses`` if it touches remote storage and that failed."""
    for pause in (*pauses, None):
        try:
            return call()
        except UserError as error:  # any but the source's own is of this machine, which may lack what others have
            reason = one_line(error).removeprefix(f"{redacted(source)}: ")
            return Failure(reason, rejected=isinstance(error, SourceError))
        except PermissionError as error:
            return Failure(f"permission denied ({one_line(error)}); mend that and run the same command again")
        except FileNotFoundError as error:
            return Failure(f"is gone ({one_line(error)})")
        except OSError as error:
            failure = Failure(one_line(error))
        except Exception as error:  # one video must not take the job down
            return Failure(f"{type(error).__name__}: {one_line(error)}")
        if pause is None or not any(map(storage.is_remote, touched)):
            break
        time.sleep(pause)
    return failure
