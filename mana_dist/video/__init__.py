"""Reading videos and folders of frames: the one way from a file to RGB frames."""

READER_VERSION = 2
"""Goes up whenever other pixels are read from the same video: what was read by two readers is not mixed.

1 repeated the chroma of 8-bit video, cut off instead of rounding, and ignored the container's crop.
"""
