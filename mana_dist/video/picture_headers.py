"""Counters in the headers of coded pictures, read by FFmpeg's ``trace_headers``."""

from dataclasses import dataclass, field, replace
from typing import Any

import av
from av.bitstream import BitStreamFilterContext

from mana_dist.video.damage_signs import heard

_IDR = {"h264": {5}, "hevc": {16, 17, 18, 19, 20}}  # NAL units of pictures at which counting begins anew
_SLICES = {"h264": {1, 5}, "hevc": set(range(22))}
_B_PICTURE = 3  # of MPEG-2
_SHOW_AGAIN = "show_existing_frame"
_NAMES = frozenset(
    {
        *("nal_unit_type", "nal_ref_idc", "frame_num", "pic_order_cnt_lsb", "slice_pic_order_cnt_lsb"),
        *("log2_max_frame_num_minus4", "log2_max_pic_order_cnt_lsb_minus4", "gaps_in_frame_num_allowed_flag"),
        *("field_pic_flag", "memory_management_control_operation", "temporal_reference", "picture_structure"),
        "picture_coding_type",
        *("group_start_code", "order_hint_bits_minus_1", "order_hint", "refresh_frame_flags", "show_frame"),
        *(_SHOW_AGAIN, "frame_to_show_map_idx", "frame_type"),
    }
)


@dataclass(frozen=True)
class PictureHeader:
    """The place of a packet's picture, by its header.

    Attributes:
        order: its place in display order, rising evenly within an epoch; None if the codec does not count.
        epoch: which beginning ``order`` counts from.
        lacks_reference: whether a picture that others refer to is missing before it.
    """

    order: int | None
    epoch: int
    lacks_reference: bool = False


NO_HEADER = PictureHeader(None, 0)


@dataclass
class HeaderReader:
    """The reader of the headers of H.264, HEVC, AV1 and MPEG-2 packets, which come in the order of decoding.

    Attributes:
        codec: FFmpeg's name of it.
        stream: PyAV's.
    """

    stream: Any
    codec: str = field(init=False)
    _filter: Any = field(default=None, init=False)
    _modulus: int = field(default=0, init=False)  # at which ``order`` begins again at 0
    _frame_nums: int = field(default=0, init=False)  # the same of H.264's frame_num; 0: it may leave numbers out
    _last_reference: int | None = field(default=None, init=False)  # frame_num of the last picture to be referred to
    _last: int | None = field(default=None, init=False)
    _epoch: int = field(default=0, init=False)
    _anchors: tuple[PictureHeader, PictureHeader] = field(default=(NO_HEADER, NO_HEADER), init=False)  # of MPEG-2
    _slots: list[int | None] = field(default_factory=lambda: [None] * 8, init=False)  # AV1's held pictures

    def __post_init__(self) -> None:
        """Open the filter, which reads the headers that are in the container."""
        self.codec = {"libdav1d": "av1"}.get(self.stream.codec_context.name, self.stream.codec_context.name)
        if self.codec not in ("h264", "hevc", "av1", "mpeg2video"):
            return
        self._modulus = 1024 if self.codec == "mpeg2video" else 0
        try:
            with heard(av.logging.INFO) as lines:
                self._filter = BitStreamFilterContext("trace_headers", self.stream)
        except (av.FFmpegError, ValueError):  # headers that cannot be read, or no such filter in this FFmpeg
            return
        self._take_in(_fields(lines))

    def read(self, packet: Any) -> PictureHeader:
        """Read the header of this PyAV packet; without an order if it cannot be read."""
        if self._filter is None:
            return PictureHeader(None, self._epoch)
        try:
            with heard(av.logging.INFO) as lines:
                self._filter.filter(av.Packet(bytes(packet)))  # a copy: the filter empties what it is given
        except av.FFmpegError:
            return PictureHeader(None, self._epoch)
        fields = _fields(lines)
        self._take_in(fields)
        if self.codec == "av1":
            return self._of_av1(fields, packet.is_keyframe)
        if self.codec == "mpeg2video":
            return self._of_mpeg2(fields)
        return self._of_nal_units(fields)

    def _take_in(self, fields: list[tuple[str, int]]) -> None:
        for name, value in fields:
            if name == "log2_max_pic_order_cnt_lsb_minus4":
                self._modulus = 1 << (value + 4)
            elif name == "log2_max_frame_num_minus4":
                self._frame_nums = 1 << (value + 4)
            elif name == "gaps_in_frame_num_allowed_flag" and value:
                self._frame_nums = 0
            elif name == "order_hint_bits_minus_1":
                self._modulus = 1 << (value + 1)

    def _of_nal_units(self, fields: list[tuple[str, int]]) -> PictureHeader:
        kind, is_reference, first = -1, False, dict[str, int]()
        for name, value in fields:
            if name == "nal_unit_type" and kind not in _SLICES[self.codec]:
                kind = value
            elif name == "nal_ref_idc" and not first:
                is_reference = value > 0
            elif kind in _SLICES[self.codec]:
                first.setdefault(name, value)
                if (name, value) == ("memory_management_control_operation", 5):
                    first["begins_again"] = 1
        if kind not in _SLICES[self.codec]:
            return PictureHeader(None, self._epoch)
        is_idr = kind in _IDR[self.codec]
        lacks = self._lacks_reference(first, is_idr=is_idr, is_reference=is_reference)
        if self.codec == "h264":  # without a count of its own, the order of display is that of decoding
            order, modulus = first.get("pic_order_cnt_lsb"), self._modulus
            if order is None:
                order, modulus = first.get("frame_num"), self._frame_nums
        else:
            order, modulus = first.get("slice_pic_order_cnt_lsb", 0 if is_idr else None), self._modulus
        if first.get("field_pic_flag"):
            order = None  # a packet may hold one field or both
        return self._numbered(order, modulus, begins=is_idr, lacks=lacks)

    def _lacks_reference(self, first: dict[str, int], *, is_idr: bool, is_reference: bool) -> bool:
        """Return whether H.264's frame_num, which counts the pictures that others refer to, left one out (7.4.3)."""
        number, before = first.get("frame_num"), self._last_reference
        if number is None or not self._frame_nums:
            return False
        if is_reference or is_idr:
            self._last_reference = 0 if "begins_again" in first else number
        return not is_idr and before is not None and (number - before) % self._frame_nums > 1

    def _of_mpeg2(self, fields: list[tuple[str, int]]) -> PictureHeader:
        first = dict[str, int]()
        for name, value in fields:
            first.setdefault(name, value)
        whole = first.get("picture_structure", 3) == 3
        order = first.get("temporal_reference") if whole else None
        header = self._numbered(order, self._modulus, begins="group_start_code" in first)
        if header.order is None:
            return header
        # A B picture is shown between the two others that were coded last, any other after them.
        is_between = first.get("picture_coding_type") == _B_PICTURE
        places = [
            header.order - (anchor.order or 0) if anchor.epoch == header.epoch else None for anchor in self._anchors
        ]
        earlier, later = places
        if is_between:
            lacks = (earlier is not None and earlier < 0) or (later is not None and later > 0)
        else:
            lacks = later is not None and later < 0
            self._anchors = self._anchors[1], header
        return replace(header, lacks_reference=lacks)

    def _of_av1(self, fields: list[tuple[str, int]], is_key: bool) -> PictureHeader:
        shown: int | None = None
        hint, again, shows = 0, False, False
        for name, value in fields:
            if name == _SHOW_AGAIN:
                again = bool(value)
            elif name == "frame_to_show_map_idx" and again:
                shown = self._slots[value]
            elif name == "show_frame":
                shows = bool(value)
            elif name == "order_hint":
                hint = value
                shown = hint if shows else shown
            elif name == "refresh_frame_flags":
                self._slots = [hint if value >> slot & 1 else held for slot, held in enumerate(self._slots)]
        return self._numbered(shown, self._modulus, begins=is_key)

    def _numbered(self, order: int | None, modulus: int, *, begins: bool, lacks: bool = False) -> PictureHeader:
        """Add what headers leave out of ``order``, a multiple of ``modulus``: the nearest to the last one is meant."""
        if begins:
            self._epoch += 1
            self._last = None
        if order is None or not modulus:
            return PictureHeader(None, self._epoch, lacks)
        if self._last is not None:
            half = modulus // 2
            order = self._last + (order - self._last + half) % modulus - half
        self._last = order
        return PictureHeader(order, self._epoch, lacks)


def _fields(lines: list[str]) -> list[tuple[str, int]]:
    """Parse names and values from lines like ``15 frame_num 0011 = 3``."""
    found = []
    for line in lines:
        parts = line.split()
        if len(parts) >= 4 and parts[1] in _NAMES and parts[-2] == "=":
            found.append((parts[1], int(parts[-1])))
    return found
