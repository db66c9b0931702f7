"""Synthetic shots: each its own picture, of its own colour, that moves at a steady pace."""

import cv2
import numpy as np
from numpy.typing import NDArray


def scene(seed: int, count: int, step: int = 1, height: int = 64, width: int = 96) -> NDArray[np.uint8]:
    """uint8 (count, height, width, 3), RGB: smooth noise that moves ``step`` pixels to the left per frame."""
    random = np.random.default_rng(seed)
    noise = random.normal(size=(height, width + step * count, 3))
    picture = cv2.GaussianBlur(noise, (0, 0), 3)
    picture = random.uniform(60, 200, 3) + 50 * picture / picture.std()
    pixels = np.clip(picture, 0, 255).astype(np.uint8)
    return np.stack([pixels[:, step * i : step * i + width] for i in range(count)])
