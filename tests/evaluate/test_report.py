"""The tables against text written by hand, and the files that a report consists of."""

import io
import math
import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from mana_dist.evaluate import report
from mana_dist.evaluate.protocol import DatasetProtocol, MethodSource, Protocol
from mana_dist.evaluate.report import markdown
from mana_dist.evaluate.report.metrics_table import marked, most_different_clips, paired_differences
from mana_dist.report_pages import text
from mana_dist.report_pages.tables import Mark
from tests.evaluate.evaluations import HOSTILE, PROTOCOL, clip, evaluation, example, scores

BEST, SECOND, NONE = Mark.BEST, Mark.SECOND, Mark.NONE


def cells_of(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("| ").split(" |")]


def test_table_of_one_dataset() -> None:
    found = evaluation(
        ("bicubic", "MANA", "runs/other_model"),
        clip("a", scores(20, 0.5), scores(24, 0.25), scores(23, 0.3)),
        clip("b", scores(30, 0.4), scores(31, 0.35), scores(31.5, 0.4), motion=None),
    )
    assert report.table(found) == (
        """\
vid4 (2 clips, 6 frames):

| method           | PSNR (dB) ↑ | SSIM ↑     | LPIPS ↓    | PSNR-Y (dB) ↑ | SSIM-Y ↑   | gain over bicubic (dB) |
|------------------|-------------|------------|------------|---------------|------------|------------------------|
| bicubic          | 25.00       | 0.2500     | 0.4500     | 26.00         | 0.2600     | +0.00                  |
| MANA             | **27.50**   | **0.2750** | **0.3000** | **28.50**     | **0.2850** | +2.50                  |
| runs/other_model | _27.25_     | _0.2725_   | _0.3500_   | _28.25_       | _0.2825_   | +2.25                  |

**best**, _second best_; ↑ larger is better, ↓ smaller is better"""
    )


def test_several_datasets_then_their_mean_over_clips_then_the_large_motion() -> None:
    found = evaluation(
        ("bicubic", "MANA"),
        clip("a", scores(20), scores(21), dataset="one", motion=2.5),
        clip("b", scores(22), scores(22), dataset="two", motion=4.0),
        clip("c", scores(30), scores(36), dataset="two", motion=0.5),
        top_motion=("b", "a"),
    )
    lines = report.table(found).split("\n")
    titles = [line for line in lines if line.endswith("):")]
    rows = [cells_of(line) for line in lines if line.startswith(("| bicubic", "| MANA"))]
    assert titles == [
        "one (1 clip, 3 frames):",
        "two (2 clips, 6 frames):",
        "mean over all clips (3 clips, 9 frames):",
        "the 2 of 3 clips with the largest motion, 2.50 LR pixels per frame or more (2 clips, 6 frames):",
    ]
    assert [row[1] for row in rows] == [
        *("_20.00_", "**21.00**"),
        *("_26.00_", "**29.00**"),
        *("_24.00_", "**26.33**"),  # over clips, not over datasets
        *("_21.00_", "**21.50**"),
    ]
    assert [row[-1] for row in rows[1::2]] == ["+1.00", "+3.00", "+2.33", "+0.50"]
    assert "LPIPS \N{EN DASH}: not available: no trunk" in lines


@pytest.mark.parametrize(
    ("values", "larger", "texts", "marks"),
    [
        ([1.0, 2.0, 3.0], True, "1.00 2.00 3.00", [NONE, SECOND, BEST]),
        ([1.0, 2.0, 3.0], False, "1.00 2.00 3.00", [BEST, SECOND, NONE]),
        ([2.001, 2.004, 1.0, 0.5], True, "2.00 2.00 1.00 0.50", [BEST, BEST, SECOND, NONE]),  # equal as shown
        ([3.0, 2.001, 2.004, 1.0], True, "3.00 2.00 2.00 1.00", [BEST, SECOND, SECOND, NONE]),
        ([2.004, 2.006], True, "2.00 2.01", [SECOND, BEST]),
        ([2.0, None, 1.0], False, "2.00 \N{EN DASH} 1.00", [SECOND, NONE, BEST]),
        ([math.inf, 40.0, math.inf], True, "∞ 40.00 ∞", [BEST, SECOND, BEST]),
        ([2.0, 2.0], True, "2.00 2.00", [BEST, BEST]),
        ([2.0], True, "2.00", [NONE]),  # nothing to compare with
        ([2.0, None], True, "2.00 \N{EN DASH}", [NONE, NONE]),
        ([None, None], True, "\N{EN DASH} \N{EN DASH}", [NONE, NONE]),
    ],
)
def test_marks(values: list[float | None], larger: bool, texts: str, marks: list[Mark]) -> None:
    cells = marked(values, 2, larger)
    assert [cell.text for cell in cells] == texts.split()
    assert [cell.mark for cell in cells] == marks
    assert [cell.value for cell in cells] == values


def test_what_is_missing_is_explained() -> None:
    perfect = evaluation(("MANA",), clip("a", scores(math.inf, 0.1, ssim=1)), clip("b", scores(30, None)))
    table = report.table(perfect)
    assert cells_of(table.split("\n")[4]) == ["MANA", "∞", "0.6500", "\N{EN DASH}", "∞", "0.6600", "\N{EN DASH}"]
    assert "best" not in table
    notes = table.split("\n\n")[2:]
    assert notes == [
        (
            "LPIPS \N{EN DASH}: some clip in that mean has none, as its frames are too small for it "
            "(not available: no trunk)"
        ),
        "gain over bicubic (dB) \N{EN DASH}: bicubic is not among the methods",
        "PSNR ∞: some frame equals the ground truth; null in metrics.json, and without a gain over bicubic (dB)",
    ]


def test_no_gain_over_or_of_infinite_psnr_and_no_negative_nothing() -> None:
    found = evaluation(("bicubic", "a", "b"), clip("x", scores(30), scores(math.inf), scores(29.999)))
    assert [cells_of(line)[-1] for line in report.table(found).split("\n")[4:7]] == ["+0.00", "\N{EN DASH}", "+0.00"]


def test_names_show_as_they_are_in_markdown() -> None:
    found = evaluation(("bicubic", HOSTILE), clip("_a_b__c|d\n<b>", scores(20), scores(21)))
    written = markdown.report(found, [])
    row = next(line for line in markdown.tables(found).split("\n") if "script" in line)
    assert len(row.replace("\\|", "").split("|")) == 9  # seven cells, whatever the name holds
    for raw in ("<script>", "<b>", "`*é", "\x01", "\udcff"):
        assert raw not in written
    assert "&lt;script&gt;alert(1)" in row
    assert r"\_a_b\_\_c\|d" + "\ufffd&lt;b&gt;" in written
    written.encode()


def test_the_console_shows_names_and_notes_unescaped_but_for_what_would_move_its_cursor() -> None:
    failed = replace(PROTOCOL, lpips="not available: <urlopen error a_*b* & c>")
    found = evaluation(("frames|a<b>", "x\x1b[2J\n"), clip("a", scores(20), scores(21)), protocol=failed)
    shown = report.table(found)
    assert "LPIPS \N{EN DASH}: not available: <urlopen error a_*b* & c>" in shown.split("\n")
    assert "| frames|a<b> |" in shown
    assert "| x\ufffd[2J\ufffd " in shown
    assert "&lt;urlopen error" in markdown.report(found, [])


def test_clips_notes_and_protocol_in_the_markdown_file() -> None:
    found = evaluation(
        ("bicubic", "MANA"),
        clip("a", scores(20, frames=2), scores(21), note="cropped"),
        clip("b", scores(20), scores(21), dataset="two", motion=None, note="cropped"),
    )
    written = markdown.report(found, [("what", "file.png")])
    rows = [cells_of(line) for line in written.split("\n## Clips\n")[1].split("\n") if line.startswith("| ")]
    dash = "\N{EN DASH}"
    assert rows[1] == ["a", "vid4", "bicubic", "_20.00_", "_0.2000_", dash, "_21.00_", "_0.2100_", "+0.00", "1.00", "2"]
    assert [row[-2] for row in rows[1:]] == ["1.00", "1.00", dash, dash]
    assert "![what](file.png)" in written
    assert "* cropped: a, b" in written
    assert "* degradation: BI" in written
    assert r"* data: vid4, s3://bucket/\*.mp4" in written


def test_every_choice_is_listed() -> None:
    protocol = replace(
        PROTOCOL,
        data=["one", "two"],
        datasets=tuple(
            DatasetProtocol(name=name, uri="u", layout="plain", clips=2, lr="made", frame_subset="all", digest="ab12")
            for name in ("one", "two")
        ),
    )
    listed = dict(markdown.choices(protocol))
    assert set(Protocol.__dataclass_fields__) - listed.keys() == {"datasets", "models", "metrics"}
    assert listed["data"] == "one, two"
    written = markdown.report(evaluation(("bicubic",), clip("a", scores(20)), protocol=protocol), [])
    assert "* dataset: name one; uri u; layout plain; clips 2; lr made; frame_subset all; digest ab12\n" in written
    assert "* dataset: name two; uri u; layout plain; clips 2; lr made; frame_subset all; digest ab12\n" in written


def test_where_each_methods_frames_come_from_is_listed() -> None:
    trained = MethodSource(
        name="m", uri="models:/x4/2", sha256="ab12", attention="dense", memory_slots=0, window=9, frames=7
    )
    protocol = replace(PROTOCOL, models=(MethodSource(name="bicubic"), trained))
    written = markdown.report(evaluation(("bicubic", "m"), clip("a", scores(20), scores(21)), protocol=protocol), [])
    assert "* method: name bicubic\n" in written
    assert (
        "* method: name m; uri models:/x4/2; sha256 ab12; attention dense; memory_slots 0; window 9; frames 7\n"
    ) in written


def test_how_sure_a_difference_is_comes_from_the_clips_own_differences() -> None:
    gains = [0.5, 1.5, -0.25, 2.0, 1.0, 0.75]
    clips = [clip(str(n), scores(20 + n), scores(20 + n + gain), scores(20 + n)) for n, gain in enumerate(gains)]
    perfect = clip("perfect", scores(30), scores(math.inf), scores(29))  # so b is the best, and c's lead is not
    best, equal = paired_differences(evaluation(("a", "b", "c"), *clips, perfect))
    found = re.fullmatch(
        r"b against a, .*: \+0\.92 dB \((\S+) to (\S+) dB in 95 % of resamplings of the 6 clips\)", best
    )
    assert found is not None
    random = np.random.default_rng(7)  # a literal bootstrap, with other draws
    means = [np.mean([gains[random.integers(6)] for _ in gains]) for _ in range(4000)]
    assert [float(found[1]), float(found[2])] == pytest.approx(np.percentile(means, [2.5, 97.5]), abs=0.06)
    assert equal.startswith("b against c, ")
    assert paired_differences(evaluation(("a", "b", "c"), *clips[:4], perfect)) == []
    constant = [clip(str(n), scores(20 + n), scores(21 + n), scores(21 + n)) for n in range(6)]
    (sure,) = paired_differences(evaluation(("a", "b", "c"), *constant))
    assert "b against a, PSNR clip by clip: +1.00 dB (+1.00 to +1.00 dB " in sure


def test_of_many_clips_those_where_methods_differ_most_are_shown_in_the_datas_order() -> None:
    gains = [3, 1, math.inf, 5, 0, 4]
    found = evaluation(
        ("bicubic", "MANA"), *(clip(str(n), scores(20), scores(20 + gain)) for n, gain in enumerate(gains))
    )
    assert [entry.clip for entry in most_different_clips(found, 3)] == ["2", "3", "5"]
    assert [entry.clip for entry in most_different_clips(found, 99)] == list("012345")
    both_perfect = evaluation(
        ("a", "b"), clip("same", scores(math.inf), scores(math.inf)), clip("x", scores(1), scores(2))
    )
    assert [entry.clip for entry in most_different_clips(both_perfect, 1)] == ["x"]


def test_files(tmp_path: Path) -> None:
    examples = tuple(
        example(name, 2, difference) for name, difference in zip("abcdef", (1, 9, 3, 7, 5, 2), strict=True)
    )
    found = evaluation(
        ("bicubic", HOSTILE), *(clip(name, scores(20), scores(21)) for name in "abcdef"), examples=examples
    )
    names = ["report.html", "report.md", "psnr_per_clip.svg", "gain_over_motion.svg", "side_by_side.png"]
    assert report.publish(str(tmp_path / "new" / "out"), found) == [
        str(tmp_path / "new" / "out" / name) for name in names
    ]
    written = {path.name: path.read_bytes() for path in (tmp_path / "new" / "out").iterdir()}
    assert sorted(written) == sorted(names)  # and nothing half written
    for name in names[2:]:
        assert f"]({name})" in written["report.md"].decode()
    for name in names[2:4]:
        assert ElementTree.fromstring(written[name]).tag == "{http://www.w3.org/2000/svg}svg"
    with Image.open(io.BytesIO(written["side_by_side.png"])) as picture:
        assert picture.width > 4 * 240  # LR, two methods, HR
        assert 4 * 240 < picture.height < 5 * 280  # of six examples the four in which methods differ most


def test_an_evaluation_without_pictures_or_finite_numbers_has_a_report_still(tmp_path: Path) -> None:
    found = evaluation(("bicubic",), clip("flat", scores(math.inf), motion=None))
    assert [Path(uri).name for uri in report.publish(str(tmp_path), found)] == ["report.html", "report.md"]
    assert "![" not in (tmp_path / "report.md").read_text()


def test_shortened_keeps_the_end() -> None:
    assert text.shortened("models:/mana@champion", 9) == "…champion"
    assert text.shortened("short", 5) == "short"
    assert text.shortened("漢字漢字", 8) == "漢字漢字"
    assert text.shortened("漢字漢字", 7) == "…字漢字"


def test_links_of_markdown_are_text() -> None:
    assert text.to_markdown("![x](http://y) [x][y] [Errno -2] a_b (c)") == r"![x]\(http://y) [x]\[y] [Errno -2] a_b (c)"
