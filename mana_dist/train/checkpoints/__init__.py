"""Checkpoints: one as files, all of a run, and the thread that writes them."""
