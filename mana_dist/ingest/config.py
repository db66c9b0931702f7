"""What decides an ingest."""

import dataclasses
from dataclasses import dataclass, field
from fractions import Fraction

from mana_dist import storage
from mana_dist.arguments import parse_share
from mana_dist.data.config import GIVEN, MIN_LR_SIDE, SampleSettings
from mana_dist.data.degradation import BI
from mana_dist.errors import UserError
from mana_dist.video.frame_names import parse_frame_range


@dataclass(frozen=True, kw_only=True)
class IngestOptions:
    """What is ingested, and how.

    Attributes:
        sources: URIs of videos, frame folders, folders of either, globs, lists of URIs.
        out: URI of the dataset's folder.
        settings: how samples are made.
        frames: ``START:STOP``, the frames to use of every source that has no range of its own.
        downscale: what to shrink frames by before they are taken as HR.
        segment_frames: least frames of a long video that make a task.
        hold_out: share or number of the clips that go to ``<out>-held-out`` instead: ``5%``, ``4``.
        pairs: whether the sources are HR frames with LR frames that are taken as they are.
        overwrite: whether a dataset made with other settings may be replaced.
    """

    sources: tuple[str, ...]
    out: str
    settings: SampleSettings = field(default_factory=SampleSettings)
    frames: str = ":"
    downscale: int = 1
    segment_frames: int = 1000
    hold_out: str | None = None
    pairs: bool = False
    overwrite: bool = False

    def checked(self) -> "IngestOptions":
        """Return the options with an absolute ``out``; those of pairs with the degradation ``given``.

        Raises:
            UserError: a value that makes no sense, named by its option.
        """
        if not all(self.sources):  # an unset variable of a shell: the working folder is not what was meant
            raise UserError("--source: a source is empty; name a file, a folder or a list ('.' is this folder)")
        parse_frame_range(self.frames)
        if self.hold_out is not None:
            parse_hold_out(self.hold_out)
            if not held_out_folder(self.out):
                raise UserError(f"--hold-out: --out {self.out} is a whole bucket; name a folder in it")
        settings = self.settings
        if self.pairs:
            if self.downscale > 1 or settings.degradation not in (BI, GIVEN):
                raise UserError("--pairs takes the LR frames that are there; leave --degradation and --downscale out")
            settings = dataclasses.replace(settings, degradation=GIVEN)
        if settings.frames_per_sample < 1 or settings.frames_per_sample % 2 == 0:
            raise UserError(f"--frames-per-sample must be an odd number, got {settings.frames_per_sample}")
        if 0 < settings.patch < MIN_LR_SIDE:
            raise UserError(f"--patch must be 0 or at least {MIN_LR_SIDE}, got {settings.patch}")
        values = vars(settings) | vars(self)
        least: dict[str, float] = {"stride": 1, "downscale": 1, "segment_frames": 16, "patch": 0}
        least |= {"min_change": 0, "min_detail": 0, "min_motion": 0}
        most = {"max_motion": settings.min_motion, "max_blockiness": 1, "max_blur": 0}
        least |= {name: value for name, value in most.items() if values[name] is not None}
        for name, minimum in least.items():
            if not values[name] >= minimum:
                raise UserError(f"--{name.replace('_', '-')} must be at least {minimum}, got {values[name]}")
        return dataclasses.replace(self, out=storage.resolve(self.out), settings=settings)


def parse_hold_out(text: str) -> Fraction | int:
    """Return the share of ``--hold-out 5%``, or the number of ``--hold-out 4``.

    Raises:
        UserError: neither.
    """
    found = parse_share(text)
    if found is None:
        raise UserError(f"--hold-out {text}: write a share of the clips like 5%, or a number of clips like 4")
    return found


def held_out_folder(out: str) -> str:
    """Return the URI of the dataset of clips that are held out of the one at ``out``; empty for a whole bucket."""
    uri = storage.resolve(out)
    return "" if storage.is_remote(uri) and "/" not in uri.partition("://")[2] else f"{uri}-held-out"
