"""The Triton kernels of one-hot attention: interpreted on the CPU, and on a GPU where there is one."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mana_dist.ops import fused_gpu
from tests.ops.fused_gpu_checks import CHECKS

ROOT = Path(__file__).parents[2]


def run_python(*arguments: str, **environment: str) -> str:
    command, environment = [sys.executable, *arguments], os.environ | environment
    result = subprocess.run(command, check=False, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def interpreted() -> dict[str, str | None]:
    """Traceback of each check under Triton's interpreter, None where it passed."""
    output = run_python("-m", "tests.ops.fused_gpu_checks", TRITON_INTERPRET="1")
    results: dict[str, str | None] = json.loads(output.splitlines()[-1])
    return results


@pytest.mark.skipif(not fused_gpu.available(), reason="Triton is not installed")
@pytest.mark.parametrize("name", [check.__name__ for check in CHECKS])
def test_interpreted(interpreted: dict[str, str | None], name: str) -> None:
    failure = interpreted[name]
    assert failure is None, failure


@pytest.mark.skipif(not (fused_gpu.available() and torch.cuda.is_available()), reason="no GPU")
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_on_the_gpu(check: Callable[[torch.device], None]) -> None:
    check(torch.device("cuda"))


def test_float64_is_refused() -> None:
    query = torch.ones(1, 1, 2, 2, dtype=torch.float64)
    with pytest.raises(ValueError, match="float64"):
        fused_gpu.forward(query, query[None], query[None], 3)


def test_the_operator_is_imported_and_works_where_triton_is_absent() -> None:
    program = """
import sys
sys.modules["triton"] = None  # importing it raises ImportError from now on
import torch
import mana_dist.ops, mana_dist.ops.fused_gpu
ones = torch.ones(1, 1, 1, 3, 3)
assert mana_dist.ops.one_hot_attention(ones[0], ones, ones, 3).equal(ones)
print(mana_dist.ops.fused_gpu.available())
"""
    assert run_python("-c", program).strip() == "False"
