"""LPIPS against a literal implementation; never a number from the wrong weights."""

import os
import warnings
from importlib.resources import files
from pathlib import Path
from typing import Any

import lpips
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from mana_dist.errors import UserError
from mana_dist.metrics import Unavailable
from mana_dist.metrics.lpips import Lpips, load_lpips

TRUNK = os.environ.get("MANA_TEST_LPIPS")
with_trunk = pytest.mark.skipif(
    TRUNK is None, reason="MANA_TEST_LPIPS does not name a safetensors file of AlexNet's convolutions"
)
GOLDEN = {(1, 20): 0.006520, (2, 60): 0.103084, (3, 120): 0.321738}
"""LPIPS of :func:`pair`, by seed and noise."""
SHAPES = {0: (64, 3, 11, 11), 3: (192, 64, 5, 5), 6: (384, 192, 3, 3), 8: (256, 384, 3, 3), 10: (256, 256, 3, 3)}


@pytest.fixture(scope="module")
def metric() -> Lpips:
    loaded = load_lpips(TRUNK)
    assert isinstance(loaded, Lpips)
    return loaded


def literal(trunk: dict[str, torch.Tensor], a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """The paper's equation 1 with AlexNet's layers written out."""
    linear = torch.load(str(files("lpips") / "weights" / "v0.1" / "alex.pth"), "cpu", weights_only=True)
    shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])

    def features(frame: NDArray[np.uint8]) -> list[torch.Tensor]:
        x = torch.from_numpy(frame.astype(np.float32) / 255 * 2 - 1).permute(2, 0, 1)[None]
        x = (x - shift.view(1, 3, 1, 1)) / scale.view(1, 3, 1, 1)
        found = []
        for layer, stride, padding, pool in [(0, 4, 2, 0), (3, 1, 2, 1), (6, 1, 1, 1), (8, 1, 1, 0), (10, 1, 1, 0)]:
            x = F.max_pool2d(x, 3, 2) if pool else x
            x = F.relu(F.conv2d(x, trunk[f"features.{layer}.weight"], trunk[f"features.{layer}.bias"], stride, padding))
            found.append(x / (x.pow(2).sum(1, keepdim=True).sqrt() + 1e-10))
        return found

    layers = zip(features(a), features(b), range(5), strict=True)
    return float(sum((linear[f"lin{i}.model.1.weight"] * (x - y) ** 2).sum(1).mean() for x, y, i in layers))


def pair(seed: int, noise: float, size: tuple[int, int] = (70, 64)) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    random = np.random.default_rng(seed)
    frame = np.kron(random.integers(0, 256, (18, 16, 3)), np.ones((4, 4, 1)))[: size[0], : size[1]]
    noisy = np.clip(frame + random.normal(0, noise, frame.shape), 0, 255)
    return frame.astype(np.uint8), noisy.astype(np.uint8)


@with_trunk
def test_equals_the_literal_formula(metric: Lpips) -> None:
    trunk = load_file(str(TRUNK))
    for seed in range(3):
        a, b = pair(seed, 30)
        assert metric(a, b) == pytest.approx(literal(trunk, a, b), rel=1e-4)


def packaged(trunk: dict[str, torch.Tensor]) -> torch.nn.Module:
    """The lpips package's own network, its trunk's convolutions filled in the order in which they come."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network: torch.nn.Module = lpips.LPIPS(net="alex", version="0.1", pnet_rand=True, verbose=False)
    convolutions = [
        layer for layer in network.modules() if isinstance(layer, torch.nn.Conv2d) and layer.bias is not None
    ]
    for layer, number in zip(convolutions, SHAPES, strict=True):
        layer.load_state_dict({name: trunk[f"features.{number}.{name}"] for name in ("weight", "bias")})
    return network.eval()


@with_trunk
def test_equals_the_lpips_package_with_the_same_trunk(metric: Lpips) -> None:
    network = packaged(load_file(str(TRUNK)))
    for seed in range(3):
        a, b = pair(seed, 40)
        with torch.no_grad():
            expected = network(
                *(torch.from_numpy(x / 255).float().movedim(-1, 0)[None] for x in (a, b)), normalize=True
            )
        assert metric(a, b) == pytest.approx(float(expected), rel=1e-5)


@with_trunk
def test_frames_compared_with_one_reference_equal_the_lpips_package(metric: Lpips) -> None:
    """Its features are kept for further methods, never for another frame."""
    network = packaged(load_file(str(TRUNK)))

    def expected(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
        frames = (torch.from_numpy(x.astype(np.float32) / 127.5 - 1).movedim(-1, 0)[None] for x in (a, b))
        with torch.no_grad():
            return float(network(*frames))

    for seed in range(3):
        reference, noisy = pair(seed, 20)
        _, noisier = pair(seed, 60)
        for frame in (noisy, noisier, reference, noisy):
            assert metric(frame, reference) == pytest.approx(expected(frame, reference), abs=1e-6)


@with_trunk
def test_golden_values(metric: Lpips) -> None:
    """Of the lpips package 0.1.4 with torchvision's weights, once and for all."""
    assert [metric(*pair(seed, noise)) for seed, noise in GOLDEN] == pytest.approx(list(GOLDEN.values()), rel=1e-4)


@with_trunk
def test_zero_for_equal_frames_symmetric_and_growing_with_noise(metric: Lpips) -> None:
    a, b = pair(0, 20)
    assert metric(a, a) == 0
    assert metric(a, b) == pytest.approx(metric(b, a), rel=1e-5)
    distances = [metric(*pair(0, noise)) for noise in (5, 20, 60)]
    assert distances == sorted(distances)
    assert distances[0] > 0


@with_trunk
def test_smallest_frame_works_and_a_smaller_one_is_refused(metric: Lpips) -> None:
    assert metric(*pair(0, 30, (32, 32))) > 0
    with pytest.raises(ValueError, match="at least 32"):
        metric(*pair(0, 30, (31, 64)))


def test_weights_of_the_right_shapes_but_not_alexnets_are_refused(tmp_path: Path) -> None:
    random = {f"features.{i}.weight": torch.randn(shape) * 0.05 for i, shape in SHAPES.items()}
    random |= {f"features.{i}.bias": torch.randn(shape[0]) for i, shape in SHAPES.items()}
    save_file(random, tmp_path / "trunk.safetensors")
    with pytest.raises(UserError, match="is not that of torchvision's AlexNet"):
        load_lpips(str(tmp_path / "trunk.safetensors"))


def test_missing_tensor_missing_file_and_damaged_file(tmp_path: Path) -> None:
    save_file({"conv1": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match=r"features\.0\.weight is missing"):
        load_lpips(str(tmp_path / "other.safetensors"))
    with pytest.raises(UserError, match="cannot be read"):
        load_lpips(str(tmp_path / "nowhere.safetensors"))
    (tmp_path / "broken.safetensors").write_bytes(b"not weights")
    with pytest.raises(UserError, match="not a safetensors file"):
        load_lpips(str(tmp_path / "broken.safetensors"))


def test_without_network_the_reason_comes_back_instead_of_a_number(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def offline(*_: Any, **__: Any) -> None:
        raise OSError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.urlopen", offline)
    found = load_lpips(None)
    assert isinstance(found, Unavailable)
    assert "no route to host" in found.reason
    assert "--lpips-trunk" in found.reason
