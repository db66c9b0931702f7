"""Lists of sources."""

from pathlib import Path

import pytest

from mana_dist.errors import UserError
from mana_dist.footage.source_lists import Entry, is_list, read_list


def read(path: Path, text: str | bytes) -> list[Entry]:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_list(Entry(str(path), 5, 50, 2, "the command line"))


def test_a_text_list_has_a_uri_a_line(tmp_path: Path) -> None:
    text = "\ufeff# mine\r\n a b#1.mp4 \r\n\r\n/abs/c.mp4\ns3://b/d%20.mp4\nsub/../e.mp4\n../f.mp4\n./g.mp4"
    entries = read(tmp_path / "list.txt", text)
    assert [entry.uri for entry in entries] == [
        *(f"{tmp_path}/a b#1.mp4", "/abs/c.mp4", "s3://b/d%20.mp4"),
        *(f"{tmp_path}/e.mp4", f"{tmp_path.parent}/f.mp4", f"{tmp_path}/g.mp4"),
    ]
    assert [entry.origin for entry in entries][:2] == [f"{tmp_path}/list.txt, line {number}" for number in (2, 4)]
    assert {(entry.start, entry.stop, entry.downscale) for entry in entries} == {(5, 50, 2)}


def test_a_table_may_say_what_to_use_of_a_source(tmp_path: Path) -> None:
    text = 'downscale, uri,frames\n,"a, b.mp4",\n3,c.mp4,10:\n\n4,"new\nline.mp4",:7\n2,d.mp4\n'
    entries = read(tmp_path / "list.CSV", text)
    assert [(Path(entry.uri).name, entry.start, entry.stop, entry.downscale) for entry in entries] == [
        *(("a, b.mp4", 5, 50, 2), ("c.mp4", 10, None, 3), ("new\nline.mp4", 0, 7, 4), ("d.mp4", 5, 50, 2)),
    ]


def test_a_json_list_has_an_object_a_line(tmp_path: Path) -> None:
    text = '{"uri": " a.mp4", "frames": "1:9"}\n\n{"uri": "http://h/b?c=d", "downscale": 3}\n'
    first, second = read(tmp_path / "list.jsonl", text)
    assert (first.uri, first.start, first.stop, first.downscale) == (f"{tmp_path}/ a.mp4", 1, 9, 2)
    assert (second.uri, second.start, second.stop, second.downscale) == ("http://h/b?c=d", 5, 50, 3)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("l.txt", b"a\xff.mp4", "l.txt: not a list of sources .*save it as UTF-8"),
        ("l.csv", "", "l.csv, line 1: no column uri; begin the table with the line: uri,frames,downscale"),
        ("l.csv", "a.mp4\nb.mp4", "line 1: no column uri"),
        ("l.csv", "uri,frame\na.mp4,1:2\n", "line 2: no such key: 'frame'; only uri, frames, downscale"),
        ("l.csv", "uri,frames\na.mp4,12\n", "line 2: frame range '12': write START:STOP"),
        ("l.csv", "uri,frames\na.mp4,7:5\n", "line 2: frame range '7:5' is empty"),
        ("l.csv", "uri,downscale\na.mp4,0\n", "line 2: downscale '0' must be a whole number"),
        ("l.csv", "uri,downscale\na.mp4,1.5\n", "line 2: downscale '1.5' must be"),
        ("l.csv", "uri\na,b.mp4\n", "line 2: more fields than columns"),
        ("l.csv", 'uri\n"a.mp4\n', "not CSV"),
        ("l.csv", "uri,frames\n,1:2\n", "line 2: names no source"),
        ("l.jsonl", '{"uri": "a"}\n{uri}\n', "line 2: not JSON .*; write one object a line"),
        ("l.jsonl", '["a.mp4"]\n', "line 1: not an object"),
        ("l.jsonl", '{"uri": 3}\n', "line 1: names no source"),
        ("l.jsonl", '{"uri": "a", "downscale": true}\n', "line 1: downscale True must be"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, name: str, text: str | bytes, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read(tmp_path / name, text)


def test_names_of_lists() -> None:
    names = ("a.txt", "s3://b/a.CSV", "http://h/a.jsonl?b=c.mp4", "a.mp4", "http://h/a.mp4?b=c.txt")
    assert [is_list(name) for name in names] == [True, True, True, False, False]
