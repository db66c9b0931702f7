"""The clips that an ingest holds out: a dataset of their own, to validate on, beside the one to train on."""

import hashlib
from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import islice

from mana_dist.data.manifest import find_manifest
from mana_dist.errors import UserError
from mana_dist.footage.expand import Clip
from mana_dist.ingest import sources_table
from mana_dist.ingest.config import parse_hold_out
from mana_dist.ingest.dataset import Dataset
from mana_dist.progress import count


def choose(
    clips: Sequence[Clip],
    wanted: str,
    training: Dataset,
    beside: Dataset,
    is_usable: Callable[[Clip], bool] = lambda _: True,
) -> list[Clip]:
    """Choose the clips to hold out: what datasets have stays there; of the others the first by a hash of their names.

    Args:
        clips: to choose from, at least one.
        wanted: as for :func:`parse_hold_out`; a share is rounded.
        training: the dataset to train on.
        beside: that of the clips that are held out.
        is_usable: whether a clip can give a sample, by its header; asked of as few as possible.

    Returns:
        Some of ``clips``, in their order.

    Raises:
        UserError: that is none of them, or all, or a clip is in both datasets.
    """
    trained, held = {row.uri for row in training.rows}, {row.uri for row in beside.rows}
    if both := trained & held:
        raise UserError(
            f"{min(both)}: is in {training.out} and in {beside.out}; use --overwrite, or name another --out"
        )
    asked = parse_hold_out(wanted)
    number = asked if isinstance(asked, int) else int(asked * len(clips) + Fraction(1, 2))
    chosen = {clip.source for clip in clips} & held
    ranked = sorted((clip for clip in clips if clip.source not in trained | held), key=lambda clip: _hash(clip.name))
    usable = (clip.source for clip in ranked if is_usable(clip))
    chosen |= set(islice(usable, max(0, number - len(chosen))))
    if not number:
        raise UserError(
            f"--hold-out {wanted}: of {count(len(clips), 'clip')} that is none; name a number, --hold-out 1"
        )
    if not chosen and not ranked:
        raise UserError(
            f"--hold-out {wanted}: {training.out} has these clips already; name another --out, or use --overwrite"
        )
    if not chosen:
        raise UserError(f"--hold-out {wanted}: none of these clips can be used, as --dry-run without it says")
    if len(chosen) == len(clips):
        raise UserError(f"--hold-out {wanted}: of {count(len(clips), 'clip')} none is left to train on; hold out fewer")
    return [clip for clip in clips if clip.source in chosen]


def check_apart(clips: Sequence[Clip], beside: str) -> None:
    """Check that the dataset of held-out clips at ``beside``, if there is one, has none of these.

    Raises:
        UserError: it has one.
    """
    manifest = find_manifest(beside)
    held = set() if manifest is None else {row.uri for row in sources_table.read(beside, manifest.sources)}
    if both := held & {clip.source for clip in clips}:
        raise UserError(f"{min(both)}: is held out, in {beside}; give --hold-out as before, or name another --out")


def _hash(name: str) -> bytes:
    return hashlib.sha256(name.encode(errors="surrogateescape")).digest()
