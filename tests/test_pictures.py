"""Pictures for people: their layout, and that the shown region is the one that differs most."""

import base64
import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from mana_dist import pictures
from mana_dist.pictures import GAP, LABEL_HEIGHT, Panel


def flat(side: int, value: int) -> NDArray[np.uint8]:
    return np.full((side, side, 3), value, np.uint8)


def test_panels_stand_in_order_below_their_labels() -> None:
    picture = pictures.side_by_side(flat(64, 10), flat(256, 80), flat(256, 160), flat(256, 240))
    assert picture.shape == (256 + LABEL_HEIGHT, 4 * 256 + 3 * GAP, 3)
    for position, value in enumerate((10, 80, 160, 240)):
        left = position * (256 + GAP)
        assert (picture[LABEL_HEIGHT:, left : left + 256] == value).all()
        label = picture[:LABEL_HEIGHT, left : left + 256]
        assert (label == 255).any()  # white letters
    assert (picture[LABEL_HEIGHT:, 256 : 256 + GAP] == pictures.BACKGROUND).all()


def test_small_pictures_are_enlarged_pixel_by_pixel() -> None:
    lr = np.arange(8 * 8 * 3, dtype=np.uint8).reshape(8, 8, 3)
    hr = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    picture = pictures.side_by_side(lr, hr, hr, hr)[LABEL_HEIGHT:]
    assert picture.shape[0] == 256  # 32 pixels times 8, the least factor that gives 240
    np.testing.assert_array_equal(picture[:, :256], lr.repeat(32, 0).repeat(32, 1))
    np.testing.assert_array_equal(picture[:, -256:], hr.repeat(8, 0).repeat(8, 1))


def test_a_label_too_long_for_its_panel_keeps_to_it() -> None:
    short, long = (pictures.row([Panel(label, flat(240, 0)), Panel("", flat(240, 0))]) for label in ("x", "/path" * 40))
    np.testing.assert_array_equal(long[:LABEL_HEIGHT, 240:], short[:LABEL_HEIGHT, 240:])


def test_column_stacks_rows_of_any_width() -> None:
    picture = pictures.column([flat(20, 9)[:, :10], flat(30, 7)])
    assert picture.shape == (50 + GAP, 30, 3)
    assert (picture[:20, :10] == 9).all()
    assert (picture[20 + GAP :] == 7).all()


def test_png_reads_back() -> None:
    image = np.random.default_rng(0).integers(0, 256, (9, 11, 3), dtype=np.uint8)
    np.testing.assert_array_equal(np.array(Image.open(io.BytesIO(pictures.to_png(image)))), image)


def test_data_uri_holds_the_png() -> None:
    image = np.random.default_rng(0).integers(0, 256, (9, 11, 3), dtype=np.uint8)
    start, data = pictures.to_data_uri(image).split(",")
    assert start == "data:image/png;base64"
    np.testing.assert_array_equal(np.array(Image.open(io.BytesIO(base64.b64decode(data)))), image)


@pytest.mark.parametrize(
    ("height", "width", "scale"), [(64, 96, 4), (12, 80, 4), (20, 20, 4), (64, 36, 2), (60, 96, 3)]
)
def test_most_different_region_against_trying_every_place(height: int, width: int, scale: int) -> None:
    a, b = np.random.default_rng(1).integers(0, 256, (2, height, width, 3), dtype=np.uint8)
    region = pictures.most_different_region(a, b, scale, side=20)
    side = 20 - 20 % scale
    rows, columns = min(side, height), min(side, width)
    places = {
        (top, left): np.abs(
            a[top : top + rows, left : left + columns].astype(int) - b[top : top + rows, left : left + columns]
        ).mean()
        for top in range(0, height - rows + 1, scale)
        for left in range(0, width - columns + 1, scale)
    }
    best = max(places, key=lambda place: places[place])
    assert (region.top, region.left, region.height, region.width) == (*best, rows, columns)
    np.testing.assert_allclose(region.difference, places[best])
    assert region.of(a).shape == (rows, columns, 3)
    np.testing.assert_array_equal(region.of_lr(a[::scale, ::scale]), region.of(a)[::scale, ::scale])


def test_further_regions_are_the_best_of_the_places_beside_those_before() -> None:
    height, width, side, scale = 36, 44, 12, 4
    a, b = np.random.default_rng(2).integers(0, 256, (2, height, width, 3), dtype=np.uint8)
    free = {(top, left) for top in range(0, height - side + 1, scale) for left in range(0, width - side + 1, scale)}
    found = list(pictures.most_different_regions(a, b, scale, side))
    assert len(found) > 3
    for region in found:
        differences = {
            (top, left): np.abs(
                a[top : top + side, left : left + side].astype(int) - b[top : top + side, left : left + side]
            ).mean()
            for top, left in free
        }
        best = max(sorted(free), key=lambda place: differences[place])
        assert (region.top, region.left) == best
        np.testing.assert_allclose(region.difference, differences[best])
        free = {place for place in free if abs(place[0] - best[0]) >= side or abs(place[1] - best[1]) >= side}
    assert not free
    pairs = [(one, other) for one in found for other in found if one is not other]
    assert not any(one.overlaps(other) for one, other in pairs)
    assert all(one.overlaps(one) for one in found)
