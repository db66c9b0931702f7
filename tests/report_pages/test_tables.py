"""Tables of reports, read by an XML parser."""

from xml.etree import ElementTree

from mana_dist.report_pages import figures, listed
from mana_dist.report_pages.tables import ROWS_SHOWN, Cell, Column, Group, Mark, grouped, table

COLUMNS = (Column("clip"), Column("PSNR (dB)", "ratio", "number", over="one & all"), Column("note", over="one & all"))


def rows_of(text: str) -> list[list[tuple[str, str]]]:
    """Tags and texts of every row's cells."""
    root = ElementTree.fromstring(f"<x>{text.replace('&nbsp;', ' ').replace('<br>', '')}</x>")
    return [[(cell.tag, "".join(cell.itertext())) for cell in row] for row in root.iter("tr")]


def test_a_cell_for_every_column_and_names_are_text() -> None:
    made = table("all <b>", COLUMNS, [("<i>a", Cell("1.50", 1.5, Mark.BEST), "x & y"), ("b", Cell("-"), "")])
    assert rows_of(made) == [
        [("td", ""), ("th", "one & all")],
        [("th", "clip"), ("th", "PSNR (dB)"), ("th", "note")],
        [("th", "<i>a"), ("td", "1.50"), ("td", "x & y")],
        [("th", "b"), ("td", "-"), ("td", "")],
    ]
    assert '<th scope="colgroup" colspan="2">' in made
    assert '<td class="number best" title="best" data-value="1.5"><strong>1.50</strong></td>' in made
    assert '<td class="number">-</td>' in made
    assert "<caption>all &lt;b&gt;</caption>" in made


def test_rows_of_a_table_that_can_be_sorted_have_no_heading() -> None:
    made = table("clips", [Column("clip"), Column("dataset", kind="short")], [("a", "b")], "sortable")
    assert rows_of(made)[1] == [("td", "a"), ("td", "b")]
    assert '<td class="short">' in made


def test_groups_have_a_title_over_all_columns() -> None:
    made = grouped("means", COLUMNS[:2], [Group("one", "2 clips", [("a", Cell("1"))]), Group("two", "", [])])
    assert rows_of(made)[2:] == [[("th", "one 2 clips")], [("th", "a"), ("td", "1")], [("th", "two ")]]
    assert made.count('colspan="2" scope="rowgroup"') == 2


def test_a_long_table_says_how_many_rows_are_left_out() -> None:
    made = table("long", [Column("n")], [(str(number),) for number in range(ROWS_SHOWN + 3)])
    assert f">{ROWS_SHOWN - 1}<" in made
    assert f">{ROWS_SHOWN}<" not in made
    assert "and 3 more" in made


def test_nothing_is_shown_of_nothing() -> None:
    assert table("none", COLUMNS, []) == listed([]) == figures([("x", None)]) == ""
