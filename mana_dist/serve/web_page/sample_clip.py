"""The page's own clip, drawn when it is asked for: fine lines that move, made small by the models' degradation."""

import math
from typing import Any

import numpy as np

from mana_dist.data.degradation import BI, degrade
from mana_dist.video.colours import Frame

NAME = "windmills.mp4"
_FRAMES = 48
_RATE = 25
_WIDTH, _HEIGHT = 960, 544  # before it is made a quarter of that
_INK = (250, 244, 232)
_ROWS = (
    (0.62, 60, 1.3, (52, 84, 112), 0.26, 0.62),
    (0.76, 44, 2.1, (34, 62, 88), 0.58, 0.92),
    (0.88, 28, 3.4, (18, 38, 58), 1.02, 0.70),
)
"""Of each row of hills, from far to near: height, how high they rise, pixels that they move in a frame, colour; place
and size of its mill."""


def write(path: str) -> None:
    """Write the clip, H.264 in MP4."""
    import av

    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=_RATE, options={"crf": "10"})
        stream.width, stream.height, stream.pix_fmt = _WIDTH // 4, _HEIGHT // 4, "yuv420p"
        for number in range(_FRAMES):
            small = degrade(_draw(number), BI)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(small, format="rgb24")))
        container.mux(stream.encode(None))


def _draw(number: int) -> Frame:
    from PIL import Image, ImageDraw, ImageFont

    down = np.linspace(0, 1, _HEIGHT)[:, None, None]
    sky = (1 - down) * np.array([28, 52, 110]) + down * np.array([255, 190, 128])
    image = Image.fromarray(np.broadcast_to(sky, (_HEIGHT, _WIDTH, 3)).astype(np.uint8))
    pen = ImageDraw.Draw(image)
    sun = 0.68 * _WIDTH - 0.4 * number
    pen.ellipse((sun, 0.36 * _HEIGHT, sun + 106, 0.36 * _HEIGHT + 106), fill=(255, 226, 168))
    pen.text((48, 38), "Every frame has seen its neighbours.", fill=_INK, font=ImageFont.load_default(30))
    for level, rise, speed, colour, place, size in _ROWS:

        def ground(x: Any, level: float = level, rise: float = rise, speed: float = speed) -> Any:
            t = (x + speed * number) / 150 + 5 * level
            return level * _HEIGHT - rise * (np.sin(t) + 0.4 * np.sin(2.7 * t)) / 1.4

        mill = place * _WIDTH - speed * number
        _draw_mill(pen, mill, float(ground(mill)) + 8, 100 * size, 0.03 * number / size + place)
        x = np.arange(0, _WIDTH + 8, 8)
        pen.polygon([(0, _HEIGHT), *zip(x.tolist(), ground(x).tolist(), strict=True), (_WIDTH, _HEIGHT)], fill=colour)
    return np.asarray(image)


def _draw_mill(pen: Any, x: float, foot: float, unit: float, turned: float) -> None:
    hub = foot - 1.9 * unit
    middle = np.array([x, hub])
    thin, base, top = max(round(0.022 * unit), 1), 0.2 * unit, 0.06 * unit
    pen.polygon([(x - base, foot), (x - top, hub), (x + top, hub), (x + base, foot)], _INK)
    for angle in np.arange(4) * math.pi / 2 + turned:
        along, across = np.array([math.cos(angle), math.sin(angle)]), np.array([-math.sin(angle), math.cos(angle)])
        pen.line([tuple(middle + unit * reach * along) for reach in (0.1, 1.45)], _INK, round(0.05 * unit))
        pen.line([tuple(middle + unit * (reach * along + 0.26 * across)) for reach in (0.3, 1.4)], _INK, thin)
        for rung in np.linspace(0.3, 1.4, 12):
            start = middle + unit * rung * along
            pen.line([tuple(start), tuple(start + 0.26 * unit * across)], _INK, thin)
    pen.ellipse((*(middle - 0.09 * unit), *(middle + 0.09 * unit)), fill=(60, 48, 44))
