"""Settings of upscaling and encoding: everything but the source and the model."""

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from mana_dist.errors import UserError
from mana_dist.video.frame_names import parse_frame_range

Codec = Literal["h264", "hevc", "av1", "ffv1", "png"]
MemoryLimit = int | Literal["auto"] | None

SEGMENT_FRAMES = 240
"""Number of frames of a segment, about: what a kill loses at most, and a cluster's unit of work."""
LEAST_SEGMENT_FRAMES = 8
PICTURES_PER_SECOND = 25
ALL_FRAMES = ":"

_SPEEDS = (
    *("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow", "placebo"),
)


@dataclass(frozen=True)
class CodecTraits:
    """An encoder, and the formats and options that it takes.

    Attributes:
        encoder: FFmpeg's name of the encoder.
        formats: pixel formats by bits.
        crf: the default constant rate factor; None: it has none, being lossless.
        most_crf: the highest.
        presets: their names, from fast to slow or as the encoder has them; empty: it has none.
        preset: the default.
        least_side: pixels of a frame's height and width at least: of smaller frames x265 makes other bytes every time,
            and of the smallest it corrupts its memory.
    """

    encoder: str
    formats: dict[int, str]
    crf: int | None = None
    most_crf: int = 0
    presets: tuple[str, ...] = ()
    preset: str = ""
    least_side: int = 1


CODECS: dict[Codec, CodecTraits] = {
    "h264": CodecTraits("libx264", {8: "yuv420p", 10: "yuv420p10le"}, 16, 51, _SPEEDS, "medium"),
    "hevc": CodecTraits("libx265", {8: "yuv420p", 10: "yuv420p10le"}, 18, 51, _SPEEDS, "medium", least_side=128),
    "av1": CodecTraits(
        "libsvtav1",
        {8: "yuv420p", 10: "yuv420p10le"},
        24,
        63,
        tuple(str(number) for number in range(14)),
        "8",
        least_side=64,
    ),
    "ffv1": CodecTraits("ffv1", {8: "bgr0", 10: "gbrp10le"}),
    "png": CodecTraits("png", {8: "rgb24", 10: "rgb48be"}),
}


@dataclass(frozen=True)
class Settings:
    """Settings of upscaling and encoding.

    Attributes:
        codec: ``ffv1`` and ``png`` are without loss, and RGB.
        crf: constant rate factor, less is better and larger; None: the codec's default.
        preset: speed against size; None: the codec's default.
        bits: 10 keeps 10 bits where the source has more than 8; 8 gives 8 bits always.
        precision: precision of the network: ``auto`` is bf16 where the processor gains by it, else fp32.
        device: ``auto``, ``cpu`` or ``cuda``.
        memory: MiB for the network's activations, a frame that needs more is done in tiles; ``auto``: half of what is
            free when the work begins; None: never tiled.
        segment: about how many frames to a segment.
        compare: whether to make a side-by-side too.
        threads: threads of the network on a CPU, on which the last bits of sums depend; None: OMP_NUM_THREADS, or as
            many as there are cores.
        keep_gaps: whether times that jump ahead, or begin late, stay as they are.
        frames: which of the source's frames are upscaled, ``START:STOP``; the result begins at 0 with the first.
        fps: frames per second of a folder of pictures; None: :data:`PICTURES_PER_SECOND`.
    """

    codec: Codec = "h264"
    crf: int | None = None
    preset: str | None = None
    bits: Literal[8, 10] = 10
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    memory: MemoryLimit = "auto"
    segment: int = SEGMENT_FRAMES
    compare: bool = False
    threads: int | None = None
    keep_gaps: bool = False
    frames: str = ALL_FRAMES
    fps: float | None = None

    @property
    def rate(self) -> Fraction:
        """Frames per second of a folder of pictures; 23.976 and its like are exact multiples of 1/1001."""
        return Fraction(self.fps or PICTURES_PER_SECOND).limit_denominator(1001)

    @property
    def traits(self) -> CodecTraits:
        """The codec's traits."""
        return CODECS[self.codec]

    def check(self) -> None:
        """Check what can be checked without a file.

        Raises:
            UserError: a value that makes no sense, named by its option.
        """
        traits = self.traits
        if self.crf is not None and traits.crf is None:
            raise UserError(f"--crf {self.crf}: {self.codec} is lossless; leave it out or use h264, hevc or av1")
        if self.crf is not None and not 0 <= self.crf <= traits.most_crf:
            raise UserError(f"--crf must be from 0 (best) to {traits.most_crf} for {self.codec}, got {self.crf}")
        if self.preset is not None and self.preset not in traits.presets:
            presets = ", ".join(traits.presets) or "none"
            raise UserError(f"--preset {self.preset}: {self.codec} does not have it; it has {presets}")
        if isinstance(self.memory, int) and self.memory < 1:
            raise UserError(f"--memory must be at least 1 MiB, or auto or none, got {self.memory}")
        if self.threads is not None and self.threads < 1:
            raise UserError(f"--threads must be at least 1, got {self.threads}")
        if self.segment < LEAST_SEGMENT_FRAMES:
            raise UserError(f"--segment must be at least {LEAST_SEGMENT_FRAMES} frames, got {self.segment}")
        parse_frame_range(self.frames)
        if self.fps is not None and not 1 / 1001 <= self.fps <= 1000:
            raise UserError(f"--fps must be from 1/1001 to 1000 frames per second, got {self.fps:g}")
