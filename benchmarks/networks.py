"""The networks that the benchmarks measure."""

from mana_dist.model import ModelConfig

NETWORKS = {
    "tiny": ModelConfig(channels=32, encoder_blocks=2, decoder_blocks=6, memory_slots=64),
    "small": ModelConfig(channels=64, encoder_blocks=3, decoder_blocks=12, memory_slots=64),
    "paper": ModelConfig(),
}
"""Networks with the paper's attention: of the preset ``tiny``'s size, of 1.4 million parameters, the paper's."""

TOY = ModelConfig(channels=8, encoder_blocks=1, decoder_blocks=1, frames=3, window=3, memory_slots=4)
"""For a dry run."""
