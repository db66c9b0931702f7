"""Tags of a video stream that PyAV has no attribute for: crop, pixel aspect, place of chroma."""

import re
import threading
from fractions import Fraction
from typing import Any, NamedTuple

import av

from mana_dist.video.damage_signs import heard
from mana_dist.video.orientation import UNCROPPED, Crop

_PLACES = {"left", "center", "topleft", "top", "bottomleft", "bottom"}  # ffmpeg's names of where chroma lies
_CROP = re.compile(r"^ +Frame Cropping: (\d+)/(\d+)/(\d+)/(\d+)$", re.MULTILINE)  # no tag is printed so
_DUMPING = threading.Lock()


class Shown(NamedTuple):
    """The crop, aspect and place of chroma with which a video's frames are shown.

    Attributes:
        crop: what is not shown of a frame, before it is turned.
        pixel_aspect: width over height of one pixel, before the same.
        chroma: where subsampled chroma lies, by ffmpeg's name, if nothing tags it; None: frames have a tag.
    """

    crop: Crop = UNCROPPED
    pixel_aspect: Fraction = Fraction(1)
    chroma: str | None = None


AS_DECODED = Shown()


def shown(stream: Any) -> Shown:
    """Return how the frames of a video stream are shown.

    Chroma of which nothing tags the place lies on the left, between two lines, as H.264 and MPEG-2 have it; that of
    JPEG pictures in the centre. FFmpeg's decoders tag JPEG, MPEG-1, H.263, Theora and DV as they are defined.
    """
    described = _described(stream)
    found = _CROP.search(described)
    crop = Crop(*map(int, found.groups())) if found else UNCROPPED
    untagged = "center" if (stream.codec_context.pix_fmt or "").startswith("yuvj") else "left"
    return Shown(crop, _pixel_aspect(stream, crop), None if _tags_chroma(described) else untagged)


def _tags_chroma(described: str) -> bool:
    found = re.search(r", [a-z0-9]+\((.*?)\), \d+x\d+", described.partition("\n")[0])
    return found is not None and not _PLACES.isdisjoint(found[1].split(", "))


def _pixel_aspect(stream: Any, crop: Crop) -> Fraction:
    """Return the container's pixel aspect if it has one, as players do, else the codec's."""
    aspect = Fraction(stream.sample_aspect_ratio or 1)
    if crop == UNCROPPED or "matroska" not in stream.container.format.name:
        return aspect
    # Matroska has the size to show the picture in. By its specification that is of the cropped picture, and FFmpeg
    # takes it so. mkvmerge --cropping leaves the whole picture's, which the codec's own aspect, or square pixels, show.
    context = stream.codec_context
    width, height = crop.size(context.width, context.height)
    of_whole = aspect * Fraction(width * context.height, height * context.width)
    expected = Fraction(context.sample_aspect_ratio or 1)
    return of_whole if abs(of_whole / expected - 1) < Fraction(1, min(width, height)) else aspect


def _described(stream: Any) -> str:
    """Return FFmpeg's own description of a stream, from its line on."""
    with _DUMPING, heard(av.logging.INFO):
        av.logging.set_libav_level(av.logging.VERBOSE)  # else places of chroma are left out
        try:
            text: str = stream.container.dumps_format()
        finally:
            av.logging.set_libav_level(av.logging.INFO)
    begin = re.search(rf"^  Stream #0:{stream.index}\b", text, re.MULTILINE)
    if begin is None:
        return ""
    end = re.compile(r"^  Stream #0:", re.MULTILINE).search(text, begin.end())
    return text[begin.start() : end.start() if end else None]
