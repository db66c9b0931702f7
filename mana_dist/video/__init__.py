"""Videos and folders of frames: the one way from a file to RGB frames."""

READER_VERSION = 2
"""Version of the reader: rises whenever the same video gives other pixels; results of two versions are never mixed.

Version 1 repeated the chroma of 8-bit video, cut off instead of rounding, and ignored the container's crop.
"""
