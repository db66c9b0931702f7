"""Options of an evaluation."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from mana_dist.errors import UserError
from mana_dist.model_names import PRETRAINED

if TYPE_CHECKING:
    from mana_dist.model import Padding
    from mana_dist.model.precision import WantedPrecision


BICUBIC = "bicubic"
FRAMES_SCHEME = "frames:"
"""Before the NAME of a method of which the frames are there."""
_RESERVED = {BICUBIC: "a method", PRETRAINED: "a model", "LR": "a picture", "HR": "a picture"}


def split_label(method: str) -> tuple[str, str]:
    """Return the label and the model of ``LABEL=MODEL``; an empty label where there is none.

    A folder with ``=`` in its name has no label if ``/`` or ``:`` stands before it: ``./step=9``.
    """
    label, equals, model = method.partition("=")
    return (label, model) if equals and not set("/:") & set(label) else ("", method)


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions:
    """All that an evaluation is made by; the defaults are the paper's protocol.

    Attributes:
        data: URIs of the ground truth, each a dataset: a video, a folder of frames or of several of either, or one of
            the field's datasets.
        methods: ``bicubic``, ``pretrained``, model folders, ``models:/`` names, or ``frames:NAME=URI`` for the output
            of any other method. ``LABEL=MODEL`` gives a model the name that tables, plots and files have.
        out: URI of the folder for ``metrics.json`` and the report.
        overwrite: replace another evaluation's files there.
        degradation: name of the degradation by which LR frames are made, or given ones were; or a recipe's YAML file.
        scale: HR side over LR side, 2, 3 or 4, which is that of all models.
        lr: source of the LR frames: ``made`` by the degradation, ``given`` with the dataset, or ``auto``: given where
            the dataset has them.
        frames: ``START:STOP`` of every clip, the frames that are used.
        frame_subset: those of them that are scored: ``all``, ``inner:N`` or ``centre``; None: ``all``, of Vimeo90K
            ``centre``.
        border_crop: pixels left out along each border.
        padding: the rule for windows beyond a clip's ends.
        lpips_trunk: URI of AlexNet's convolutions (safetensors); None: torchvision's.
        top_motion: report the clips with the largest motion too: a share like ``6%``, or a number of clips.
        device: where models compute.
        precision: of the models; ``auto``: bf16 where the processors gain by it. The default is fp32, since the numbers
            decide between models, and should be the same on any machine.
        workers: processes that share the clips; None: as many as there is work and room for.
        tracking_uri: of the MLflow server where a run is logged and ``models:/`` names are looked up.
        experiment: name of that run's experiment.
        promote_if: conditions like ``psnr_rgb > @champion`` under which the alias moves to the registered model.
    """

    data: tuple[str, ...]
    methods: tuple[str, ...]
    out: str
    overwrite: bool = False
    degradation: str = "BI"
    scale: int = 4
    lr: Literal["made", "given", "auto"] = "auto"
    frames: str = ":"
    frame_subset: str | None = None
    border_crop: int = 0
    padding: "Padding" = "reflection"
    lpips_trunk: str | None = None
    top_motion: str | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: "WantedPrecision" = "fp32"
    workers: int | None = None
    tracking_uri: str | None = None
    experiment: str | None = None
    promote_if: tuple[str, ...] = ()

    def check(self) -> None:
        """Check what can be checked without reading a file.

        Raises:
            UserError: a value that makes no sense, named by its option.
        """
        for key, values in (("--method", self.methods), ("--out", [self.out])):
            # An unset variable of a shell: the working folder would be taken for it.
            if not all(value.strip() for value in values):
                raise UserError(f"{key} '': an empty name; say what is meant")
        names = [_checked_name(method) for method in self.methods]
        if twice := [name for name in names if names.count(name) > 1]:
            raise UserError(f"--method names {twice[0]} twice")
        if self.border_crop < 0:
            raise UserError(f"--border-crop {self.border_crop}: give a number of pixels, 0 or more")
        if self.workers is not None and self.workers < 1:
            raise UserError(f"--workers {self.workers}: write auto, or a number like 2")


def _checked_name(method: str) -> str:
    """Return the name of a method in the tables; that of a folder or registered model without a label is its own."""
    label, model = split_label(method)
    if model == method:
        name, _, uri = method.removeprefix(FRAMES_SCHEME).partition("=")
        return name if method.startswith(FRAMES_SCHEME) and uri else method
    if not label.strip() or not model.strip():
        raise UserError(f"--method {method}: write LABEL=MODEL, like best=models:/mana-x4/1")
    if label in _RESERVED:
        raise UserError(f"--method {method}: {label} is the name of {_RESERVED[label]} already; give another label")
    if model == BICUBIC or model.startswith(FRAMES_SCHEME):
        raise UserError(f"--method {method}: only models take a label; write {model}")
    return label
