"""The activation of the whole network."""

import torch.nn.functional as F
from torch import Tensor

LEAKY_SLOPE = 0.1


def leaky_relu(x: Tensor) -> Tensor:
    """LeakyReLU with a slope of 0.1, in place."""
    return F.leaky_relu(x, LEAKY_SLOPE, inplace=True)
