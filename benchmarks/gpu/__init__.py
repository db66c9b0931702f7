"""What needs a GPU, in one script of at most nine minutes: ``python -m benchmarks.gpu``. Torch, Triton and NumPy alone.

It needs no install: it runs from the root of a checkout, and takes real clips from the file that
``python -m benchmarks.gpu.pack`` makes beforehand elsewhere; without that file, made-up ones.
"""
