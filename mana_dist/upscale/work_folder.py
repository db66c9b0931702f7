"""The work folder of a run: what is finished stays there, so that a run that was killed goes on."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from typing import Any

import av
import torch
from filelock import FileLock, Timeout

from mana_dist import __version__, storage
from mana_dist.console import log
from mana_dist.errors import UserError, redacted
from mana_dist.storage.file_names import partial_prefix
from mana_dist.upscale.config import Settings
from mana_dist.upscale.source_video import Survey
from mana_dist.upscale.upscale_segments import Network
from mana_dist.video import READER_VERSION

JOB_FILE = "job.json"
_LOCK = "lock"


def identity(survey: Survey, model_sha256: str, settings: Settings, network: Network) -> dict[str, Any]:
    """Return everything that decides a result's bytes, as JSON.

    Args:
        survey: survey of the source.
        model_sha256: SHA-256 of the weights.
        settings: all of them count.
        network: its device, precision, memory and tiles count.
    """
    return {
        "source": redacted(storage.resolve(survey.uri)),
        "bytes": survey.bytes,
        "modified": survey.modified,
        "model": model_sha256,
        "settings": asdict(settings) | {"device": network.device, "precision": network.precision.precision},
        "threads": torch.get_num_threads() if network.device == "cpu" else None,
        "memory": network.memory,
        "tiling": network.tiling and asdict(network.tiling),
        "versions": versions(),
    }


def versions() -> dict[str, Any]:
    """Return the versions of the software that decides a result's bytes."""
    return {
        "mana_dist": __version__,
        "reader": READER_VERSION,
        "av": av.__version__,
        "torch": torch.__version__,
    }


def as_before(folder: str, wanted: Mapping[str, Any], settings: Settings) -> Settings:
    """Return the settings with what an unfinished run took for ``auto``, if it differs in nothing else.

    Args:
        folder: the work folder.
        wanted: :func:`identity`.
        settings: as the user gave them.
    """
    found = _read(folder)
    # The tiles depend on the memory and on the size of a number.
    free = {"tiling"} | ({"memory"} if settings.memory == "auto" else set())
    free |= {"settings.precision"} if settings.precision == "auto" else set()
    if not isinstance(found, dict) or set(_differences(found, wanted)) - free:
        return settings
    memory = found["memory"] if settings.memory == "auto" else settings.memory
    return replace(settings, memory=memory, precision=found["settings"]["precision"])


def work_folder(destination: str) -> str:
    """Return the local work folder of a destination: beside it, or among the temporary files of a remote one."""
    resolved = storage.resolve(destination)
    if storage.is_remote(destination):
        digest = hashlib.sha256(resolved.encode()).hexdigest()[:16]
        return os.path.join(tempfile.gettempdir(), f"mana_dist-upscale-{digest}.partial")
    return os.path.join(os.path.dirname(resolved), partial_prefix(os.path.basename(resolved)).removesuffix("-"))


@contextmanager
def opened(folder: str, wanted: Mapping[str, Any]) -> Iterator[None]:
    """Hold a work folder; what another job left in it is logged and deleted first.

    Args:
        folder: local; made if it is not there. It stays when the context is left.
        wanted: :func:`identity`.

    Raises:
        UserError: another run has it.
        OSError: it cannot be written.
    """
    os.makedirs(folder, exist_ok=True)
    lock = FileLock(os.path.join(folder, _LOCK), timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise UserError(f"{folder}: another run is at work on this result; wait for it or stop it") from error
    try:
        found = _read(folder)
        if found != wanted:
            finished = sum(name.startswith("segment-") and name.endswith(".json") for name in os.listdir(folder))
            if finished:
                reasons = ", ".join(_differences(found, wanted)) if isinstance(found, dict) else f"no {JOB_FILE}"
                log.info(f"beginning anew: the {finished} segments in {folder} are of another job; differs: {reasons}")
            _clear(folder, everything=True)
            storage.write_bytes(os.path.join(folder, JOB_FILE), json.dumps(wanted, indent=1).encode())
        _clear(folder, everything=False)
        yield
    finally:
        lock.release()


def _differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Return the keys whose values differ, with those of nested mappings: ``settings.crf``."""
    found = []
    for key in sorted({*one, *other}):
        here, there = one.get(key), other.get(key)
        if key in ("settings", "versions") and isinstance(here, dict) and isinstance(there, dict):
            found += [f"{key}.{inner}" for inner in _differences(here, there)]
        elif key not in one or key not in other or here != there:
            found.append(key)
    return found


def _read(folder: str) -> Any:
    with suppress(OSError, ValueError):
        return json.loads(storage.read_bytes(os.path.join(folder, JOB_FILE)))
    return None


def _clear(folder: str, *, everything: bool) -> None:
    """Delete what is half written, or everything."""
    for entry in list(os.scandir(folder)):
        if entry.name != _LOCK and (everything or entry.name.startswith(".")):
            shutil.rmtree(entry.path) if entry.is_dir() else os.unlink(entry.path)
