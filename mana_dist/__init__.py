"""mana_dist: memory-augmented non-local attention for video super-resolution, trained at scale on Ray."""

__version__ = "0.1.0"
