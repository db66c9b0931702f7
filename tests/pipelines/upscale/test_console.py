"""One of Ray's lines is left out of standard error; all else comes through, in order, also what is written last."""

import subprocess
import sys

PROGRAM = """
import os, sys
from pipelines.upscale.console import without_restart_warning
print("before", file=sys.stderr)
with without_restart_warning():
    os.write(2, b"[x] Actor has constructor arguments in the object store and max_restarts > 0. If\\n")
    print("within", file=sys.stderr)
    os.write(2, b"and no end of line")
print("; after", file=sys.stderr)
with without_restart_warning():
    raise SystemExit("the last line")
"""


def test_the_line_about_restarts_is_left_out() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False, timeout=60)
    assert done.stderr == "before\nwithin\nand no end of line; after\nthe last line\n"
