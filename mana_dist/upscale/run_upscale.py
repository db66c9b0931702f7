"""A video upscaled in one process."""

import itertools
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import av

from mana_dist.console import log
from mana_dist.errors import UserError, terminable
from mana_dist.model.precision import PrecisionChoice
from mana_dist.model_names import PRETRAINED
from mana_dist.progress import LiveLine, count
from mana_dist.registry import model_folder, pretrained
from mana_dist.upscale import mark, segment_record, work_folder
from mana_dist.upscale.config import Settings
from mana_dist.upscale.destination import check_destination, clear_comparison, is_done
from mana_dist.upscale.join import Summary, join
from mana_dist.upscale.segments import Segment, within
from mana_dist.upscale.source_video import Survey, check_size, segments_of
from mana_dist.upscale.sources import survey_of, survey_within, wanted_frames
from mana_dist.upscale.upscale_segments import Network, network, upscale_segments

_USUAL = Settings()


@terminable()
def upscale(
    source: str,
    destination: str,
    model: str = PRETRAINED,
    settings: Settings = _USUAL,
    tracking_uri: str | None = None,
    *,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Summary | None:
    """Upscale ``source`` into ``destination``.

    Segments that an earlier run of the same job finished are taken over.

    Args:
        source: URI of a video file, or of a folder of PNG or JPEG frames.
        destination: URI of the file to write, of a folder with codec png.
        model: as for :func:`mana_dist.registry.model_folder.load`.
        settings: how to upscale and write.
        tracking_uri: URI of MLflow, for names in its registry.
        overwrite: whether what is there, and is not this very result, may be replaced.
        progress: called after every frame with the number of frames done, and of all that are expected.

    Returns:
        What was written; None where this very result was there already.

    Raises:
        UserError: a mistake of the user's, or the source or the destination fail.
    """
    settings.check()
    check_destination(destination, source, settings)
    pretrained.announce(model)
    with _errors(f"{source}: cannot be read"):
        whole = survey_of(source, settings)
    first, end = wanted_frames(whole, settings)
    surveyed = survey_within(whole, first, end)
    loaded = model_folder.load_identified(model, tracking_uri)
    check_size(surveyed, settings, loaded.config.model.scale)
    marked = mark.mark(loaded.sha256, surveyed.bytes, settings)
    with _errors(f"{destination}: cannot be looked at"):
        if is_done(destination, marked, surveyed.modified, settings, overwrite=overwrite):
            log.info(f"{destination}: is done already, by the same command")
            return None
    folder = work_folder.work_folder(destination)
    prepared, identity = _network_and_identity(loaded, surveyed, settings, folder)
    log.info(f"precision: {prepared.precision}")
    segments = within(segments_of(whole, prepared.frames, settings.segment), first, end)
    stays = f"what is done stays in {folder}, and the same command goes on from there"
    with _errors(f"{destination}: cannot be written"), work_folder.opened(folder, identity):
        sizes = segment_record.sizes(folder)
        missing = [segment for segment in segments if segment_record.read(folder, segment, sizes) is None]
        begin = max(missing[0].start - first, 0) if missing else surveyed.frames
        if len(missing) < len(segments):
            log.info(f"going on: {len(segments) - len(missing)} of {len(segments)} segments were finished before")
        live = LiveLine(os.path.basename(destination.rstrip("/")), max(surveyed.frames - begin, 0))
        place = ""

        def step() -> None:
            live.step()
            if progress is not None:
                progress(begin + live.count, surveyed.frames)

        try:
            with _errors(f"{source}: cannot be upscaled", stays):
                for stretch in _stretches(missing):
                    upscale_segments(surveyed, stretch, prepared, settings, folder, step)
            live.close()
            place = f"after the last of {count(surveyed.frames, 'frame')}, while they were joined"
            with _errors(f"{destination}: cannot be written", stays):
                if overwrite and not settings.compare:
                    clear_comparison(destination, marked)
                summary = join(surveyed, segments, folder, destination, settings, marked=marked)
        except (KeyboardInterrupt, SystemExit):
            place = place or f"at frame {begin + live.count} of about {surveyed.frames}"
            log.warning(f"stopped {place}; {stays}")
            raise
        shutil.rmtree(folder, ignore_errors=True)  # while it is held
    _log(destination, summary, live, f"{prepared.device} in {prepared.precision.precision}", settings)
    return summary


def _network_and_identity(
    loaded: model_folder.Loaded, surveyed: Survey, settings: Settings, folder: str
) -> tuple[Network, dict[str, Any]]:
    """Return the network and the job's identity; ``auto`` is what it was in the run that goes on."""
    prepared = network(loaded.model, settings, surveyed)
    identity = work_folder.identity(surveyed, loaded.sha256, settings, prepared)
    if (before := work_folder.as_before(folder, identity, settings)) != settings:
        prepared = network(loaded.model, before, surveyed)
        if settings.precision == "auto":
            choice = PrecisionChoice(prepared.precision.precision, "as the unfinished run")
            prepared = replace(prepared, precision=choice)
        identity = work_folder.identity(surveyed, loaded.sha256, settings, prepared)
    return prepared, identity


@contextmanager
def _errors(what: str, then: str = "") -> Iterator[None]:
    """Turn errors of storages and muxers into one line."""
    try:
        yield
    except (OSError, av.FFmpegError) as error:
        raise UserError(f"{what} ({error.strerror or error})" + (f"; {then}" if then else "")) from error


def _stretches(segments: Sequence[Segment]) -> Iterator[list[Segment]]:
    """Yield lists of segments that follow each other."""
    for _, group in itertools.groupby(enumerate(segments), lambda item: item[1].number - item[0]):
        yield [segment for _, segment in group]


def _log(destination: str, summary: Summary, live: LiveLine, device: str, settings: Settings) -> None:
    shots = f", {summary.cuts + 1} shots" if summary.cuts else ""
    speed = f"in {live.seconds:.1f} s ({live.rate:.2f} frames/s on {device})"
    frames = count(summary.frames, "frame")
    log.info(f"{destination}: {frames} {speed}; {summary.width}x{summary.height}, {settings.codec}{shots}")
    for extra in summary.extras:
        log.info(extra)
    if summary.note:
        log.info(summary.note)
    if summary.left_out:
        log.info(f"not carried over: {', '.join(summary.left_out)}")
    if summary.stopped:
        log.info(summary.stopped)
