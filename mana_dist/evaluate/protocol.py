"""Every choice that changes a number, as data, which is written beside the numbers."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from mana_dist.data.resize import IMRESIZE, ROUNDED
from mana_dist.evaluate import neighbours
from mana_dist.metrics import METRICS
from mana_dist.model.precision import Precision
from mana_dist.progress import count
from mana_dist.video import READER_VERSION


@dataclass(frozen=True, kw_only=True)
class MethodSource:
    """Where a method's frames come from.

    Attributes:
        name: the method's, as in the table.
        uri: the folder of a model or of other methods' frames, absolute; ``models:/NAME/VERSION`` of a registered
            model, whichever way it was named; ``pretrained`` of that one; empty for bicubic.
        sha256: of a model's ``model.safetensors``; empty where there is none, as all that follows.
        attention: kind of a model's attention.
        memory_slots: columns of a model's memory.
        window: side of a model's search window, LR pixels.
        frames: number of frames of a model's windows.
    """

    name: str
    uri: str = ""
    sha256: str = ""
    attention: str = ""
    memory_slots: int | None = None
    window: int | None = None
    frames: int | None = None

    def __str__(self) -> str:
        if not self.sha256:
            return f"{self.name} is {self.uri}" if self.uri else self.name
        return (
            f"{self.name} is {self.uri}, SHA-256 {self.sha256}, {self.attention} attention, "
            f"{self.memory_slots} memory slots, search window {self.window}, {self.frames} frames"
        )


@dataclass(frozen=True, kw_only=True)
class DatasetProtocol:
    """The choices for one dataset.

    Attributes:
        name: unique in the evaluation.
        uri: as given.
        layout: name of its layout.
        clips: their number.
        lr: ``made`` by the degradation, or ``given:`` and the folder.
        frame_subset: the scored frames of each clip.
        digest: of the HR frames that the methods saw, whole, and of the LR frames if they were given; the same for the
            same frames in another layout.
        notes: what was left out.
    """

    name: str
    uri: str
    layout: str
    clips: int
    lr: str
    frame_subset: str
    digest: str = ""
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        notes = "".join(f"; {note}" for note in self.notes)
        return f"{self.name} ({count(self.clips, 'clip')}, LR {self.lr}, scored frames: {self.frame_subset}{notes})"


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """All choices of an evaluation.

    Attributes:
        data: URIs of the clips or of folders of clips.
        degradation: name of the degradation by which LR frames are made, or given ones were.
        degradation_definition: that degradation in words, for LR frames that are made.
        degradation_version: changes whenever the degradation's values do.
        frames: frames of each clip that are used: ``all``, or START:STOP (STOP excluded). Clips are cut to these
            frames first, so that windows do not see others.
        lpips: version and trunk of the metric, or why there is none.
        padding: the rule for windows beyond a clip's ends.
        device: where the methods ran.
        precision: of the models' arithmetic.
        datasets: the choices for each dataset.
        models: where each method's frames come from.
        bicubic: definition of the method of that name.
        lr: source of the LR frames: made, given, or auto (given where the dataset has them).
        frame_subset: used frames that are scored; the windows see all used frames.
        border_crop: HR pixels left out along each border before anything is compared.
        reader: version of the reader of videos.
        colour: how a video's frames become RGB; folders of pictures are RGB as they are.
        pictures: how picture files become 8-bit RGB.
        scale: HR side over LR side.
        size: what is done to frames whose sides do not divide by the scale.
        quantised: type of the methods' frames that are compared.
        psnr: definition.
        ssim: definition.
        luma: definition of the Y channel.
        mean: the order of averaging.
        infinite_psnr: how it is written.
        motion: definition of a clip's motion.
        neighbour_gain: definition, and the frames on which it is taken.
        match_error: the same.
        mana_dist: this package's version.
        metrics: definitions of further metrics, by name.
    """

    data: list[str]
    degradation: str
    degradation_definition: str
    degradation_version: int
    frames: str
    lpips: str
    padding: str
    device: str
    mana_dist: str
    datasets: tuple[DatasetProtocol, ...] = field(default=())
    models: tuple[MethodSource, ...] = ()
    bicubic: str = f"{IMRESIZE}, by 4; borders mirrored, the edge pixel repeated; {ROUNDED}"
    lr: str = "auto"
    frame_subset: str = "all; of Vimeo90K's septuplets the centre frame"
    border_crop: int = 0
    precision: Precision = "fp32"
    reader: int = READER_VERSION
    colour: str = (
        "matrix and range as tagged; untagged: BT.709 from 720 lines, else BT.601; limited range; chroma bilinear "
        "(swscale, accurate_rnd, full_chroma_int) from where it is tagged, else left; rounded once"
    )
    pictures: str = "16 bits: value / 257, rounded; grey: R = G = B; alpha dropped"
    scale: int = 4
    size: str = "HR cropped to multiples of 4 at the bottom and the right"
    quantised: str = "uint8, clamped, rounded half up"
    psnr: str = METRICS["psnr_rgb"].definition
    ssim: str = METRICS["ssim_rgb"].definition
    luma: str = METRICS["psnr_y"].definition
    mean: str = "over frames, then over clips"
    infinite_psnr: str = "null (some frame equals the ground truth)"
    motion: str = "mean length of Farneback's optical flow between neighbouring LR frames (luma), LR pixels per frame"
    neighbour_gain: str = neighbours.GAIN.definition
    match_error: str = neighbours.MATCH_ERROR.definition
    metrics: Mapping[str, str] = field(default_factory=dict)

    def entries(self) -> dict[str, Any]:
        """Return every choice by name, as files and reports list them."""
        named = {entry.name: getattr(self, entry.name) for entry in fields(self) if entry.name != "metrics"}
        return named | dict(self.metrics)
