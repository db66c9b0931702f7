"""Options of the upscaling of many videos on a cluster."""

import dataclasses
from dataclasses import dataclass, field

from mana_dist.errors import UserError
from mana_dist.model_names import PRETRAINED
from mana_dist.upscale.config import ALL_FRAMES, Settings

SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv")
MEMORY = 4096
"""Default memory for activations, MiB: fixed, since tiles change pixels a little and must be alike everywhere."""


@dataclass(frozen=True, kw_only=True)
class BucketOptions:
    """Which videos are upscaled, with which model, to where.

    Attributes:
        sources: URIs of videos, folders of them, globs, lists of URIs.
        out: URI of the folder for the results.
        model: ``pretrained``, a model folder's URI, or a name in the registry.
        tracking_uri: URI of the registry; None: as in all commands.
        settings: how to upscale and write; ``memory`` ``auto`` is :data:`MEMORY`.
        suffix: suffix of the results; None: the codec's usual one.
        workers: copies of the model; None: as many as the cluster has room for.
        cpus: CPU cores of a copy that runs on no GPU.
        overwrite: whether results of other jobs, and other files, may be replaced.
    """

    sources: tuple[str, ...]
    out: str
    model: str = PRETRAINED
    tracking_uri: str | None = None
    settings: Settings = field(default_factory=Settings)
    suffix: str | None = None
    workers: int | None = None
    cpus: int = 1
    overwrite: bool = False

    def checked(self) -> "BucketOptions":
        """Return the options with an absolute ``out``, and the memory and the suffix that are meant.

        Raises:
            UserError: a value that makes no sense, named by its option.
        """
        from mana_dist import storage  # slow to import, and no help needs it

        if not all(self.sources):  # an unset variable of a shell: the working folder is not what was meant
            raise UserError("--source: a source is empty; name a file, a folder or a list ('.' is this folder)")
        for name, value in (("--workers", self.workers), ("--cpus-per-worker", self.cpus)):
            if value is not None and value < 1:
                raise UserError(f"{name} must be at least 1, got {value}")
        if self.settings.threads is not None:
            raise UserError("--threads: on a cluster --cpus-per-worker sets it; leave it out")
        if self.settings.frames != ALL_FRAMES or self.settings.fps is not None:
            raise UserError("--frames and --fps go with SRC and DST, one source at a time; leave them out")
        self.settings.check()
        if self.settings.codec == "png" and self.suffix:
            raise UserError("--suffix: --codec png writes folders of pictures, which have none; leave it out")
        usual = {"png": "", "ffv1": ".mkv"}.get(self.settings.codec, ".mp4")
        memory = MEMORY if self.settings.memory == "auto" else self.settings.memory
        return dataclasses.replace(
            self,
            out=storage.resolve(self.out),
            settings=dataclasses.replace(self.settings, memory=memory),
            suffix=self.suffix or usual,
        )
