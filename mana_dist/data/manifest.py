"""The manifest beside the sample shards: a dataset's contents, sources and settings."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mana_dist import storage
from mana_dist.errors import UserError, redacted

MANIFEST_NAME = "manifest.json"
SCHEMA_VERSION = 3

CLIP_FILTERS = ("drop_near_duplicates", "max_blockiness", "max_blur")
"""Settings that choose among whole clips, and change no sample."""
NEWER_SETTINGS = ("min_motion", "max_motion", *CLIP_FILTERS)
"""Settings that older versions did not have, which did as their defaults say."""


@dataclass(frozen=True)
class Shard:
    """One Parquet file of samples, all of one size."""

    path: str  # file name relative to the dataset's folder
    rows: int  # samples
    group_rows: int  # samples in every row group but the last, which may hold fewer
    height: int  # LR height, pixels
    width: int  # LR width, pixels
    bytes: int
    unit: str  # name, in the table of sources, of the sources that it was made of; they come and go together

    @property
    def groups(self) -> int:
        """Row groups in the file."""
        return -(-self.rows // self.group_rows)


@dataclass(frozen=True)
class Rejected:
    """A source that gave no samples, and why; without passwords, since it is written and printed."""

    source: str
    reason: str

    def __post_init__(self) -> None:
        """Hide secrets of URIs."""
        object.__setattr__(self, "source", redacted(self.source))
        object.__setattr__(self, "reason", redacted(self.reason))


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """A dataset's contents; written last, so that a dataset with a manifest is whole.

    Attributes:
        schema_version: version of this file's and the shards' layout.
        reader: version of the reader of videos; 1 for datasets without a record of it.
        degradation: name of the degradation that made LR of HR.
        degradation_version: its version.
        recipe: all of it, where it is one of operations with ranges (:mod:`mana_dist.data.degradation.recipe`).
        scale: HR side over LR side.
        frames: LR frames per sample (T), odd.
        stride: frames between the centres of neighbouring samples.
        patch: LR side of the patches that frames were cut into; 0 for whole frames.
        cut_detector: name and version of the detector of shot cuts; empty if there was none.
        min_change: change of a block, grey levels; a frame in which every block changed less is a duplicate.
        min_detail: samples whose centre frame has less detail were left out; grey levels.
        min_motion: samples with less flow were left out; LR pixels per frame.
        max_motion: samples with more were too; None: none were.
        drop_near_duplicates: whether clips that show what another one shows were left out.
        max_blockiness: clips that are more blocky were left out; None: none were.
        max_blur: so were those that are more blurred.
        samples: samples in all shards together.
        clips: sources that gave samples.
        sources: file name of the table of sources (Parquet) beside the manifest; None for samples made in Python.
        shards: the files.
        rejected: sources that gave no samples.
    """

    schema_version: int = SCHEMA_VERSION
    reader: int = 1
    degradation: str
    degradation_version: int
    recipe: Mapping[str, Any] | None = None
    scale: int
    frames: int
    stride: int = 1
    patch: int = 0
    cut_detector: str = ""
    min_change: float = 0.0
    min_detail: float = 0.0
    min_motion: float = 0.0
    max_motion: float | None = None
    drop_near_duplicates: bool = False
    max_blockiness: float | None = None
    max_blur: float | None = None
    samples: int
    clips: int
    sources: str | None
    shards: tuple[Shard, ...]
    rejected: tuple[Rejected, ...]

    def shapes(self, shard: Shard) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the shapes of a sample's ``lr`` and ``hr`` in ``shard``."""
        lr = (self.frames, shard.height, shard.width, 3)
        return lr, (self.scale * shard.height, self.scale * shard.width, 3)

    def differences(self, other: "Manifest") -> list[str]:
        """Return the settings that differ in ``other``, as 'name: mine -> theirs'."""
        mine, theirs = _settings_of(self), _settings_of(other)
        return [
            f"{name}: {mine.get(name)} -> {theirs.get(name)}"
            for name in {**mine, **theirs}
            if mine.get(name) != theirs.get(name)
        ]


SETTINGS = tuple(
    field.name
    for field in dataclasses.fields(Manifest)
    if field.name not in {"schema_version", "recipe", "samples", "clips", "sources", "shards", "rejected"}
)
"""The fields that say how samples were made; of a recipe, :func:`_settings_of` adds the parts."""


def _settings_of(manifest: Manifest) -> dict[str, Any]:
    """Return the settings by name, those of a recipe and its operations each for itself."""
    values = {name: getattr(manifest, name) for name in SETTINGS}
    recipe = dict(manifest.recipe or {})
    steps = {f"operations[{place}]": step for place, step in enumerate(recipe.pop("operations", []))}
    return values | {f"recipe.{name}": value for name, value in {**recipe, **steps}.items()}


def find_manifest(uri: str) -> Manifest | None:
    """Return the manifest of the dataset at ``uri``, or None where there is none.

    Raises:
        UserError: it cannot be read, or a newer version of this program made it.
    """
    try:
        text = storage.read_bytes(storage.join(uri, MANIFEST_NAME))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise UserError(f"{uri}: cannot read its {MANIFEST_NAME} ({error})") from error
    return _parse(text, storage.join(uri, MANIFEST_NAME))


def load_manifest(uri: str) -> Manifest:
    """Return the manifest of the dataset at ``uri``.

    Raises:
        UserError: there is none, it cannot be read, or a newer version of this program made it.
    """
    manifest = find_manifest(uri)
    if manifest is None:
        raise UserError(
            f"{uri}: no finished sample dataset there (no {MANIFEST_NAME}); "
            f"make it with: mana ingest --source VIDEO --out {uri}"
        )
    return manifest


def check_dataset(uri: str, key: str, frames: int, crop: int, scale: int = 4) -> Manifest:
    """Check that a training can use a dataset, and return its manifest.

    Args:
        uri: the dataset's folder.
        key: the configuration key of ``uri``, for the message.
        frames: T of the model.
        crop: side of the LR crop.
        scale: the model's.

    Raises:
        UserError: no manifest, no samples, samples of fewer frames than T or of another scale, or frames smaller than
            the crop.
    """
    manifest = load_manifest(uri)
    if manifest.samples == 0:
        raise UserError(f"{key}: {uri} holds no samples; its manifest says why under 'rejected'")
    if manifest.frames < frames:
        raise UserError(
            f"{key}: samples in {uri} have {manifest.frames} frames, model.frames is {frames}; "
            f"ingest with --frames-per-sample {frames} or lower model.frames"
        )
    if manifest.scale != scale:
        raise UserError(
            f"{key}: samples in {uri} are of scale {manifest.scale}, model.scale is {scale}; "
            f"ingest with --scale {scale} or set model.scale {manifest.scale}"
        )
    smallest = min(manifest.shards, key=lambda shard: min(shard.height, shard.width))
    side = min(smallest.height, smallest.width)
    if side < crop:
        raise UserError(
            f"{key}: {uri} holds LR frames of {smallest.width}x{smallest.height}, smaller than data.crop {crop}; "
            f"lower data.crop to {side} or less, or leave the small clips out"
        )
    return manifest


def save_manifest(uri: str, manifest: Manifest) -> None:
    """Write ``manifest`` into the dataset's folder ``uri``; readers see the old one or the new."""
    values = dataclasses.asdict(manifest)
    for name in ("recipe", *NEWER_SETTINGS):  # so that datasets without them can be read by older versions
        if values[name] == getattr(Manifest, name):
            del values[name]
    text = json.dumps(values, indent=1, ensure_ascii=False) + "\n"
    storage.write_bytes(storage.join(uri, MANIFEST_NAME), text.encode())


def _parse(text: bytes, name: str) -> Manifest:
    try:
        values: Mapping[str, Any] = json.loads(text)
        version = int(values["schema_version"])
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{name}: not a manifest of sample shards; make the dataset again into a new folder") from error
    if version != SCHEMA_VERSION:
        made, mend = "a newer", "upgrade mana_dist or make the dataset again"
        if version < SCHEMA_VERSION:
            made, mend = "an older", "convert it by ingesting its sources again: the same ingest with --overwrite"
        raise UserError(f"{name}: made by {made} mana_dist (schema {version}, this one reads {SCHEMA_VERSION}); {mend}")
    try:
        shards = tuple(Shard(**shard) for shard in values["shards"])
        rejected = tuple(Rejected(**item) for item in values["rejected"])
        return Manifest(**{**values, "shards": shards, "rejected": rejected})
    except (TypeError, KeyError) as error:
        raise UserError(f"{name}: damaged manifest ({error}); make the dataset again with --overwrite") from error
