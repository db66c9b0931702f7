"""LPIPS v0.1 with the AlexNet trunk (Zhang et al. 2018), also without network access."""

import contextlib
import io
import os
import socket
import warnings
from collections.abc import Iterator, Mapping
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load as parse_safetensors
from torch import Tensor

from mana_dist import storage
from mana_dist.console import log
from mana_dist.errors import UserError
from mana_dist.metrics.metric import Metric, Unavailable

SMALLEST_SIDE = 32  # pixels; the trunk's last layers have nothing left of a smaller frame
DOWNLOAD_TIMEOUT = 15.0  # seconds

# Of torchvision's AlexNet IMAGENET1K_V1: layer of `features` -> the slice of the lpips package that holds it, and the
# weight's and the bias's Euclidean norms, which differ for other weights of the same shapes.
_SLICES = {0: 1, 3: 2, 6: 3, 8: 4, 10: 5}
_NORMS = {
    0: (17.8302, 6.9415),
    3: (26.1447, 2.4407),
    6: (28.6390, 2.8077),
    8: (26.1370, 4.8138),
    10: (20.5031, 5.7020),
}
_NORM_TOLERANCE = 1e-3


class Lpips:
    """The perceptual distance of two frames: 0 for equal ones, larger is worse."""

    def __init__(self, trunk: Mapping[str, Tensor], source: str) -> None:
        """Build the metric.

        Args:
            trunk: torchvision's AlexNet convolutions, ``features.N.weight`` and ``features.N.bias``.
            source: where they come from, for messages and reports.

        Raises:
            UserError: the weights are not those of torchvision's AlexNet IMAGENET1K_V1.
        """
        self.source = source
        _check_trunk(trunk, source)
        # As the frames come, so that no layer reorders them.
        self._network = _network(trunk).to(memory_format=torch.channels_last)
        self._device = torch.device("cpu")
        self._reference: tuple[NDArray[np.uint8], list[Tensor]] | None = None

    def on(self, device: str) -> Self:
        """Move the metric to another device, and return it."""
        self._device = torch.device(device)
        self._network.to(self._device)
        self._reference = None
        return self

    def __call__(self, a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
        """Return the distance of two (H, W, 3) uint8 RGB frames, with sides of at least ``SMALLEST_SIDE``.

        The features of ``b`` are kept for the next call with this very array, so that each method costs one run of
        the trunk; its pixels must not change between such calls.
        """
        if min(*a.shape[:2], *b.shape[:2]) < SMALLEST_SIDE:
            raise ValueError(f"LPIPS needs sides of at least {SMALLEST_SIDE} pixels, got {a.shape} and {b.shape}")
        with torch.inference_mode():
            if self._reference is None or self._reference[0] is not b:
                self._reference = b, self._features(b)
            layers = zip(self._network.lins, self._features(a), self._reference[1], strict=True)
            return float(sum(weighted((x - y).square_()).mean() for weighted, x, y in layers))

    def _features(self, frame: NDArray[np.uint8]) -> list[Tensor]:
        """Return the trunk's layers, each with channels of unit length, as the lpips package normalises them."""
        image = torch.from_numpy(np.ascontiguousarray(frame)).to(self._device)
        scaled = self._network.scaling_layer(image.permute(2, 0, 1)[None].float() / 127.5 - 1)  # channels last
        return [
            layer / (torch.linalg.vector_norm(layer, dim=1, keepdim=True) + 1e-10)
            for layer in self._network.net(scaled)
        ]


def load_lpips(trunk: str | None) -> Lpips | Unavailable:
    """Load LPIPS with the trunk of a file, or of torchvision where its weights are cached or can be downloaded.

    Args:
        trunk: URI of a safetensors file with torchvision's AlexNet convolutions.

    Raises:
        UserError: ``trunk`` is given and cannot be used; without it, a failure is :class:`Unavailable`.
    """
    if trunk is not None:
        return Lpips(_read_trunk(trunk), trunk)
    from torchvision.models import AlexNet_Weights

    weights = AlexNet_Weights.IMAGENET1K_V1
    if not os.path.exists(os.path.join(torch.hub.get_dir(), "checkpoints", weights.url.rpartition("/")[2])):
        log.info(f"LPIPS: downloading {weights.url}")
    try:
        with _socket_timeout(DOWNLOAD_TIMEOUT), contextlib.redirect_stdout(io.StringIO()):  # torch prints the URL too
            state = weights.get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError) as error:
        return Unavailable(
            f"AlexNet's weights could not be downloaded ({error}); give --lpips-trunk FILE "
            "(safetensors with torchvision's features.* of AlexNet)"
        )
    return Lpips(state, f"torchvision AlexNet {weights.name}")


def _read_trunk(uri: str) -> dict[str, Tensor]:
    try:
        weights: dict[str, Tensor] = parse_safetensors(storage.read_bytes(uri))
    except OSError as error:
        raise UserError(f"--lpips-trunk {uri}: cannot be read ({error})") from error
    except SafetensorError as error:
        raise UserError(f"--lpips-trunk {uri}: not a safetensors file ({error})") from error
    return weights


def _check_trunk(trunk: Mapping[str, Tensor], source: str) -> None:
    for layer, norms in _NORMS.items():
        for kind, norm in zip(("weight", "bias"), norms, strict=True):
            name = f"features.{layer}.{kind}"
            if name not in trunk:
                raise UserError(f"LPIPS trunk {source}: tensor {name} is missing; torchvision's AlexNet has it")
            if abs(float(trunk[name].double().norm()) / norm - 1) > _NORM_TOLERANCE:
                raise UserError(f"LPIPS trunk {source}: {name} is not that of torchvision's AlexNet IMAGENET1K_V1")


def _network(trunk: Mapping[str, Tensor]) -> Any:
    import lpips

    # pnet_rand: the package would otherwise download the trunk; its random one is overwritten below.
    with warnings.catch_warnings(), torch.random.fork_rng(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        network = lpips.LPIPS(net="alex", version="0.1", pnet_rand=True, verbose=False)
    named = {
        f"net.slice{part}.{layer}.{kind}": trunk[f"features.{layer}.{kind}"]
        for layer, part in _SLICES.items()
        for kind in ("weight", "bias")
    }
    expected = {name for name in network.state_dict() if name.startswith("net.")}
    if expected != named.keys():
        raise RuntimeError(f"this version of the lpips package names its trunk otherwise: {sorted(expected)}")
    network.load_state_dict(named, strict=False)
    return network.eval()


@contextlib.contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


LPIPS = Metric(
    name="lpips",
    label="LPIPS",
    unit="",
    what="learned perceptual distance",
    definition="v0.1 AlexNet",
    digits=4,
    larger_is_better=False,
    smallest_side=SMALLEST_SIDE,
    in_sweeps=True,
    load=load_lpips,
)
