"""The meaning of ``auto``: what torch says of processors that are described by hand."""

import pytest
import torch

from mana_dist.model.precision import (
    PrecisionChoice,
    Processor,
    choose_precision,
    cpu_processor,
    precision_here,
    processor_here,
)

SAPPHIRE_RAPIDS = {"cpu_name": "Xeon ", "amx_bf16": True, "amx_tile": True, "avx512_bf16": True, "avx512_f": True}
ZEN4 = {"cpu_name": "EPYC", "amx_bf16": False, "avx512_bf16": True, "avx512_f": True}
SKYLAKE = {"cpu_name": "Old Xeon", "amx_bf16": False, "avx512_bf16": False, "avx512_f": True}


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        (SAPPHIRE_RAPIDS, Processor("Xeon", "AMX")),
        (ZEN4, Processor("EPYC", "AVX512-BF16")),
        (SKYLAKE, Processor("Old Xeon")),
        ({"architecture": "aarch64", "bf16": True}, Processor("this CPU")),
        ({}, Processor("this CPU")),
    ],
)
def test_a_cpu_gains_by_amx_and_by_avx512_bf16_alone(capabilities: dict[str, object], expected: Processor) -> None:
    assert cpu_processor(capabilities) == expected


@pytest.mark.parametrize(
    ("others", "expected"),
    [
        ([], PrecisionChoice("bf16", "Xeon: AMX")),
        ([ZEN4], PrecisionChoice("bf16", "EPYC, Xeon: AMX, AVX512-BF16")),
        ([ZEN4, SKYLAKE], PrecisionChoice("fp32", "Old Xeon is not faster in bf16")),
    ],
)
def test_auto_is_the_least_that_all_processors_have(others: list[dict[str, object]], expected: PrecisionChoice) -> None:
    processors = [cpu_processor(capabilities) for capabilities in (SAPPHIRE_RAPIDS, *others)]
    assert choose_precision("auto", processors) == expected


@pytest.mark.parametrize("wanted", ["fp32", "bf16"])
def test_a_named_precision_is_taken_on_any_processor(wanted: str) -> None:
    for processors in ([], [Processor("old")], [Processor("new", "AMX")]):
        assert choose_precision(wanted, processors).precision == wanted  # type: ignore[arg-type]


def test_a_gpu_is_asked_whether_it_has_bf16_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    def supported(including_emulation: bool = True) -> bool:
        return including_emulation  # as a V100 answers

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "V100")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    assert processor_here("cuda") == Processor("V100")
    assert str(precision_here("auto", "cuda")) == "fp32 (V100 is not faster in bf16)"
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    assert precision_here("auto", "cuda").precision == "bf16"


def test_this_cpu_is_asked_by_its_flags() -> None:
    """The oracle: what the kernel says of the processor."""
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
            flags = next(line for line in file if line.startswith("flags")).split()
    except (OSError, StopIteration):
        pytest.skip("no flags in /proc/cpuinfo")
    gains = "avx512_bf16" in flags or "amx_bf16" in flags
    assert (precision_here("auto", "cpu").precision == "bf16") == gains
