"""``python -m pipelines.upscale``: videos in, 4x videos out, on Ray Data."""
