"""What a folder stands for."""

import pytest

from mana_dist.footage.found import FoundClip, below, clips_in, outside, relative
from mana_dist.storage import ListedFile


def clips(*paths: str) -> list[str]:
    return [clip.path for clip in clips_in(ListedFile(path, 1, 1.0) for path in paths)[0]]


def test_videos_are_clips_at_any_depth() -> None:
    assert clips("b.mp4", "a/c.MKV", "a/d/e.264", "readme.md", "mp4") == ["a/c.MKV", "a/d/e.264", "b.mp4"]


def test_folders_of_frames_are_clips_at_any_depth() -> None:
    assert clips("b/1.png", "b/2.png", "a/c/1.JPG", "x/notes.txt") == ["a/c", "b"]
    assert clips("1.png", "2.png", "more/1.jpeg") == ["", "more"]


def test_pictures_beside_or_below_videos_are_previews() -> None:
    files = ["a/v.mp4", "a/v.jpg", "a/thumbs/1.jpg", "b/1.png", "ab/1.png"]
    found, previews = clips_in(ListedFile(path, 1, 1.0) for path in files)
    assert [clip.path for clip in found] == ["a/v.mp4", "ab", "b"]
    assert previews == ["a", "a/thumbs"]


def test_hidden_names_are_skipped() -> None:
    assert clips(".v.mp4", ".a/v.mp4", "b/.1.png", "c/.d/1.png", "..a/v.mp4") == []
    assert clips("a/../v.mp4", "./v.mp4", "../v.mp4") == ["../v.mp4", "./v.mp4", "a/../v.mp4"]


def test_sizes_and_times_come_from_the_listing() -> None:
    files = [ListedFile("v.mp4", 7, 3.0), ListedFile("f/10.png", 2, 5.0), ListedFile("f/9.png", 3, 9.0)]
    assert clips_in(files[:1])[0] == [FoundClip("v.mp4", None, 7, 3.0)]
    assert clips_in(files[1:])[0] == [FoundClip("f", ("9.png", "10.png"), 5, 9.0)]


@pytest.mark.parametrize(
    ("folder", "path", "uri"),
    [("/a", "b/c", "/a/b/c"), ("/", "b", "/b"), ("/a", "", "/a"), ("s3://b", "/c//d", "s3://b//c//d")],
)
def test_nothing_of_a_name_is_changed(folder: str, path: str, uri: str) -> None:
    assert below(folder, path) == uri


@pytest.mark.parametrize(
    ("uri", "folder", "path"),
    [("/a/b/c", "/a", "b/c"), ("file:///a/b/", "/a", "b"), ("/a/", "/a", ""), ("/ab", "/a", None), ("/a", "/a/b", None),
     ("/b", "/", "b"), ("s3://b/c/d", "s3://b/c/", "d"), ("s3://b/c", "s3://b", "c"), ("s3://b", "/b", None)],
)  # fmt: skip
def test_paths_below_a_folder(uri: str, folder: str, path: str | None) -> None:
    assert relative(uri, folder) == path


@pytest.mark.parametrize(
    ("without", "left"),
    [("", ["a/1", "a/b/1", "ab/1"]), ("/x/a", ["ab/1"]), ("/x/a/b/", ["a/1", "ab/1"]), ("/x", []), ("/x/1", None),
     ("/", None), ("/y", None)],
)  # fmt: skip
def test_what_lies_outside_of_a_folder(without: str, left: list[str] | None) -> None:
    files = [ListedFile(path, 1, 1.0) for path in ("a/1", "a/b/1", "ab/1")]
    assert [file.path for file in outside("/x", files, without)] == (
        left if left is not None else ["a/1", "a/b/1", "ab/1"]
    )
