"""A page for a person with a video: clips come in, wait in a queue, and go out upscaled as by ``mana upscale``."""
