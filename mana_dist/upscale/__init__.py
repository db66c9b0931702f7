"""A video file in, a 4x video file out."""
