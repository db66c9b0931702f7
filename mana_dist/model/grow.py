"""A wider and deeper network that begins as a given one (Chen, Goodfellow, Shlens: Net2Net, 2016)."""

import dataclasses

import torch
from torch import Tensor

from mana_dist.model.config import ModelConfig
from mana_dist.model.mana import Mana, initial_weights

_SAME = 1e-4  # of the largest output
_SIDE = 24  # pixels of the frames that both networks are compared on


def grown(model: Mana, config: ModelConfig, seed: int) -> dict[str, Tensor] | None:
    """Return weights of a larger network that computes what ``model`` computes, up to rounding.

    Each channel is there several times, and what reads it shares its weight out among the copies, unevenly, so that
    they learn different things. Residual blocks that are new begin at zero, behind the old ones.

    Args:
        model: the network to begin with.
        config: what is wanted: other than that of ``model`` in its numbers of channels, by a whole factor, and blocks.
        seed: of the shares and of what new blocks begin with.

    Returns:
        All parameters by name, fp32; None where ``config`` is no such network, or where its attention cannot be widened
        (a dot product of copied channels is a larger one).
    """
    small = model.config
    factor, rest = divmod(config.channels, small.channels)
    as_wanted = dataclasses.replace(
        small, channels=config.channels, encoder_blocks=config.encoder_blocks, decoder_blocks=config.decoder_blocks
    )
    fewer = config.encoder_blocks < small.encoder_blocks or config.decoder_blocks < small.decoder_blocks
    if config != as_wanted or rest or fewer or config == small:
        return None
    generator = torch.Generator().manual_seed(seed)
    old, weights = model.state_dict(), initial_weights(config, seed)
    for name, tensor in weights.items():
        if name in old:
            fixed = _fixed_inputs(old[name], tensor, small.channels, factor)
            wide = _outputs(old[name].float(), len(tensor), _shuffled(name, config.scale))
            weights[name] = _inputs(wide, tensor, fixed, generator)
            if weights[name].shape != tensor.shape:
                return None
        elif ".conv2." in name:
            weights[name] = torch.zeros_like(tensor)
    larger = Mana(config)
    larger.load_state_dict(weights)
    return weights if _compute_the_same(model, larger, generator) else None


def _shuffled(name: str, scale: int) -> int:
    """Return how many outputs of a convolution lie in one channel, after the pixel shuffle that follows it."""
    if "expand" not in name:
        return 1
    return 9 if scale == 3 and "expand2" in name else 4


def _fixed_inputs(old: Tensor, new: Tensor, channels: int, factor: int) -> int:
    """Return how many of a convolution's first inputs are no features: LR pixels, of which there are no more."""
    if old.dim() < 2 or old.shape[1] == new.shape[1]:
        return 0
    grows = new.shape[1] - old.shape[1] == (factor - 1) * channels
    return old.shape[1] - channels if grows and old.shape[1] > channels else 0


def _outputs(tensor: Tensor, count: int, shuffled: int) -> Tensor:
    """Repeat a tensor's outputs, those of one channel together, until they are ``count``."""
    channels = tensor.unflatten(0, (-1, shuffled))
    return torch.cat([channels] * (count // len(tensor))).flatten(0, 1)


def _inputs(tensor: Tensor, new: Tensor, fixed: int, generator: torch.Generator) -> Tensor:
    """Share each weight out among its input's copies; the first ``fixed`` inputs have none."""
    if tensor.shape == new.shape:
        return tensor
    kept, shared = tensor[:, :fixed], tensor[:, fixed:]
    copies = (new.shape[1] - fixed) // shared.shape[1]
    share = torch.rand((copies, *shared.shape), generator=generator) * 0.8 + 0.1
    parts = shared * share / share.sum(0)
    return torch.cat([kept, *parts], 1)


def _compute_the_same(model: Mana, larger: Mana, generator: torch.Generator) -> bool:
    frames = torch.rand((1, model.config.frames, 3, _SIDE, _SIDE), generator=generator)
    with torch.no_grad():
        expected = model(frames)
        return bool((larger(frames) - expected).abs().max() < _SAME * expected.abs().max())
