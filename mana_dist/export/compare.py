"""An exported network compared with the network, where rounding does not decide what a search finds."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mana_dist.model import Mana
from mana_dist.model.tiling import decoder_reach
from mana_dist.ops.plain import Plain, ReplaceOperators

Run = Callable[[Tensor], Tensor]
"""Windows (1, 3T, H, W) to centre frames (1, 3, sH, sW)."""
TOLERANCE = 1e-4
_SIZES = ((37, 53), (64, 96))  # odd, and others than it was traced with
_FUSION_REACH = 3  # of an alignment's own convolutions


class Comparison(NamedTuple):
    """How far results lie from the network's.

    Attributes:
        difference: the largest, where no search is undecided.
        elsewhere: the largest of the other pixels.
        undecided: the share of output pixels that a search may reach whose winner and runner-up are closer than
            :data:`TOLERANCE`.
        ties: the number of such searches.
        searches: of how many.
        usual: the median of all pixels' differences: where searches reach everything, what is wrong shows here.
    """

    difference: float
    elsewhere: float
    undecided: float
    ties: int
    searches: int
    usual: float

    @property
    def is_equal(self) -> bool:
        """Return whether nothing differs but by rounding; not a number does."""
        return self.difference <= TOLERANCE and self.usual <= TOLERANCE

    def __str__(self) -> str:
        text = f"the largest difference from the network is {self.difference:.1e}"
        if not self.searches:
            return text
        near = f"{self.ties} of {self.searches} searches have a runner-up less than {TOLERANCE:g} behind"
        return f"{text}; {near}, and the {self.undecided:.1%} of pixels that they reach differ by {self.elsewhere:.1e}"


def compare(network: Mana, run: Run) -> Comparison:
    """Return how far what ``run`` gives lies from the network's results, on windows of moving detail."""
    scale, reach = network.config.scale, decoder_reach(network.config) + _FUSION_REACH
    differences, reached, ties, searches = [], [], 0, 0
    for height, width in _SIZES:
        close: list[Tensor] = []

        def watch(operator: Callable[..., Any], plain: Plain, arguments: tuple[Any, ...]) -> Any:
            if plain.margin is not None:
                close.append(plain.margin(*arguments) < TOLERANCE)  # noqa: B023
            return operator(*arguments)

        frames = _moving(network.config.frames, height, width)
        with torch.no_grad(), ReplaceOperators(watch):
            expected = network(frames)
        difference = (run(frames.flatten(1, 2)) - expected).abs().amax(1)
        near = torch.zeros(1, 1, height, width)
        for tied in close:
            ties, searches = ties + int(tied.sum()), searches + tied.numel()
            near = near.maximum(tied.float().amax(1, keepdim=True))
        near = F.max_pool2d(near, 2 * reach + 1, 1, reach)
        differences.append(difference.flatten())
        reached.append(F.interpolate(near, scale_factor=scale)[:, 0].flatten() > 0)
    difference, undecided = torch.cat(differences), torch.cat(reached)
    return Comparison(
        difference=_largest(difference[~undecided]),
        elsewhere=_largest(difference[undecided]),
        undecided=float(undecided.float().mean()),
        ties=ties,
        searches=searches,
        usual=float(difference.median()),
    )


def _largest(values: Tensor) -> float:
    return float(values.max()) if values.numel() else 0.0


def _moving(count: int, height: int, width: int) -> Tensor:
    """Smooth random detail that moves by 1.5 pixels a frame: (1, count, 3, height, width) in [0, 1]."""
    generator = torch.Generator().manual_seed(height)
    detail = torch.rand(1, 3, 2 * height, 2 * (width + 2 * count), generator=generator)
    detail = F.avg_pool2d(detail, 5, 1, 2).sub(0.5).mul(3).add(0.5).clamp(0, 1)
    shots = [detail[..., 3 * number : 3 * number + 2 * width] for number in range(count)]
    return torch.stack([F.avg_pool2d(shot, 2) for shot in shots], 1)
