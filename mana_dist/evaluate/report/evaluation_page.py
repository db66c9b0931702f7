"""The report of an evaluation as one HTML page."""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence

from mana_dist import pictures, report_pages
from mana_dist.data.degradation import bicubic_upsample
from mana_dist.evaluate.config import BICUBIC
from mana_dist.evaluate.protocol import Protocol
from mana_dist.evaluate.report import evaluation_plots, markdown, metrics_table
from mana_dist.evaluate.results import Evaluation, Example
from mana_dist.progress import count, some
from mana_dist.report_pages import Section, figures, listed
from mana_dist.report_pages.tables import KEY, ROWS_SHOWN, Column, Group, grouped, table
from mana_dist.report_pages.text import to_html

CLIPS_WITH_EXAMPLES = 12
EXAMPLES_SIZE = 7_000_000
"""Limit of the examples in a page, characters; the first example is shown whatever its size."""
NAMES_SHOWN = 20


def page(evaluation: Evaluation, svgs: Mapping[str, str]) -> str:
    """Return the whole page.

    Args:
        evaluation: of at least one clip; its names may hold anything.
        svgs: its plots, as :func:`mana_dist.evaluate.report.evaluation_plots.svgs` gives them.

    Returns:
        HTML that can be written as UTF-8; at most about 10 MB where crops are of some hundred pixels a side.
    """
    return report_pages.page(
        "Evaluation",
        _summary(evaluation),
        [
            Section("Results", _results(evaluation)),
            Section("Plots", _plots(evaluation, svgs)),
            Section("Where the methods differ most", _examples(evaluation), "Crops"),
            Section("Clips", _clips(evaluation) + _notes(evaluation)),
            Section("Protocol", _protocol(evaluation.protocol)),
        ],
    )


def by_clip(examples: Iterable[Example]) -> list[list[Example]]:
    """Return each clip's examples; in both lists those come first in which the compared frames differ most."""
    found: dict[str, list[Example]] = {}
    for example in sorted(examples, key=lambda example: -example.region.difference):
        found.setdefault(example.clip, []).append(example)
    return list(found.values())


def _summary(evaluation: Evaluation) -> str:
    frames = sum(clip.scores[0].frames for clip in evaluation.clips)
    names = ", ".join(f"<bdi>{to_html(name)}</bdi>" for name in evaluation.datasets)
    sizes = f"{count(len(evaluation.clips), 'clip')}, {count(frames, 'frame')}"
    return f"{names} · {sizes} · {count(len(evaluation.methods), 'method')}"


def _results(evaluation: Evaluation) -> str:
    parts = [_means_table("Means over frames, then over clips", metrics_table.groups(evaluation), evaluation)]
    large = metrics_table.top_motion(evaluation)
    if large is not None:
        parts.append(_means_table("Large motion", [large], evaluation))
    if len(evaluation.methods) > 1:
        parts.append(f'<p class="key">{KEY}</p>')
    return "".join(parts) + listed(map(to_html, metrics_table.footnotes(evaluation)), "footnotes")


def _means_table(caption: str, groups: Sequence[Group], evaluation: Evaluation) -> str:
    return grouped(caption, [Column("method"), *metrics_table.columns(evaluation)], groups)


def _protocol(protocol: Protocol) -> str:
    """Return every choice that moves a number: data and models as tables of their own, the rest by name."""
    parts = ['<p class="key">Every choice that moves a number.</p>']
    for name, entries in (("data", protocol.datasets), ("methods", protocol.models)):
        rows = [dict(markdown.parts(entry)) for entry in entries]
        names = list(dict.fromkeys(itertools.chain(*rows)))
        headings = [Column(heading.replace("_", " ")) for heading in names]
        parts.append(table(name, headings, [[row.get(heading, "") for heading in names] for row in rows], "entries"))
    choices = [(name.replace("_", " "), value) for name, value in markdown.choices(protocol)]
    return "".join(parts) + table("other choices", [Column("choice"), Column("value")], choices, "protocol")


def _plots(evaluation: Evaluation, svgs: Mapping[str, str]) -> str:
    missing = [clip for clip in evaluation.clips if clip.motion is None]
    without = f" {count(len(missing), 'clip')} of a single frame left out." if missing else ""
    less = len(evaluation.clips) > evaluation_plots.CLIPS_SHOWN
    which = f" The {evaluation_plots.CLIPS_SHOWN} clips in which the methods differ most." if less else ""
    captions = {
        evaluation_plots.GAIN: f"PSNR gain over bicubic against motion. A point per clip and method.{without}",
        evaluation_plots.PSNR: f"PSNR per clip.{which}",
    }
    return figures((captions[what], svg) for what, svg in svgs.items()) or "<p>No finite PSNR to plot.</p>"


def _examples(evaluation: Evaluation) -> str:
    clips = by_clip(evaluation.examples)[:CLIPS_WITH_EXAMPLES]
    if not clips:
        return "<p>No pictures were kept.</p>"
    shown: list[list[str]] = [[] for _ in clips]
    size = 0
    for place, example in _by_turns(clips):
        text = _example(example, evaluation.methods)
        size += len(text)
        if any(shown) and size > EXAMPLES_SIZE:
            break
        shown[place].append(text)
    names = ["LR", *_upscaled_lr(evaluation.methods), *evaluation.methods, "HR"]
    first = names.index(BICUBIC) if BICUBIC in names else 1
    best = max(range(len(evaluation.methods)), key=lambda method: evaluation.mean(method).psnr_rgb)
    second = names.index(evaluation.methods[best], 1) if evaluation.methods[best] != BICUBIC else len(names) - 1
    selects = "".join(
        f'<label>{side} <select name="{side}">{_options(names, chosen)}</select></label>'
        for side, chosen in (("left", first), ("right", second))
    )
    return (
        f'<form class="pair" hidden>{selects}</form><p class="hint">Drag over a picture to move the border. The wheel '
        "over the picture clicked last, Ctrl and the wheel, or the buttons zoom; drag beside the border then moves the "
        f'picture.</p><div class="examples">{"".join(itertools.chain(*shown))}</div>'
    )


def _by_turns(clips: Sequence[Sequence[Example]]) -> Iterator[tuple[int, Example]]:
    """Yield a clip's place and its example: the first of all clips, then the second of all, and so on."""
    for turn in itertools.zip_longest(*clips):
        yield from ((place, example) for place, example in enumerate(turn) if example is not None)


def _upscaled_lr(methods: Sequence[str]) -> list[str]:
    """Return the name of the picture that the page makes from the LR crop where bicubic is not among the methods."""
    return [] if BICUBIC in methods else [f"LR, {BICUBIC}"]


def _options(names: Sequence[str], chosen: int) -> str:
    return "".join(
        f'<option value="{number}"{" selected" if number == chosen else ""}>{to_html(name)}</option>'
        for number, name in enumerate(names)
    )


def _example(example: Example, methods: Sequence[str]) -> str:
    region = example.region
    enlarged = bicubic_upsample(example.lr, example.hr.shape[0] // example.lr.shape[0])
    images = [example.lr, *(enlarged for _ in _upscaled_lr(methods)), *example.outputs, example.hr]
    names = map(to_html, ["LR", *_upscaled_lr(methods), *methods, "HR"])
    figures = "".join(
        f'<figure><img src="{pictures.to_data_uri(image)}" width="{region.width}" height="{region.height}" '
        f'alt="{name}"><figcaption title="{name}"><bdi>{name}</bdi></figcaption></figure>'
        for name, image in zip(names, images, strict=True)
    )
    where = f"frame {example.frame}, {region.width}x{region.height} pixels at ({region.left}, {region.top})"
    return (
        f'<article class="example"><h3><bdi>{to_html(example.clip)}</bdi> <small>{where}; mean difference '
        f'{region.difference:.1f} of 255</small></h3><div class="strip">{figures}</div></article>'
    )


def _clips(evaluation: Evaluation) -> str:
    found, left_out = metrics_table.clip_rows(evaluation, max(1, ROWS_SHOWN // len(evaluation.methods)))
    more = f"<p>{count(left_out, 'clip')} more, where the methods differ less, in metrics.json.</p>"
    caption = "Each clip: means over its frames"
    made = table(caption, metrics_table.clip_columns(evaluation), found, "sortable")
    return made + (more if left_out else "")


def _notes(evaluation: Evaluation) -> str:
    entries = []
    for note, clips in metrics_table.notes_by_text(evaluation).items():
        names = [f"<bdi>{to_html(name)}</bdi>" for name in clips]
        entries.append(f"{to_html(note)}: {some(names, NAMES_SHOWN)}")
    return f"<h3>Notes</h3>{listed(entries)}" if entries else ""
