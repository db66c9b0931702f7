"""MANA: a frame encoder, two attentions and a decoder (paper figure 2)."""

import contextlib
import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mana_dist.model.activation import leaky_relu
from mana_dist.model.alignment import KINDS, Sizes
from mana_dist.model.config import ModelConfig


class FrameEmbedding(NamedTuple):
    """What one frame contributes to every window it is in: computed once, used up to T times.

    Attributes:
        feature: F, (B, C, H, W), un-normalised.
        key: K, (B, C', H, W); of an alignment without attention what it looks at instead.
        value: V, (B, C', H, W), or nothing, no channels.
    """

    feature: Tensor
    key: Tensor
    value: Tensor


class ResidualBlock(nn.Module):
    """x + conv(ReLU(conv(x))), 3x3, no normalisation (paper figure 5a)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        # In place what no gradient needs: at a frame's size the memory that is not touched is the time that is saved.
        residual: Tensor = self.conv2(F.relu(self.conv1(x), inplace=True))
        return residual.add_(x)


class MemoryAttention(nn.Module):
    """Memory-augmented attention over a learned bank M of N columns (paper section 3.3, equation 3).

    Y = softmax(Q M) M^T with no extra scale, then a 1x1 convolution to C that starts at zero. M starts standard
    normal, so that its columns lie where queries do and are told apart from the first step.

    Y is computed in float32 (or wider) whatever the precision: logits reach some tens, which bf16 rounds by up to an
    eighth, and that moved Y by 0.6 to 1.9 %.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        inner = config.channels // 2
        self.bank = nn.Parameter(torch.randn(inner, config.memory_slots))
        self.project = nn.Conv2d(inner, config.channels, 1)
        nn.init.zeros_(self.project.weight)
        nn.init.zeros_(self.project.bias)  # type: ignore[arg-type]

    def read(self, query: Tensor) -> Tensor:
        """Q (B, C', H, W) -> Y (B, C', H, W), float32 or wider, before the projection."""
        batch, _, height, width = query.shape
        wide = torch.promote_types(query.dtype, torch.float32)
        with _without_autocast(query):
            rows, bank = query.flatten(2).transpose(1, 2).to(wide), self.bank.to(wide)
            weights = (rows @ bank).softmax(-1)
            return (weights @ bank.t()).transpose(1, 2).reshape(batch, -1, height, width)

    def forward(self, query: Tensor, project: bool = True) -> Tensor:
        """Q (B, C', H, W) -> the projected Y (B, C, H, W), or Y itself, (B, C', H, W), if not ``project``."""
        reading = self.read(query)
        return self.project(reading.to(query.dtype)) if project else reading


class Upsampler(nn.Module):
    """Pixel shuffles, then two 3x3 convolutions to RGB (paper figure 5b).

    At scale 4 two shuffles of 2; widths at C = 128: 128 -> 512 -> shuffle 128 -> 256 -> shuffle 64 -> 64 -> 3; other C
    keep the proportions. At 2 and 3, which the paper does not have, the second one alone, of 2 or 3.
    """

    def __init__(self, channels: int, scale: int) -> None:
        super().__init__()
        self.expand1 = nn.Conv2d(channels, 4 * channels, 3, padding=1) if scale == 4 else None
        self._last = 3 if scale == 3 else 2
        self.expand2 = nn.Conv2d(channels, self._last**2 * (channels // 2), 3, padding=1)
        self.refine = nn.Conv2d(channels // 2, channels // 2, 3, padding=1)
        self.to_rgb = nn.Conv2d(channels // 2, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, 3, sH, sW), the residual at scale s."""
        if self.expand1 is not None:
            x = leaky_relu(F.pixel_shuffle(self.expand1(x), 2))
        x = leaky_relu(F.pixel_shuffle(self.expand2(x), self._last))
        x = leaky_relu(self.refine(x))
        residual: Tensor = self.to_rgb(x)
        return residual


class Mana(nn.Module):
    """The whole network: T low-resolution frames in, the super-resolved centre frame out.

    The encoder (3x3 convolution 3 -> C, LeakyReLU 0.1, residual blocks) is shared by all frames. The projected
    results of both attentions are added to the un-normalised centre feature; the decoder turns the sum into a
    residual on the bilinearly upsampled centre frame. At the paper's settings: 14.3 million parameters.

    The output is s = ``config.scale`` times as high and as wide as a frame.

    Call :meth:`forward` on windows; or, over a video, :meth:`embed` each frame once and :meth:`reconstruct` each
    window from the embeddings: the same arithmetic without encoding a frame T times.

    Attributes:
        checkpoint_activations: in training, keep only the residual blocks' inputs and compute the rest again in the
            backward pass: about a third more time for a fraction of the memory.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.checkpoint_activations = False
        channels = config.channels
        self.stem = nn.Conv2d(3, channels, 3, padding=1)
        self.encoder = nn.Sequential(*(ResidualBlock(channels) for _ in range(config.encoder_blocks)))
        self.attention = KINDS[config.attention].module(
            Sizes(
                features=channels,
                channels=channels // 2,
                frames=config.frames,
                window=config.window,
                memory_slots=config.memory_slots,
            )
        )
        self.decoder = nn.Sequential(*(ResidualBlock(channels) for _ in range(config.decoder_blocks)))
        self.upsampler = Upsampler(channels, config.scale)
        # Last, so that the other weights' random start does not depend on the number of memory slots.
        self.memory = MemoryAttention(config) if config.memory_slots else None

    @property
    def sees_neighbours(self) -> bool:
        """Return whether the result depends on other frames than the centre one."""
        return self.config.frames > 1 and self.attention.sees_neighbours

    def encode(self, frames: Tensor) -> Tensor:
        """F of frames: (B, 3, H, W) in [0, 1] -> (B, C, H, W), in the weights' dtype."""
        # Channels last is what convolutions run fastest in, on CPU and GPU; every later layer keeps it.
        frames = frames.to(self.stem.weight.dtype, memory_format=torch.channels_last)
        return self._blocks(self.encoder, leaky_relu(self.stem(frames)))

    def embed(self, frames: Tensor) -> FrameEmbedding:
        """Everything about frames that does not depend on their window.

        Args:
            frames: (B, 3, H, W), RGB in [0, 1].
        """
        feature = self.encode(frames)
        return FrameEmbedding(feature, *self.attention.key_value(frames, feature))

    def embed_windows(self, frames: Tensor) -> FrameEmbedding:
        """F of the centre frames, K and V of all frames of windows, (B, T, 3, H, W)."""
        middle = frames.shape[1] // 2
        if self.attention.encodes_neighbours:
            embedded = self.embed(frames.flatten(0, 1))
            feature, key, value = (tensor.unflatten(0, frames.shape[:2]) for tensor in embedded)
            return FrameEmbedding(feature[:, middle], key, value)
        feature = self.encode(frames[:, middle])
        return FrameEmbedding(feature, *self.attention.key_value(frames, feature))

    def reconstruct(self, centre: Tensor, feature: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Super-resolve centre frames from the embeddings of their windows.

        Args:
            centre: the centre frames, (B, 3, H, W), RGB in [0, 1].
            feature: F of the centre frames, (B, C, H, W).
            key: K of all frames, (B, T, C', H, W).
            value: V of all frames, (B, T, C', H, W).

        Returns:
            (B, 3, sH, sW) in the dtype of ``centre`` (or the weights', if wider); not clamped to [0, 1].
        """
        query = self.attention.query(feature)
        attended = self.attention(feature, query, key, value)
        return self.upsample(centre) + self.decode(self.fuse(feature, query, attended))

    def fuse(self, feature: Tensor, query: Tensor, attended: Tensor) -> Tensor:
        """Both attentions' results added to the centre feature: (B, C, H, W).

        Args:
            feature: F of the centre frames, (B, C, H, W), un-normalised.
            query: Q of the centre frames, (B, C', H, W).
            attended: the projected result of the cross-frame attention, (B, C, H, W).
        """
        fused = feature + attended
        return fused if self.memory is None else fused + self.memory(query)

    def decode(self, fused: Tensor) -> Tensor:
        """The residual of fused features: (B, C, H, W) -> (B, 3, sH, sW)."""
        residual: Tensor = self.upsampler(self._blocks(self.decoder, fused))
        return residual

    def _blocks(self, blocks: nn.Sequential, x: Tensor) -> Tensor:
        if not (self.checkpoint_activations and torch.is_grad_enabled()):
            whole: Tensor = blocks(x)
            return whole
        for block in blocks:
            x = checkpoint(block, x, use_reentrant=False)
        return x

    def upsample(self, centre: Tensor) -> Tensor:
        """The blurry frame that the residual adds to, (B, 3, H, W) -> (B, 3, sH, sW).

        In the dtype of ``centre``: bf16 could not tell all 256 levels apart.
        """
        return F.interpolate(centre, scale_factor=self.config.scale, mode="bilinear", align_corners=False)

    def memory_reading(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Y and Q of centre frames, what stage 2's loss compares (paper section 3.4).

        Args:
            frames: (B, 3, H, W), RGB in [0, 1].

        Returns:
            Y, float32 or wider, and Q, both (B, C', H, W).

        Raises:
            ValueError: the model has no memory (``memory_slots`` is 0).
        """
        if self.memory is None:
            raise ValueError("the model has no memory module: model.memory_slots is 0")
        query = self.attention.query(self.encode(frames))
        return self.memory(query, project=False), query

    def forward(self, frames: Tensor) -> Tensor:
        """Super-resolve the centre frame of each window.

        Args:
            frames: (B, T, 3, H, W), RGB in [0, 1], any H and W; T as configured.

        Returns:
            (B, 3, sH, sW); not clamped to [0, 1].

        Raises:
            ValueError: not five dimensions, three channels and T frames.
        """
        expected = self.config.frames
        if frames.dim() != 5 or frames.shape[1] != expected or frames.shape[2] != 3:
            raise ValueError(f"frames must be (B, {expected}, 3, H, W), got {tuple(frames.shape)}")
        return self.reconstruct(frames[:, expected // 2], *self.embed_windows(frames))


def _without_autocast(tensor: Tensor) -> contextlib.AbstractContextManager[object]:
    """A context in which nothing is rounded for speed on the device of ``tensor``."""
    kind = tensor.device.type
    available = torch.amp.is_autocast_available(kind)  # the meta device has none
    return torch.autocast(kind, enabled=False) if available else contextlib.nullcontext()


def parameter_count(config: ModelConfig) -> int:
    """Parameters of the network that ``config`` describes, without allocating them."""
    with torch.device("meta"):
        return sum(math.prod(parameter.shape) for parameter in Mana(config).parameters())


def initial_weights(config: ModelConfig, seed: int) -> dict[str, Tensor]:
    """Return the random start of all parameters by name, fp32; the same for a seed on any machine.

    Another version of torch may draw others, but a run needs them only until its first checkpoint.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: nn.Module = Mana(config)
    return {name: tensor.detach() for name, tensor in model.state_dict().items()}
