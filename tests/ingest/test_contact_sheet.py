"""The contact sheet: which samples it shows, what a cell is made of, and that the same dataset gives the same bytes."""

import io
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from mana_dist import pictures
from mana_dist.data.config import SampleSettings
from mana_dist.data.degradation import BI, degrade
from mana_dist.data.manifest import Manifest, Shard, load_manifest
from mana_dist.data.samples import Sample
from mana_dist.errors import UserError
from mana_dist.ingest import contact_sheet
from mana_dist.pictures import GAP, LABEL_HEIGHT
from tests.data.written_dataset import write_dataset
from tests.video.videos import moving_frames

SIDE = 240


def samples(count: int, height: int = 64, width: int = 96) -> Iterator[Sample]:
    """Each of its own grey, so that a picture tells which it shows."""
    for number in range(count):
        hr = np.full((height, width, 3), 100 + number, np.uint8)
        lr = np.full((3, height // 4, width // 4, 3), 100 + number, np.uint8)
        yield Sample(lr=lr, hr=hr, centre=number, flow=0.5)


def dataset(folder: Path, count: int) -> Manifest:
    return write_dataset(str(folder), samples(count), clip="grey", frames=3, group_bytes=3 * 25_000)


def picture(folder: Path) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO((folder / "contact_sheet.png").read_bytes())))


def panel(sheet: NDArray[np.uint8], cell: int, position: int) -> NDArray[np.uint8]:
    """A square picture of the sheet: ``position`` 0, 1 or 2 in cell number ``cell``."""
    row, column = divmod(cell, 3)
    top = row * (SIDE + LABEL_HEIGHT + 3 * GAP) + LABEL_HEIGHT
    left = column * (3 * SIDE + 2 * GAP + 3 * GAP) + position * (SIDE + GAP)
    return sheet[top : top + SIDE, left : left + SIDE]


def shown(folder: Path, count: int) -> list[int]:
    sheet = picture(folder)
    return [int(panel(sheet, cell, 0)[SIDE // 2, SIDE // 2, 0]) - 100 for cell in range(count)]


def test_all_samples_of_a_small_dataset_stand_in_order(tmp_path: Path) -> None:
    manifest = dataset(tmp_path, 7)
    assert contact_sheet.write(str(tmp_path), manifest) == str(tmp_path / "contact_sheet.png")
    assert shown(tmp_path, 7) == list(range(7))
    assert picture(tmp_path).shape == (
        3 * (SIDE + LABEL_HEIGHT) + 2 * 3 * GAP,
        3 * (3 * SIDE + 2 * GAP) + 2 * 3 * GAP,
        3,
    )


def test_of_a_large_one_a_random_choice_each_once(tmp_path: Path) -> None:
    manifest = dataset(tmp_path, 60)
    choices = []
    for seed in range(4):
        contact_sheet.write(str(tmp_path), manifest, count=12, seed=seed)
        numbers = shown(tmp_path, 12)
        assert numbers == sorted(set(numbers))
        choices.append(tuple(numbers))
    assert len(set(choices)) == 4
    assert min(map(min, choices)) < 10  # from the beginning
    assert max(map(max, choices)) >= 50  # to the end


def test_a_long_source_does_not_fill_the_sheet() -> None:
    rows = {"long-0": ("long", 900), "long-1": ("long", 500), "a": ("a", 3), "b": ("b", 40)}
    shards = tuple(Shard(path, count, 10, 16, 16, 1, unit) for path, (unit, count) in rows.items())
    manifest = replace(SampleSettings().empty_manifest(), shards=shards)
    places = list(contact_sheet._choose(manifest, 24, 0))
    assert len(set(places)) == 24
    assert Counter(rows[shard.path][0] for shard, _, _ in places) in (
        {"a": 3, "b": 11, "long": 10},
        {"a": 3, "b": 10, "long": 11},
    )
    many = tuple(Shard(f"{number}", 5, 10, 16, 16, 1, f"{number}") for number in range(1000))
    chosen = [int(shard.path) for shard, _, _ in contact_sheet._choose(replace(manifest, shards=many), 24, 0)]
    assert len(set(chosen)) == 24
    assert min(chosen) < 250
    assert max(chosen) > 750


def test_the_same_dataset_gives_the_same_bytes(tmp_path: Path) -> None:
    manifest = dataset(tmp_path, 30)
    contact_sheet.write(str(tmp_path), manifest, count=9)
    before = (tmp_path / "contact_sheet.png").read_bytes()
    contact_sheet.write(str(tmp_path), manifest, count=9)
    assert (tmp_path / "contact_sheet.png").read_bytes() == before


def test_a_cell_shows_the_frame_and_the_part_that_lost_most_pixel_by_pixel(tmp_path: Path) -> None:
    hr = moving_frames(3, 400, 640)
    hr[:, 40:160, 320:400] = np.random.default_rng(0).integers(0, 256, (120, 80, 3), dtype=np.uint8)
    lr = degrade(hr, BI)
    manifest = write_dataset(str(tmp_path), [Sample(lr=lr, hr=hr[1], centre=1, flow=1.0)], clip="a", frames=3)
    contact_sheet.write(str(tmp_path), manifest)
    sheet = picture(tmp_path)
    whole, low, high = (panel(sheet, 0, position) for position in range(3))
    assert (whole[: (SIDE - 150) // 2] == pictures.BACKGROUND).all()  # 640x400 shrunk to 240x150, in the middle
    np.testing.assert_allclose(
        whole[45:195].astype(int), np.asarray(Image.fromarray(hr[1]).resize((240, 150), Image.Resampling.BOX)), atol=1
    )
    places = [
        (top, left)
        for top in range(0, 164, 4)
        for left in range(0, 404, 4)
        if (hr[1, top : top + SIDE, left : left + SIDE] == high).all()
    ]
    assert len(places) == 1  # a part of HR as it is
    top, left = places[0]
    assert top <= 40
    assert left <= 320  # with all of the noise in it
    assert left + SIDE >= 400
    repeated = lr[1, top // 4 : top // 4 + 60, left // 4 : left // 4 + 60].repeat(4, 0).repeat(4, 1)
    np.testing.assert_array_equal(low, repeated)


def test_sizes_may_differ_and_small_patches_are_enlarged(tmp_path: Path) -> None:
    manifest = dataset(tmp_path, 1)  # 96x64: twice as large fits into 240
    contact_sheet.write(str(tmp_path), manifest)
    whole = panel(picture(tmp_path), 0, 0)
    inside = (whole == 100).all(axis=2)
    assert (np.flatnonzero(inside.any(axis=1)).size, np.flatnonzero(inside.any(axis=0)).size) == (128, 192)


def test_no_samples_or_a_missing_shard_are_told_in_one_line(tmp_path: Path) -> None:
    manifest = dataset(tmp_path, 2)
    (tmp_path / manifest.shards[0].path).unlink()
    with pytest.raises(UserError, match="--verify"):
        contact_sheet.write(str(tmp_path), load_manifest(str(tmp_path)))
    with pytest.raises(UserError, match="no samples"):
        contact_sheet.write(str(tmp_path), dataset(tmp_path / "empty", 0))


@pytest.mark.parametrize("scale", [2, 3])
def test_lr_stands_beside_hr_at_every_scale(tmp_path: Path, scale: int) -> None:
    hr = moving_frames(1, 48, 60)[0]
    lr = degrade(hr, BI, scale)
    made = [Sample(np.repeat(lr[None], 3, 0), hr, 0, 0.5)]
    contact_sheet.write(str(tmp_path), write_dataset(str(tmp_path), made, clip="a", frames=3, scale=scale))
    enlarged = lr.repeat(scale, 0).repeat(scale, 1)
    for position, frame in ((1, enlarged), (2, hr)):
        found = panel(picture(tmp_path), 0, position)
        np.testing.assert_array_equal(found[24:216], frame.repeat(4, 0).repeat(4, 1))  # 48 x 60 in 240 x 240
