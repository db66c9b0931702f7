"""bf16 or fp32: what ``auto`` means on the processor that computes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Precision = Literal["fp32", "bf16"]
WantedPrecision = Literal["auto", "fp32", "bf16"]


@dataclass(frozen=True)
class Processor:
    """A CPU or GPU, as far as the precision depends on it.

    Attributes:
        name: for people.
        bf16: the unit by which it computes bf16 faster than fp32; empty: it has none.
    """

    name: str
    bf16: str = ""


@dataclass(frozen=True)
class PrecisionChoice:
    """A precision, and why it was chosen."""

    precision: Precision
    reason: str

    def __str__(self) -> str:
        return f"{self.precision} ({self.reason})"


def choose_precision(wanted: WantedPrecision, processors: Sequence[Processor]) -> PrecisionChoice:
    """Return the precision that ``wanted`` means for work that all ``processors`` share.

    ``auto`` is bf16 where every one of them gains by it, else fp32.
    """
    if wanted != "auto":
        return PrecisionChoice(wanted, "as asked for")
    for processor in processors:
        if not processor.bf16:
            return PrecisionChoice("fp32", f"{processor.name} is not faster in bf16")
    if not processors:
        return PrecisionChoice("fp32", "no processor is known")
    units = sorted({processor.bf16 for processor in processors})
    names = sorted({processor.name for processor in processors})
    return PrecisionChoice("bf16", f"{', '.join(names)}: {', '.join(units)}")


def precision_here(wanted: WantedPrecision, device: str) -> PrecisionChoice:
    """Return the precision that ``wanted`` means for work on this machine's ``device``, ``cpu`` or ``cuda``."""
    return choose_precision(wanted, [processor_here(device)] if wanted == "auto" else [])


def processor_here(device: str) -> Processor:
    """Return this machine's GPU for ``cuda``, else its CPU, by what torch says of it; nothing is timed."""
    import torch  # slow; the configuration needs the types alone

    if device == "cuda":
        if not torch.cuda.is_available():
            return Processor("this machine, which has no GPU,")
        has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
        return Processor(torch.cuda.get_device_name(), "bf16 tensor cores" if has_bf16 else "")
    capabilities = getattr(torch.cpu, "get_capabilities", dict)  # newer than some torch that this runs with
    return cpu_processor(capabilities() if torch.backends.mkldnn.is_available() else {})


def cpu_processor(capabilities: Mapping[str, object]) -> Processor:
    """Return the CPU that ``torch.cpu.get_capabilities`` describes.

    Only what oneDNN has bf16 convolutions for counts: other CPUs, such as those with AVX2 alone, emulate bf16.
    """
    name = str(capabilities.get("cpu_name") or "this CPU").strip()
    units = {"amx_bf16": "AMX", "avx512_bf16": "AVX512-BF16"}
    return Processor(name, next((unit for key, unit in units.items() if capabilities.get(key)), ""))
