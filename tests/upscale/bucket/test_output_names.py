"""Results keep the sources' relative names, no two of them the same."""

import dataclasses
from pathlib import Path

import pytest

from mana_dist.errors import UserError
from mana_dist.footage.expand import Clip, expand
from mana_dist.upscale.bucket.output_names import Output, outputs_of, without_results


def names_of(sources: list[Path | str], out: Path, suffix: str = ".mp4") -> dict[str, str]:
    """The results' names, by the sources' file names."""
    arguments = [str(source) for source in sources]
    clips, *_ = expand(arguments)
    return {Path(made.source).name: made.name for made in outputs_of(clips, arguments, str(out), suffix)}


@pytest.fixture
def films(tmp_path: Path) -> Path:
    folder = tmp_path / "films"
    for name in ("a.mkv", "sub/b.c.mov", "sub/deep/d.MP4"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


def test_names_are_relative_to_what_names_the_source(films: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    whole = {"a.mkv": "a.mp4", "b.c.mov": "sub/b.c.mp4", "d.MP4": "sub/deep/d.mp4"}
    assert names_of([films], out) == whole
    assert names_of([f"{films}/"], out) == whole
    assert names_of([f"{films}/**/*.MP4"], out) == {"d.MP4": "sub/deep/d.mp4"}
    assert names_of([f"{films}/*/*.mov"], out) == {"b.c.mov": "sub/b.c.mp4"}
    assert names_of([films / "sub/b.c.mov", films / "a.mkv"], out) == {"b.c.mov": "b.c.mp4", "a.mkv": "a.mp4"}
    assert names_of([films / "sub", films / "a.mkv"], out) == {
        "b.c.mov": "b.c.mp4",
        "d.MP4": "deep/d.mp4",
        "a.mkv": "a.mp4",
    }
    listed = films / "some.txt"
    listed.write_text("sub/b.c.mov\n")
    assert names_of([listed], out) == {"b.c.mov": "sub/b.c.mp4"}
    elsewhere = tmp_path / "lists" / "some.txt"
    elsewhere.parent.mkdir()
    elsewhere.write_text(f"{films}/sub/b.c.mov\n")
    assert names_of([elsewhere], out) == {"b.c.mov": "b.c.mp4"}
    assert names_of([films / "a.mkv"], out, suffix="") == {"a.mkv": "a"}


def test_web_addresses_give_their_files_names() -> None:
    url = "http://host/films/my%20film.mp4?token=1"
    clip = Clip(uri=url, files=None, bytes=None, modified=None, name="my film")
    (made,) = outputs_of([clip], [url], "/out", ".mkv")
    assert (made.name, made.uri) == ("my film.mkv", "/out/my film.mkv")


def test_results_are_not_named_by_secrets() -> None:
    """Passwords of URLs count for nothing, also in a list that lies on the web: another one is no other work."""
    listed = "http://me:one@host/films/list.txt?token=one"
    clips = [
        Clip(uri=url, files=None, bytes=None, modified=None, name="x")
        for url in ("http://me:one@host/films/a/x.mp4?token=one", "http://me:two@host/films/a/x.mp4?token=two")
    ]
    first, second = (
        outputs_of([clip], [listed.replace("one", secret)], "/out", ".mkv")[0].keyed({})
        for clip, secret in zip(clips, ("one", "two"), strict=True)
    )
    assert (first.name, first.key) == (second.name, second.key)
    assert first.name == "a/x.mkv"


def test_two_sources_of_one_result_are_named(films: Path, tmp_path: Path) -> None:
    (films / "a.mov").touch()
    with pytest.raises(UserError, match=rf"{films}/a.mkv and {films}/a.mov would both become {tmp_path}/out/a.mp4"):
        names_of([films], tmp_path / "out")
    other = tmp_path / "other" / "a.mkv"
    other.parent.mkdir()
    other.touch()
    with pytest.raises(UserError, match="would both become"):
        names_of([films / "a.mkv", other], tmp_path / "out")


def test_no_result_lies_in_a_folder_of_pictures(films: Path, tmp_path: Path) -> None:
    (films / "sub.mp4").touch()
    assert len(names_of([films], tmp_path / "out")) == 4
    with pytest.raises(UserError, match=rf"{films}/sub/b.c.mov would go into {tmp_path}/out/sub, the folder of the"):
        names_of([films], tmp_path / "out", suffix="")


def test_results_among_the_sources_are_not_taken_for_sources(films: Path) -> None:
    arguments = [str(films)]
    clips, *_ = expand(arguments)
    left = without_results(clips, arguments, str(films / "sub"))
    assert [Path(clip.uri).name for clip in left] == ["a.mkv"]
    assert without_results(clips, arguments, str(films / "su")) == clips
    for argument in (films, films / "a.mkv", f"{films}/*.mkv", films / "sub"):
        with pytest.raises(UserError, match=f"--out: {films} holds the source .*; name a folder of its own"):
            without_results(clips, [str(argument)], str(films))


def test_keys_stand_for_source_name_and_settings() -> None:
    output = Output("s3://b/x/é film.mp4", "x/é film.mp4", "/out/x/é film.mp4", 7, 1.5)
    key = output.keyed({"crf": 1}).key
    assert key == output.keyed({"crf": 1}).key
    assert key.isascii()
    assert "/" not in key
    changed = [
        output.keyed({"crf": 2}),
        dataclasses.replace(output, bytes=8).keyed({"crf": 1}),
        dataclasses.replace(output, modified=2.5).keyed({"crf": 1}),
        dataclasses.replace(output, source="s3://b/y").keyed({"crf": 1}),
    ]
    assert len({key, *(other.key for other in changed)}) == 5
    assert {other.family for other in changed} == {output.keyed({}).family}
    assert dataclasses.replace(output, name="x/e film.mp4").keyed({}).family != output.keyed({}).family
