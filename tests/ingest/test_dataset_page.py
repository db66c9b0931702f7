"""The page on a dataset: every number on it is one of the dataset's, and no name on it does anything."""

from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from mana_dist.data.manifest import load_manifest
from mana_dist.errors import UserError
from mana_dist.ingest import dataset_page
from mana_dist.ingest.__main__ import main
from mana_dist.ingest.dataset_page import histogram
from tests.conftest import RunHere
from tests.ingest.datasets import rows, without_ray
from tests.video.videos import moving_frames, noise_frames, write_pictures


class Texts(HTMLParser):
    """The cells of all tables, row by row, and all tags."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.tags: list[str] = []
        self._open: list[str] = []
        self.feed(page)
        self.close()
        assert not self._open, "unclosed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in ("meta", "img"):
            self._open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if {"td", "th"} & set(self._open):
            self.rows[-1][-1] += data


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    without_ray(monkeypatch)
    write_pictures(tmp_path / "set" / "moves", moving_frames(20))
    write_pictures(tmp_path / "set" / "<b>noise & co", noise_frames(9, 96, 96))
    write_pictures(tmp_path / "set" / "short", noise_frames(3))
    main(["--source", str(tmp_path / "set"), "--out", str(tmp_path / "out"), "--min-motion", "0.1"])
    return tmp_path / "out"


def test_the_page_holds_the_datasets_numbers(out: Path, run_here: RunHere) -> None:
    done = run_here(main, "--report", out)
    assert done.returncode == 0
    assert str(out / "report.html") in done.stderr + done.stdout
    text = (out / "report.html").read_text()
    page = Texts(text)
    manifest = load_manifest(str(out))
    assert f"{manifest.samples} samples of {manifest.clips} clips" in text
    for row in (["96x64", "14"], ["96x96", "3"], ["min motion", "0.1"], ["degradation", "BI"]):
        assert row in page.rows
    (short,) = [row for row in page.rows if row[0].endswith("/short") and len(row) == 2]
    assert short[1].startswith("only 3 frames in the range asked for")
    for source in rows(out):
        (line,) = [line for line in page.rows if line[0] == source.clip and len(line) == 11]
        assert line[1:3] == [str(source.frames), str(source.samples)]
        assert line[8] == ("" if source.blockiness is None else f"{source.blockiness:.2f}")
    assert text.count("<img ") == 1
    assert page.tags.count("script") == 1
    assert "b" not in page.tags


def test_histograms_are_of_every_sample_and_every_clip_that_gave_some(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: dict[str, list[float]] = {}

    def noted(values: list[float], label: str, what: str) -> tuple[str, str | None]:
        drawn[f"{what}: {label}"] = list(values)
        return histogram(values, label, what)

    monkeypatch.setattr(dataset_page, "histogram", noted)
    main(["--report", str(out)])
    flows = np.concatenate([pq.read_table(path)["flow"].to_numpy() for path in out.glob("*-00000.parquet")])
    assert sorted(drawn.pop("samples: motion of samples, LR pixels per frame")) == sorted(flows)
    assert len(flows) == 17
    usable = [row for row in rows(out) if row.samples]
    for name in ("detail", "blockiness", "blur"):
        assert drawn.pop(f"clips: {name} of clips that gave samples") == [getattr(row, name) for row in usable]
    assert not drawn
    assert (out / "report.html").read_text().count("<svg ") == 4


def test_a_histogram_of_nothing_is_none() -> None:
    assert histogram([], "x", "clips") == ("x", None)
    assert "</svg>" in (histogram([2.0, 2.0], "x", "clips")[1] or "")


def test_what_has_no_page_is_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no finished sample dataset there"):
        main(["--report", str(tmp_path)])
    with pytest.raises(UserError, match="--report shows a finished dataset and takes no other option"):
        main(["--report", str(tmp_path), "--out", "x"])


def test_a_lost_contact_sheet_is_made_again(out: Path) -> None:
    sheet = (out / "contact_sheet.png").read_bytes()
    (out / "contact_sheet.png").unlink()
    main(["--report", str(out)])
    assert (out / "contact_sheet.png").read_bytes() == sheet


def test_a_dataset_that_changed_has_no_page_of_what_it_was(out: Path, tmp_path: Path) -> None:
    main(["--report", str(out)])
    command = ["--out", str(out), "--min-motion", "0.1", "--source", str(tmp_path / "set")]
    main(command)
    assert (out / "report.html").exists()  # nothing was new
    write_pictures(tmp_path / "set" / "another", moving_frames(12))
    main(command)
    assert not (out / "report.html").exists()
