"""A network written as an exported program, after it has been compared with the network."""

import io
import warnings
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.export import Dim, ExportedProgram

from mana_dist import storage
from mana_dist.console import log
from mana_dist.errors import UserError, one_line
from mana_dist.export.compare import Run, compare
from mana_dist.export.config import FORMATS
from mana_dist.model import Mana
from mana_dist.model_names import PRETRAINED
from mana_dist.ops.plain import ReplaceOperators
from mana_dist.registry import model_folder, pretrained

_LEAST_SIDE = 8
_TRACED_WITH = 32, 48  # any would do: height and width are symbols


class Exported(NamedTuple):
    """What was written.

    Attributes:
        out: the file.
        difference: the largest between its results and the network's, where rounding does not decide a search.
        undecided: the share of output pixels where it may: winner and runner-up are less than 1e-4 apart.
    """

    out: str
    difference: float
    undecided: float


def export(
    model: str, out: str, to: str = "onnx", tracking_uri: str | None = None, *, overwrite: bool = False
) -> Exported:
    """Write a model as a file, which takes ``frames`` (1, 3T, H, W) and gives ``centre`` (1, 3, sH, sW).

    Both are RGB in [0, 1], float32, the result not clamped; the channels are frame by frame. H and W are at least 8.

    Args:
        model: as for :func:`mana_dist.registry.model_folder.load`.
        out: URI of the file.
        to: ``onnx`` or ``torch-export``.
        tracking_uri: URI of MLflow, for names in its registry.
        overwrite: whether a file that is there may be replaced.

    Raises:
        UserError: there is no such model, it cannot be exported, or the file cannot be written.
    """
    if to not in FORMATS:
        raise UserError(f"{to}: no such format; only {', '.join(FORMATS)}")
    if not out.endswith(FORMATS[to]):
        raise UserError(f"{out}: the file's name must end with {FORMATS[to]}, for {to}")
    if not overwrite and storage.exists(out):
        raise UserError(f"{out}: is there already; --overwrite replaces it")
    if to == "onnx":
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    pretrained.announce(model, "MODEL for another" if model == PRETRAINED else "")
    network, config = model_folder.load(model, tracking_uri)
    try:
        program = _program(network.requires_grad_(False))
        data, run = _WRITERS[to](program)
    except RuntimeError as error:  # of torch's exporters: what a kind of attention of one's own may run into
        raise UserError(f"{model}: {config.model.attention} cannot be exported: {one_line(error)[:300]}") from error
    found = compare(network, run)
    log.info(f"checked: {found}")
    if not found.is_equal:
        raise UserError(f"{model}: the exported network differs from the network; nothing was written")
    try:
        storage.write_bytes(out, data)
    except OSError as error:
        raise UserError(f"{out}: cannot be written ({error.strerror or error})") from error
    log.info(f"{out}: {config.model.frames} frames to one, {config.model.scale} times per side, {len(data)} bytes")
    return Exported(out, found.difference, found.undecided)


class _Window(nn.Module):
    """The network on one window whose frames are channels, as players of ONNX files give them."""

    def __init__(self, network: Mana) -> None:
        super().__init__()
        self.network = network

    def forward(self, frames: Tensor) -> Tensor:
        """(1, 3T, H, W) -> (1, 3, sH, sW)."""
        with ReplaceOperators(lambda _, plain, arguments: plain.run(*arguments)):
            centre: Tensor = self.network(frames.unflatten(1, (-1, 3)))
        return centre


def _program(network: Mana) -> ExportedProgram:
    sides = {2: Dim("height", min=_LEAST_SIDE), 3: Dim("width", min=_LEAST_SIDE)}
    window = torch.rand(1, 3 * network.config.frames, *_TRACED_WITH)
    program = torch.export.export(_Window(network), (window,), dynamic_shapes=(sides,), strict=False)
    for node in program.graph.nodes:
        if isinstance(node.target, OpOverload) and node.target.namespace != "aten":
            raise UserError(
                f"attention {network.config.attention} cannot be exported: its operator {node.target} has no form in "
                "plain operations (mana_dist/ops/plain.py)"
            )
    return program


def _onnx(program: ExportedProgram) -> tuple[bytes, Run]:
    import onnxruntime

    with warnings.catch_warnings(action="ignore"):
        made = torch.onnx.export(program, input_names=["frames"], output_names=["centre"], dynamo=True, verbose=False)
    assert made is not None
    data = made.model_proto.SerializeToString()
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    return data, lambda frames: torch.from_numpy(session.run(None, {"frames": frames.numpy()})[0])


def _torch_export(program: ExportedProgram) -> tuple[bytes, Run]:
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    return buffer.getvalue(), torch.export.load(io.BytesIO(buffer.getvalue())).module()


_WRITERS = {"onnx": _onnx, "torch-export": _torch_export}
