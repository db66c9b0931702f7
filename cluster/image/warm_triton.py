"""``python warm_triton.py``: compile Triton's bridge to the CUDA driver into its cache, on a machine without a GPU.

Triton (3.9) compiles one C file at its first use, ``cuda_utils``, and keeps it in ``TRITON_CACHE_DIR`` under a key of
its source and the folders that the compiler was told. With it there, no compiler is needed at run time: kernels are
compiled by Triton itself. It is linked against ``libcuda.so.1``, which comes with the driver; a stand-in that has the
functions which it calls is put into ``TRITON_LIBCUDA_PATH`` for the time of this call. That folder is part of the key,
so the variable must have the same value at run time. So is what ``platform.architecture`` says, which depends on
whether the program ``file`` is installed: the bridge is put in under both keys.
"""

import os
import platform
import subprocess
import tempfile
from pathlib import Path

_LINKAGES = ("", "ELF")


def warm() -> list[Path]:
    """Compile it; gives the files in the cache.

    Raises:
        SystemExit: ``TRITON_LIBCUDA_PATH`` holds a driver already.
        KeyError: one of the two variables is not set.
    """
    folder = os.environ["TRITON_LIBCUDA_PATH"]
    library, cache = Path(folder) / "libcuda.so.1", os.environ["TRITON_CACHE_DIR"]
    if library.exists():
        raise SystemExit(f"{library} exists: this is for machines without a driver")
    try:
        _stand_in(library, [])
        with tempfile.TemporaryDirectory() as scratch:
            called = _undefined(_compiled(scratch))
        _stand_in(library, called)
        return [_compiled(cache, linkage) for linkage in _LINKAGES]
    finally:
        library.unlink(missing_ok=True)


def _compiled(cache: str, linkage: str = "") -> Path:
    """The bridge, compiled into the folder ``cache`` for a machine whose executables are said to be ``linkage``."""
    from triton import knobs
    from triton.backends.nvidia import driver
    from triton.runtime import build

    knobs.cache.dir = cache
    build.platform_key = lambda: ",".join([platform.machine(), platform.system(), platform.architecture()[0], linkage])
    source = os.path.join(driver.dirname, "driver.c")
    folders = {"library_dirs": driver.library_dirs(), "include_dirs": driver.include_dirs}
    return Path(build.compile_so_from_file(src_path=source, name="cuda_utils", libraries=driver.libraries, **folders))


def _stand_in(library: Path, functions: list[str]) -> None:
    """A library of the driver's name with empty functions."""
    source = "".join(f"void {function}(void) {{}}\n" for function in functions)
    command = ["gcc", "-shared", "-fPIC", f"-Wl,-soname,{library.name}", "-x", "c", "-", "-o", str(library)]
    subprocess.run(command, input=source, text=True, check=True)


def _undefined(library: Path) -> list[str]:
    """The driver's functions that a library calls."""
    command = ["nm", "--dynamic", "--undefined-only", "--format=posix", str(library)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return [name for name in (line.split()[0] for line in lines) if name.startswith("cu")]


if __name__ == "__main__":
    print(*warm(), sep="\n")
