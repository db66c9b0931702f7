"""The samples of one step, by name: what to look at when a loss is not finite."""

import json
import math
from dataclasses import asdict, dataclass

from mana_dist import storage
from mana_dist.config import Config
from mana_dist.data.manifest import Shard
from mana_dist.data.mixture import Mixture, group_rows
from mana_dist.data.motion import read_repeats
from mana_dist.data.order import SampleOrder, slots_of
from mana_dist.data.shard_reader import ShardReader
from mana_dist.errors import UserError
from mana_dist.storage.retry import persistently
from mana_dist.train.run_record import run_folder


@dataclass(frozen=True)
class Suspect:
    """One sample of the step.

    Attributes:
        slot: its place in the global batch.
        shard: URI of its file.
        row: its row in the file.
        clip: its clip; None if the file cannot be read.
        centre: frame number of its centre frame in the clip; None if the file cannot be read.
        suspected: whether the loss of the worker that had it was not finite.
    """

    slot: int
    shard: str
    row: int
    clip: str | None
    centre: int | None
    suspected: bool


def suspects(config: Config, mixture: Mixture, step: int, finite: list[bool]) -> list[Suspect]:
    """Return the samples of a step.

    Args:
        config: the run's configuration.
        mixture: the training data.
        step: the step, counted from 1 as on the console.
        finite: whether the worker's part of the loss was finite, by rank.
    """
    data, seed = config.data, config.run.seed
    readers = [(ShardReader(dataset.uri, dataset.manifest, patience=0), dataset) for dataset in mixture]
    groups = [
        (reader, dataset.uri, shard, index)
        for reader, dataset in readers
        for shard in dataset.manifest.shards
        for index in range(shard.groups)
    ]
    repeats = read_repeats(mixture, data.motion, data.readers)
    order = SampleOrder(group_rows(mixture), data.batch_size, data.shuffle_groups, seed, repeats)
    found = []
    for rank, is_finite in enumerate(finite):
        for slot in slots_of(rank, len(finite), data.batch_size):
            reference = order.sample(step - 1, slot)
            reader, uri, shard, index = groups[reference.group]
            clip, centre = _origin(reader, shard, index, reference.row)
            row = index * shard.group_rows + reference.row
            found.append(Suspect(slot, storage.join(uri, shard.path), row, clip, centre, not is_finite))
    return found


def record(config: Config, mixture: Mixture, step: int, loss: float, norm: float, finite: list[bool]) -> str:
    """Write ``<run>/nan_step_<step>.json``, and return its URI."""
    uri = storage.join(run_folder(config), f"nan_step_{step}.json")
    content = {
        "step": step,
        "loss": _plain(loss),
        "gradient_norm": _plain(norm),
        "samples": [asdict(suspect) for suspect in suspects(config, mixture, step, finite)],
    }
    persistently(storage.write_bytes, uri, json.dumps(content, indent=1).encode())
    return uri


def _origin(reader: ShardReader, shard: Shard, group: int, row: int) -> tuple[str | None, int | None]:
    try:
        table = reader.table(shard, group, ("clip", "centre"))
        return table["clip"][row].as_py(), table["centre"][row].as_py()
    except (UserError, IndexError):  # a damaged shard may well be what is wrong
        return None, None


def _plain(value: float) -> float | str:
    """Return NaN and infinities, which JSON lacks, as strings."""
    return value if math.isfinite(value) else str(value)
