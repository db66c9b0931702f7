"""The operations on single pictures that a recipe is made of: blur, resize, noise and JPEG.

An operation takes and gives uint8 pictures, (H, W, 3) RGB, rounded to the nearest.
"""

import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mana_dist.data.degradation.draws import Draws, Range
from mana_dist.data.resize import imresize

Frame = NDArray[np.uint8]
Drawn = Mapping[str, float | str]
"""What an operation drew for a frame, by the parameter's name."""

BlurKind = Literal["isotropic", "anisotropic", "motion"]
ResizeMethod = Literal["area", "bilinear", "bicubic", "imresize"]
NoiseKind = Literal["gaussian", "poisson"]

_LARGEST_SIGMA, _LONGEST_MOTION = 20.0, 100.0  # pixels


class Target(NamedTuple):
    """What an operation must know of the clip beside its draws.

    Attributes:
        height: of the LR frames.
        width: of the LR frames.
        segment: frames that are encoded together; the first of each has a multiple of it for its number.
    """

    height: int
    width: int
    segment: int


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One step of a recipe.

    Attributes:
        chance: share of the clips that it is applied to; to all of a clip's frames or to none.
        drift: frames between two values that are drawn for a parameter, which changes evenly in between; 0: one value
            for the whole clip. What cannot change evenly (kinds, methods, codecs) is drawn once for a clip.
    """

    chance: float = 1.0
    drift: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.chance <= 1:
            raise ValueError(f"chance: must be from 0 to 1, got {self.chance:g}")
        if self.drift < 0:
            raise ValueError(f"drift: must be a number of frames, or 0, got {self.drift}")

    def drawn(self, draws: Draws, number: int) -> Drawn:
        """Return the parameters of frame ``number``."""
        raise NotImplementedError

    def change(self, picture: Frame, number: int, draws: Draws, target: Target) -> Frame:
        """Return frame ``number`` with the operation applied."""
        raise NotImplementedError

    def run(self, frames: Iterator[tuple[int, Frame]], draws: Draws, target: Target) -> Iterator[tuple[int, Frame]]:
        """Apply the operation to numbered frames that follow each other, all of one segment."""
        for number, picture in frames:
            yield number, self.change(picture, number, draws, target)


@dataclass(frozen=True, kw_only=True)
class Blur(Operation):
    """Blur by a kernel that sums to 1 and is symmetric about its centre; borders are mirrored.

    Attributes:
        kinds: Gaussian with one sigma, Gaussian with two and any angle, or a straight line of any angle.
        sigma: of Gaussians, pixels of the picture as it is when its turn comes.
        length: of the line, in the same.
    """

    kinds: tuple[BlurKind, ...] = ("isotropic",)
    sigma: Range = (0.2, 3.0)
    length: Range = (1.0, 9.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_some("kinds", self.kinds)
        check_range("sigma", self.sigma, 0.05, _LARGEST_SIGMA)
        check_range("length", self.length, 0.0, _LONGEST_MOTION)

    def drawn(self, draws: Draws, number: int) -> Drawn:
        """Return kind, and sigma, sigmas and angle, or length and angle (radians)."""
        kind = draws.choice("kind", self.kinds)
        if kind == "isotropic":
            return {"kind": kind, "sigma": draws.value("sigma", self.sigma, number)}
        angle = draws.value("angle", (0.0, math.pi), number)
        if kind == "motion":
            return {"kind": kind, "length": draws.value("length", self.length, number), "angle": angle}
        along, across = (draws.value(name, self.sigma, number) for name in ("sigma", "sigma across"))
        return {"kind": kind, "sigma": along, "across": across, "angle": angle}

    def change(self, picture: Frame, number: int, draws: Draws, target: Target) -> Frame:
        """Return the picture blurred."""
        import cv2

        drawn = self.drawn(draws, number)
        if drawn["kind"] == "isotropic":
            line = gaussian_line(float(drawn["sigma"]))
            return cv2.sepFilter2D(picture, -1, line, line)
        return cv2.filter2D(picture, -1, kernel_of(drawn))


@dataclass(frozen=True, kw_only=True)
class Resize(Operation):
    """Resize; pixels keep their places, for all of a picture becomes all of the next.

    Attributes:
        scale: the new sides over those of the LR frames; 1 in a recipe's last resize.
        methods: ``area`` (means; bilinear where it enlarges), ``bilinear`` and ``bicubic`` as OpenCV has them, without
            antialiasing, or ``imresize``, MATLAB's antialiased bicubic as in BI.
    """

    scale: Range = (1.0, 1.0)
    methods: tuple[ResizeMethod, ...] = ("area", "bilinear", "bicubic")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_some("methods", self.methods)
        check_range("scale", self.scale, 0.1, 8.0)

    @property
    def ends(self) -> bool:
        """Whether it gives LR frames of the right size, always."""
        return self.scale == (1.0, 1.0) and self.chance == 1

    def drawn(self, draws: Draws, number: int) -> Drawn:
        """Return method and scale."""
        method = draws.choice("method", self.methods)
        return {"method": method, "scale": draws.value("scale", self.scale, number)}

    def change(self, picture: Frame, number: int, draws: Draws, target: Target) -> Frame:
        """Return the picture in its new size."""
        import cv2

        drawn = self.drawn(draws, number)
        height, width = (max(1, round(float(drawn["scale"]) * side)) for side in (target.height, target.width))
        if (height, width) == picture.shape[:2]:
            return picture
        method = drawn["method"]
        if method == "imresize":
            return imresize(picture, height, width)
        if method == "area" and (height > picture.shape[0] or width > picture.shape[1]):
            method = "bilinear"
        how = {"area": cv2.INTER_AREA, "bilinear": cv2.INTER_LINEAR, "bicubic": cv2.INTER_CUBIC}
        return cv2.resize(picture, (width, height), interpolation=how[str(method)])


@dataclass(frozen=True, kw_only=True)
class Noise(Operation):
    """Add noise, drawn anew for every pixel of every frame.

    Attributes:
        kinds: ``gaussian``, the same everywhere, or ``poisson``, that of counted photons, stronger where it is bright.
        sigma: standard deviation of Gaussian noise, grey levels.
        scale: standard deviation of Poisson noise, grey levels, over the root of the pixel's value.
        grey: share of the clips whose noise is the same in red, green and blue.
    """

    kinds: tuple[NoiseKind, ...] = ("gaussian", "poisson")
    sigma: Range = (1.0, 30.0)
    scale: Range = (0.05, 3.0)
    grey: float = 0.4

    def __post_init__(self) -> None:
        super().__post_init__()
        check_some("kinds", self.kinds)
        check_range("sigma", self.sigma, 0.0, 128.0)
        check_range("scale", self.scale, 0.0, 16.0)
        if not 0 <= self.grey <= 1:
            raise ValueError(f"grey: must be from 0 to 1, got {self.grey:g}")

    def drawn(self, draws: Draws, number: int) -> Drawn:
        """Return kind, colour or grey, and sigma or scale."""
        kind = draws.choice("kind", self.kinds)
        colour = "grey" if draws.once("grey") < self.grey else "colour"
        name, between = ("sigma", self.sigma) if kind == "gaussian" else ("scale", self.scale)
        return {"kind": kind, "in": colour, name: draws.value(name, between, number)}

    def change(self, picture: Frame, number: int, draws: Draws, target: Target) -> Frame:
        """Return the picture with noise."""
        drawn = self.drawn(draws, number)
        channels = 1 if drawn["in"] == "grey" else picture.shape[2]
        normals = draws.normals(number, (*picture.shape[:2], channels))
        values = picture.astype(np.float32)
        if drawn["kind"] == "gaussian":
            noise = np.float32(drawn["sigma"]) * normals
        else:  # a normal distribution with Poisson's variance and, to first order, its skewness
            scale = np.float32(drawn["scale"])
            mean = values if channels > 1 else values.mean(axis=2, keepdims=True)
            noise = scale * np.sqrt(mean) * normals + scale**2 / 6 * (normals**2 - 1)
        return np.clip(values + noise + 0.5, 0, 255).astype(np.uint8)


@dataclass(frozen=True, kw_only=True)
class Jpeg(Operation):
    """Compress every frame for itself as JPEG, as Pillow does, with chroma of half the size.

    Attributes:
        quality: libjpeg's, 1 to 100.
    """

    quality: Range = (30.0, 95.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("quality", self.quality, 1, 100)

    def drawn(self, draws: Draws, number: int) -> Drawn:
        """Return the quality, a whole number."""
        return {"quality": round(draws.value("quality", self.quality, number))}

    def change(self, picture: Frame, number: int, draws: Draws, target: Target) -> Frame:
        """Return the picture compressed."""
        from PIL import Image

        file = io.BytesIO()
        quality = int(self.drawn(draws, number)["quality"])
        Image.fromarray(picture).save(file, "JPEG", quality=quality, subsampling="4:2:0")
        with Image.open(file) as image:
            return np.asarray(image)


def check_range(name: str, between: Range, least: float, most: float) -> None:
    """Raise ValueError unless ``between`` is two ascending numbers from ``least`` to ``most``."""
    low, high = between
    if not low <= high:
        raise ValueError(f"{name}: must be two numbers, the smaller first, got [{low:g}, {high:g}]")
    if not least <= low <= high <= most:
        raise ValueError(f"{name}: must be from {least:g} to {most:g}, got [{low:g}, {high:g}]")


def check_some(name: str, options: Sequence[str]) -> None:
    """Raise ValueError if there is nothing to choose from."""
    if not options:
        raise ValueError(f"{name}: is empty; name at least one")


@lru_cache(maxsize=64)
def gaussian_line(sigma: float) -> NDArray[np.float32]:
    """Return a Gaussian's kernel along a line, sum 1; its outer product with itself is that of the plane."""
    radius = math.ceil(3 * sigma)
    weights = np.exp(-(np.arange(-radius, radius + 1) ** 2) / (2 * sigma**2))
    return (weights / weights.sum()).astype(np.float32)


def kernel_of(drawn: Drawn) -> NDArray[np.float32]:
    """Return the kernel, of odd sides, that :meth:`Blur.drawn` describes."""
    if drawn["kind"] == "isotropic":
        line = gaussian_line(float(drawn["sigma"]))
        return np.outer(line, line)
    motion = drawn["kind"] == "motion"
    length = float(drawn["length"]) if motion else 0.0
    sigmas = (1.0, 1.0) if motion else (float(drawn["sigma"]), float(drawn["across"]))
    radius = math.ceil(length / 2) + 1 if motion else math.ceil(3 * max(sigmas))
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    cosine, sine = math.cos(float(drawn["angle"])), math.sin(float(drawn["angle"]))
    along, across = x * cosine + y * sine, y * cosine - x * sine
    if motion:  # a line one pixel wide: each pixel's weight falls with its distance from it
        beyond = np.maximum(np.abs(along) - length / 2, 0)
        weights = np.maximum(1 - np.hypot(beyond, across), 0)
    else:
        weights = np.exp(-((along / sigmas[0]) ** 2 + (across / sigmas[1]) ** 2) / 2)
    return (weights / weights.sum()).astype(np.float32)
