"""Report of a run: lines while it works, and ``upscale.json`` beside the results."""

import dataclasses
import json
import time
from collections.abc import Mapping, Sequence

from mana_dist import __version__, storage
from mana_dist.console import log
from mana_dist.data.manifest import Rejected
from mana_dist.errors import UserError, redacted
from mana_dist.footage.rejected_lines import log_rejected
from mana_dist.progress import count, duration
from mana_dist.upscale.bucket.finished import as_json
from mana_dist.upscale.bucket.output_names import Output
from mana_dist.upscale.bucket.segment_tasks import Recipe, Video
from mana_dist.upscale.join import Summary
from mana_dist.upscale.segments import Segment

REPORT_NAME = "upscale.json"
_EVERY_LINE = 40  # segments up to which each gets a line
_SECONDS = 5.0  # between lines of a longer job


class SegmentLines:
    """The lines about finished segments, with rate and time left.

    Args:
        todo: segments to do, by the keys of their videos.
        videos: all that have any, by their keys.
    """

    def __init__(self, videos: Sequence[Video], todo: Mapping[str, Sequence[Segment]]) -> None:
        self._total = sum(map(len, todo.values()))
        self._left = sum(video.frames(segment) for video in videos for segment in todo[video.output.key])
        self._number = self._frames = 0
        self._begun = self._printed = time.monotonic()

    def add(self, video: Video, segment: Segment) -> None:
        """Count a finished segment, and log it."""
        self._number += 1
        self._frames += video.frames(segment)
        now = time.monotonic()
        if self._total <= _EVERY_LINE or now - self._printed > _SECONDS or self._number == self._total:
            log.info(f"[{self._number}/{self._total}] {video.label(segment)}; {self._rate(now)}")
            self._printed = now

    @property
    def done_ratio(self) -> float:
        """Share of the frames to do that are done."""
        return self._frames / max(self._left, 1)

    def _rate(self, now: float) -> str:
        rate = self._frames / max(now - self._begun, 1e-9)
        line = f"{self._frames} frames, {rate:.2f} frames/s"
        left = (self._left - self._frames) / max(rate, 1e-9)
        return f"{line}, ETA {duration(left)}" if self._number < self._total else line


def check_free(out: str) -> None:
    """Check that the report does not replace a file of another kind.

    Raises:
        UserError: it would.
        OSError: the storage failed.
    """
    uri = storage.join(out, REPORT_NAME)
    try:
        ours = "mana_dist" in json.loads(storage.read_bytes(uri))
    except FileNotFoundError:
        return
    except (ValueError, TypeError):
        ours = False
    if not ours:
        raise UserError(
            f"{uri}: is there already, and no report of this command; move it, or replace it with --overwrite"
        )


def log_result(output: Output, summary: Summary) -> None:
    """Log that a result is in its place."""
    left_out = f"; left out: {', '.join(summary.left_out)}" if summary.left_out else ""
    stopped = "".join(f"; {line}" for line in (summary.note, summary.stopped) if line)
    size = f"{summary.width}x{summary.height}"
    log.info(f"{output.uri}: {count(summary.frames, 'frame')}, {size}{left_out}{stopped}")


@dataclasses.dataclass(frozen=True)
class BucketReport:
    """The outcome of all sources.

    Attributes:
        results: each finished one.
        rejected: sources that cannot be upscaled, and why.
        failed: sources whose work is not finished, and why; the same command tries them again.
    """

    results: Sequence[tuple[Output, Summary]]
    rejected: Sequence[Rejected]
    failed: Sequence[Rejected]

    def write(self, out: str, recipe: Recipe) -> None:
        """Write ``upscale.json`` into the folder ``out``.

        Raises:
            OSError: the storage failed.
        """
        values = {
            "mana_dist": __version__,
            "model": {"uri": redacted(recipe.model), "sha256": recipe.sha256},
            "settings": dataclasses.asdict(recipe.settings) | {"precision": recipe.precision},
            "results": [as_json(*result) for result in sorted(self.results, key=lambda pair: pair[0].name)],
            "rejected": [dataclasses.asdict(item) for item in self.rejected],
            "failed": [dataclasses.asdict(item) for item in self.failed],
        }
        storage.write_bytes(storage.join(out, REPORT_NAME), json.dumps(values, indent=1).encode())

    def log(self, out: str, there: int, seconds: float) -> None:
        """Log the summary; ``there`` results were there before."""
        log_rejected(self.rejected, REPORT_NAME)
        log_rejected(self.failed, REPORT_NAME, "failed")
        frames = sum(summary.frames for _, summary in self.results)
        before = f" ({there} there before)" if there else ""
        failed = f", {len(self.failed)} failed" if self.failed else ""
        log.info(
            f"{out}: {count(len(self.results), 'video')}{before}, {count(frames, 'frame')}; "
            f"{len(self.rejected)} rejected{failed}; {seconds:.1f} s"
        )
