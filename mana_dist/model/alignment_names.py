"""The names of the kinds of alignment in the package: their modules bring torch, for which usage errors do not wait."""

NAMES = ("one_hot", "softmax_window", "dense", "phases", "none")
