"""Compiles the kernels for CPUs, once for each kind of processor; everything else is in pyproject.toml."""

import hashlib
import os
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

SOURCES = [Path("mana_dist/ops/fused_cpu.c"), Path("mana_dist/ops/phases_cpu.c")]  # as in mana_dist/ops/compiled.py
VERSION = hashlib.sha256(b"".join(source.read_bytes() for source in SOURCES)).hexdigest()
# NaN and infinities keep their meaning: no -ffast-math.
FLAGS = ["-std=gnu11", "-O3", "-g0", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math"]
AVX2 = ["-mavx2", "-mfma"]
AVX512 = [*AVX2, "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl"]
# mana_dist/ops/compiled.py takes the best that the processor can run. Other compilers and processors refuse the flags
# of x86, and keep the first.
BUILDS = {"": [], "_avx2": AVX2, "_avx512": AVX512, "_avx512_bf16": [*AVX512, "-mavx512bf16"]}


class BuildKernels(build_ext):
    """Builds what the compiler can, and says so where that is nothing."""

    def run(self) -> None:
        """Build; the package works without."""
        super().run()
        if not any(os.path.exists(self.get_ext_fullpath(extension.name)) for extension in self.extensions):
            self.warn("no C compiler could build mana_dist/ops/*.c: attention on CPUs will run several times slower")


setup(
    cmdclass={"build_ext": BuildKernels},
    ext_modules=[
        Extension(
            f"mana_dist.ops._fused_cpu{suffix}",
            [str(source) for source in SOURCES],
            # A library of another version of the sources is never loaded.
            define_macros=[("SOURCES", f'"{VERSION}"')],
            extra_compile_args=[*FLAGS, *flags],
            optional=True,
        )
        for suffix, flags in BUILDS.items()
    ],
)
