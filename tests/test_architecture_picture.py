"""The picture in docs/architecture.md against the packages, and against the order that the linter holds."""

import tomllib
from pathlib import Path
from xml.etree import ElementTree

REPOSITORY = Path(__file__).parents[1]
SVG = "{http://www.w3.org/2000/svg}"


def test_every_room_stands_above_those_that_it_may_import() -> None:
    root = ElementTree.parse(REPOSITORY / "docs" / "rooms.svg").getroot()
    heights = {
        str(text.text): float(text.attrib["y"]) for text in root.iter(f"{SVG}text") if text.get("class") == "room"
    }
    packages = {path.parent.name for path in (REPOSITORY / "mana_dist").glob("*/__init__.py")}
    assert packages <= heights.keys()
    settings = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    layers = settings["tool"]["importlinter"]["contracts"][0]["layers"]
    rows = [{name.strip().removeprefix("mana_dist.") for name in layer.split("|")} & heights.keys() for layer in layers]
    drawn = [{heights[name] for name in row} for row in rows if row]
    assert all(len(row) == 1 for row in drawn)
    assert [height for row in drawn for height in row] == sorted(height for row in drawn for height in row)
    assert len(drawn) == len(set(heights.values())) - 1  # the entries are no packages of mana_dist
    assert "(rooms.svg)" in (REPOSITORY / "docs" / "architecture.md").read_text()
