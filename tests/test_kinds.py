import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from mana_dist.kinds import Table


@dataclass(frozen=True, kw_only=True)
class Colour:
    name: str
    warm: bool


def table(folder: Path, monkeypatch: pytest.MonkeyPatch, **modules: str) -> Table[Colour]:
    package = f"colours_{abs(hash(folder))}"
    (folder / package).mkdir()
    (folder / package / "__init__.py").touch()
    for name, text in modules.items():
        (folder / package / f"{name}.py").write_text(f"from {__name__} import Colour\n{text}\n")
    monkeypatch.syspath_prepend(str(folder))
    return Table(Colour, package, [str(folder / package)], first=("red", "blue"))


def test_a_new_file_in_the_package_is_a_new_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    red, others = "A = Colour(name='red', warm=True)", "B = Colour(name='blue', warm=False)"
    found = table(tmp_path, monkeypatch, reds=red, a=f"{others}\nC = Colour(name='amber', warm=True)", helper="")
    assert list(found) == ["red", "blue", "amber"]
    assert found["amber"].warm
    found.add(Colour(name="aqua", warm=False))
    assert list(found)[-1] == "aqua"
    with pytest.raises(ValueError, match="there is a Colour named aqua already"):
        found.add(Colour(name="aqua", warm=True))


def test_a_kind_without_one_of_its_parts_stops_the_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TypeError, match="missing 1 required keyword-only argument: 'warm'"):
        table(tmp_path, monkeypatch, broken="A = Colour(name='red')")
    assert __name__ in sys.modules
