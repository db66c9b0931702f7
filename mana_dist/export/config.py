"""What a model can be exported to."""

FORMATS = {"onnx": ".onnx", "torch-export": ".pt2"}
"""The end of the file's name, by format."""
