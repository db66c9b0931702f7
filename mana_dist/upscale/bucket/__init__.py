"""Many videos upscaled on Ray: ``mana upscale --source URI ... --out URI``."""
