"""The checks of a training's inputs that need neither Ray nor a GPU."""

from collections.abc import Sequence

from pyarrow import fs

from mana_dist import storage
from mana_dist.config import Config
from mana_dist.data.manifest import Manifest, check_dataset
from mana_dist.data.mixture import Dataset, Mixture
from mana_dist.errors import UserError
from mana_dist.registry.names import check_names
from mana_dist.train.schedule import stages


def check_inputs(config: Config) -> Mixture:
    """Check the schedule, the data, the storage and the names for MLflow, and return the training data.

    Raises:
        UserError: one of them cannot be used; names the key to mend.
    """
    model, data, run = config.model, config.data, config.run
    if not data.path:
        raise UserError("data.path is missing; make samples with `mana ingest --source … --out PATH`")
    if not stages(config):
        raise UserError("schedule: all stages have 0 steps; give at least one of them some")
    if run.keep_best and not data.validation_path:
        raise UserError(f"run.keep_best {run.keep_best} needs validations; give data.validation_path too")
    mixture = [_checked(config, data.path, "data.path", data.weight)]
    mixture += [_checked(config, each.path, f"data.more {each.path}", each.weight) for each in data.more]
    _check_different(mixture)
    if data.validation_path:
        held_out = check_dataset(data.validation_path, "data.validation_path", model.frames, 1, model.scale)
        _check_shards(data.validation_path, "data.validation_path", held_out)
    storage.check_writable(run.storage, "run.storage")
    check_names(config.mlflow, run.name)
    return tuple(mixture)


def _checked(config: Config, uri: str, key: str, weight: int) -> Dataset:
    manifest = check_dataset(uri, key, config.model.frames, config.data.crop, config.model.scale)
    _check_shards(uri, key, manifest)
    return Dataset(uri, manifest, weight)


def _check_different(mixture: Sequence[Dataset]) -> None:
    folders = [storage.resolve(dataset.uri).rstrip("/") for dataset in mixture]
    for folder in folders:
        if folders.count(folder) > 1:
            raise UserError(f"data.more: {folder} is there twice; give it a weight instead")


def _check_shards(uri: str, key: str, manifest: Manifest) -> None:
    """Check, with one listing of the folder, that all files of the manifest are there in their sizes."""
    filesystem, root = storage.filesystem(uri)
    infos = filesystem.get_file_info(fs.FileSelector(root, recursive=True))
    sizes = {info.path[len(root.rstrip("/")) + 1 :]: info.size for info in infos if info.type == fs.FileType.File}
    for shard in manifest.shards:
        if shard.path not in sizes:
            raise UserError(f"{key}: {uri} lacks {shard.path}, which its manifest names; copy it there or ingest again")
        if sizes[shard.path] != shard.bytes:
            raise UserError(
                f"{key}: {shard.path} in {uri} has {sizes[shard.path]} bytes, its manifest says {shard.bytes}; "
                "copy it there again or ingest again"
            )
