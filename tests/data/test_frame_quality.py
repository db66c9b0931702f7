"""What frames look like: blocks, blur, and hashes that copies share."""

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from mana_dist.data.frame_quality import blockiness, blur, measure, picture_hash

Grey = NDArray[np.uint8]


def texture(seed: int = 0, height: int = 240, width: int = 320) -> Grey:
    """A picture with detail of all sizes."""
    random = np.random.default_rng(seed)
    octaves = [cv2.GaussianBlur(random.normal(size=(height, width)), (0, 0), sigma) for sigma in (1, 2, 4, 8, 16)]
    picture = sum(octave / octave.std() * sigma for octave, sigma in zip(octaves, (1, 1.6, 2.6, 4.3, 7), strict=True))
    return np.clip(128 + 40 * picture / np.std(picture), 0, 255).astype(np.uint8)


def jpeg(picture: Grey, quality: int) -> Grey:
    coded = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.asarray(cv2.imdecode(coded, cv2.IMREAD_GRAYSCALE))


def test_blocks_are_seen_wherever_their_grid_lies() -> None:
    steps = np.random.default_rng(0).integers(0, 40, (30, 40), np.uint8).repeat(8, 0).repeat(8, 1)
    for top, left in ((0, 0), (3, 5), (7, 1)):
        assert blockiness((texture() // 2 + steps)[top:, left:]) > 3
    assert blockiness(texture()) < 1.05
    assert blockiness(np.random.default_rng(1).integers(0, 256, (240, 320), np.uint8)) < 1.05


def test_a_stronger_compression_is_more_blocky() -> None:
    values = [blockiness(jpeg(texture(), quality)) for quality in (95, 50, 20, 10)]
    assert values == sorted(values)
    assert values[0] < 1.2
    assert values[1] > 1.3


def test_flat_pictures_ramps_and_edges_have_no_blocks() -> None:
    ramp = np.broadcast_to(np.arange(256, dtype=np.uint8), (64, 256))
    for picture in (np.zeros((64, 64), np.uint8), ramp, ramp.T, np.zeros((5, 5), np.uint8)):
        assert blockiness(picture) == pytest.approx(1)


def test_blur_grows_with_the_kernel_and_not_with_contrast() -> None:
    values = [blur(texture())] + [blur(cv2.GaussianBlur(texture(), (0, 0), sigma)) for sigma in (0.8, 1.5, 3)]
    assert values == sorted(values)
    assert values[-1] - values[0] > 0.2
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)
    assert blur(noise) < 0.2
    assert blur(noise // 2) == pytest.approx(blur(noise), abs=0.03)
    assert blur(np.zeros((64, 64), np.uint8)) == 1


def test_copies_share_a_hash_and_other_pictures_do_not() -> None:
    first = picture_hash(texture())
    assert first is not None
    size = (200, 150)
    copies = [
        jpeg(texture(), 20),
        cv2.resize(texture(), size, interpolation=cv2.INTER_AREA),
        (texture() * 0.8 + 20).astype(np.uint8),
    ]
    assert max((first ^ (picture_hash(copy) or 0)).bit_count() for copy in copies) <= 4
    others = [picture_hash(texture(seed)) or 0 for seed in range(1, 30)]
    assert min((first ^ other).bit_count() for other in others) > 12
    assert picture_hash(np.full((64, 64), 9, np.uint8)) is None
    assert measure(np.dstack([texture()] * 3)).hash == first
