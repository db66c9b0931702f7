"""A private cluster in a process that has Ray already, as a notebook's."""

import os
import subprocess
import sys
from pathlib import Path

PROGRAM = """
import ray
from mana_dist import ray_runtime
ray_runtime.start_ray(cpus=1)
print("answer", ray.get(ray.remote(lambda: 6 * 7).remote()))
"""


def test_a_process_that_imported_ray_before_gets_its_private_cluster_with_a_token(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    program = PROGRAM + "import os; print(os.environ['RAY_AUTH_MODE'], len(os.environ['RAY_AUTH_TOKEN']))"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**environment, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["answer", "42", "token", "64"]
    assert not (tmp_path / ".ray").exists()  # no token is left for others to find
