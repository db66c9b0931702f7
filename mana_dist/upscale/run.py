"""A video upscaled in one process."""

import itertools
import os
from collections.abc import Iterator, Sequence

import av

from mana_dist import model_folder
from mana_dist.errors import UserError
from mana_dist.progress import Progress
from mana_dist.upscale import job, record
from mana_dist.upscale.destination import check_destination
from mana_dist.upscale.join import Summary, join
from mana_dist.upscale.segments import Segment
from mana_dist.upscale.settings import Settings
from mana_dist.upscale.source import segments_of, survey
from mana_dist.upscale.work import network, upscale_segments


def run(source: str, destination: str, model: str, settings: Settings, tracking_uri: str | None = None) -> None:
    """Upscale ``source`` into ``destination``, and say what became of it.

    Segments that an earlier run of the same job finished are taken over.

    Args:
        source: URI of a video file.
        destination: URI of the file to write, of a folder with codec png.
        model: as for :func:`mana_dist.model_folder.load`.
        settings: checked already.
        tracking_uri: of MLflow, for names in its registry.

    Raises:
        UserError: a mistake of the user's, or the source or the destination fail.
    """
    check_destination(destination, source, settings)
    try:
        _run(source, destination, model, settings, tracking_uri)
    except OSError as error:
        raise UserError(f"{error.strerror or error}; the same command goes on from here") from error


def _run(source: str, destination: str, model: str, settings: Settings, tracking_uri: str | None) -> None:
    surveyed = survey(source)
    loaded = model_folder.load_identified(model, tracking_uri)
    placed = network(loaded.model, settings, surveyed)
    segments = segments_of(surveyed, placed.frames, settings.segment)
    folder = job.work_folder(destination)
    with job.opened(folder, job.identity(surveyed, loaded.sha256, settings, placed)):
        missing = [segment for segment in segments if record.read(folder, segment) is None]
        begin = missing[0].start if missing else surveyed.frames
        if len(missing) < len(segments):
            print(f"going on: {len(segments) - len(missing)} of {len(segments)} segments were finished before")
        progress = Progress(os.path.basename(destination.rstrip("/")), max(surveyed.frames - begin, 0))
        for stretch in _stretches(missing):
            upscale_segments(surveyed, stretch, placed, settings, folder, progress.step)
        progress.close()
        try:
            summary = join(surveyed, segments, folder, destination, settings)
        except (OSError, av.FFmpegError) as error:
            raise UserError(
                f"{destination}: cannot be written ({error.strerror or error}); what is done stays in {folder}, "
                "and the same command goes on from there"
            ) from error
    job.finish(folder)
    _tell(destination, summary, progress, placed.device, settings)


def _stretches(segments: Sequence[Segment]) -> Iterator[list[Segment]]:
    """Segments that follow each other, together."""
    for _, group in itertools.groupby(enumerate(segments), lambda item: item[1].number - item[0]):
        yield [segment for _, segment in group]


def _tell(destination: str, summary: Summary, progress: Progress, device: str, settings: Settings) -> None:
    shots = f", {summary.cuts + 1} shots" if summary.cuts else ""
    print(
        f"{destination}: {summary.frames} frames in {progress.seconds:.1f} s ({progress.rate:.2f} frames/s on {device})"
        f"; {summary.width}x{summary.height}, {settings.codec}{shots}"
    )
    for extra in summary.extras:
        print(extra)
    if summary.left_out:
        print(f"not carried over, since the result's container does not take it: {', '.join(summary.left_out)}")
    if summary.stopped:
        print(summary.stopped)
