"""An evaluation's results as files: metrics.json, report.md and side_by_side.png."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mana_dist import pictures, storage
from mana_dist.evaluate.methods import BICUBIC
from mana_dist.evaluate.protocol import Protocol
from mana_dist.evaluate.scoring import Example, Scores, mean

METRICS_FILE, REPORT_FILE, PICTURE_FILE = "metrics.json", "report.md", "side_by_side.png"
ROWS_SHOWN = 4  # clips in the picture


@dataclass(frozen=True)
class MethodResult:
    """One method's results.

    Attributes:
        name: the method's.
        clips: clip names.
        scores: of each clip.
    """

    name: str
    clips: list[str]
    scores: list[Scores]

    @property
    def mean(self) -> Scores:
        """The mean over clips of the means over frames."""
        return mean(self.scores, sum(entry.frames for entry in self.scores))


def publish(out: str, protocol: Protocol, results: Sequence[MethodResult], examples: Sequence[Example]) -> list[str]:
    """Write the three files to the folder ``out``, each whole or not at all, the metrics last.

    Returns:
        Their URIs.
    """
    picture = pictures.column([_picture(example, [result.name for result in results]) for example in examples])
    files = [
        (PICTURE_FILE, pictures.to_png(picture)),
        (REPORT_FILE, to_markdown(protocol, results).encode()),
        (METRICS_FILE, to_json(protocol, results).encode()),
    ]
    for name, data in files:
        storage.write_bytes(storage.join(out, name), data)
    return [storage.join(storage.resolve(out), name) for name, _ in files]


def to_json(protocol: Protocol, results: Sequence[MethodResult]) -> str:
    """The text of ``metrics.json``."""
    methods = {
        result.name: {
            "clips": [
                {"name": clip, **_plain(scores)} for clip, scores in zip(result.clips, result.scores, strict=True)
            ],
            "mean": _plain(result.mean),
        }
        for result in results
    }
    return json.dumps({"protocol": asdict(protocol), "methods": methods}, indent=2, allow_nan=False) + "\n"


def table(results: Sequence[MethodResult]) -> str:
    """The methods' means as a Markdown table, which is also readable on a console."""
    base = next((result.mean.psnr_rgb for result in results if result.name == BICUBIC), None)
    head = ["method", "PSNR (dB)", "SSIM", "LPIPS", "PSNR-Y (dB)", "SSIM-Y", "gain over bicubic (dB)"]
    rows = [[result.name, *_cells(result.mean), _gain(result.mean.psnr_rgb, base)] for result in results]
    return _aligned([head, *rows])


def to_markdown(protocol: Protocol, results: Sequence[MethodResult]) -> str:
    """The text of ``report.md``."""
    clip_rows = [
        [clip, result.name, *_cells(result.scores[position]), str(result.scores[position].frames)]
        for position, clip in enumerate(results[0].clips)
        for result in results
    ]
    head = ["clip", "method", "PSNR (dB)", "SSIM", "LPIPS", "PSNR-Y (dB)", "SSIM-Y", "frames"]
    choices = [
        f"* {key}: {', '.join(value) if isinstance(value, list) else value}" for key, value in asdict(protocol).items()
    ]
    sections = [
        f"# Evaluation\n\n{table(results)}",
        f"![side by side]({PICTURE_FILE})",
        f"## Clips\n\n{_aligned([head, *clip_rows])}",
        "## Protocol\n\n" + "\n".join(choices),
    ]
    return "\n\n".join(sections) + "\n"


def _picture(example: Example, names: Sequence[str]) -> pictures.Frame:
    compared = [pictures.Panel(name, image) for name, image in zip(names, example.outputs, strict=True)]
    where = f"LR ({example.clip}, frame {example.frame})"
    return pictures.row([pictures.Panel(where, example.lr), *compared, pictures.Panel("HR", example.hr)])


def _plain(scores: Scores) -> dict[str, Any]:
    return {key: None if value == math.inf else value for key, value in asdict(scores).items()}


def _cells(scores: Scores) -> list[str]:
    lpips = "-" if scores.lpips is None else f"{scores.lpips:.4f}"
    return [f"{scores.psnr_rgb:.2f}", f"{scores.ssim_rgb:.4f}", lpips, f"{scores.psnr_y:.2f}", f"{scores.ssim_y:.4f}"]


def _gain(psnr: float, base: float | None) -> str:
    return "-" if base is None or not math.isfinite(psnr - base) else f"{psnr - base:+.2f}"


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(cells[column]) for cells in rows) for column in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |" for cells in rows
    ]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])
