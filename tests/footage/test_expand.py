"""What ``--source`` stands for."""

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyarrow import fs

from mana_dist.errors import UserError
from mana_dist.footage.expand import Clip, Expansion, expand
from tests.web_server import WebServer, web_server


def make(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"12345")
        os.utime(path, (0, 1000.5))


def paths(result: Expansion, folder: Path) -> list[str]:
    return [clip.uri.removeprefix(f"{folder}/") for clip in result.clips]


def reasons(result: Expansion, folder: Path) -> dict[str, str]:
    return {item.source.removeprefix(f"{folder}/"): item.reason for item in result.rejected}


def test_a_video_and_a_folder_of_frames(tmp_path: Path) -> None:
    make(tmp_path, "my film.mp4", "frames/im10.png", "frames/im9.png", "frames/notes.txt")
    result = expand([f"{tmp_path}/my film.mp4", f"file://{tmp_path}/frames/"], start=3, stop=9, downscale=2)
    film = Clip(
        uri=f"{tmp_path}/my film.mp4",
        files=None,
        bytes=5,
        modified=1000.5,
        start=3,
        stop=9,
        downscale=2,
        name="my film",
    )
    files = ("im9.png", "im10.png")
    frames = dataclasses.replace(film, uri=f"{tmp_path}/frames", files=files, bytes=10, name="frames")
    assert result == Expansion([film, frames], [], [], frozenset({film.uri, frames.uri}))


def test_folders_stand_for_what_is_in_them_in_order(tmp_path: Path) -> None:
    make(tmp_path, "b/y.mp4", "b/x.mp4", "a/z/1.png", "a/film.mov")
    result = expand([f"{tmp_path}/b", f"{tmp_path}/a", str(tmp_path)])
    assert paths(result, tmp_path) == ["b/x.mp4", "b/y.mp4", "a/film.mov"]
    assert result.notes == [f"{tmp_path}/a/z: pictures beside or below videos are taken for previews, left out"]


def test_what_is_no_clip_is_rejected(tmp_path: Path) -> None:
    make(tmp_path, "empty/readme", "a.png", "a.mp4")
    (tmp_path / "empty.txt").write_text("# nothing\n")
    names = ["gone.mp4", "empty", "a.png", "empty.txt", "gone.csv", "a.mp4", "gone*.mp4"]
    result = expand([f"{tmp_path}/{name}" for name in names] + ["nope://b/c"])
    assert paths(result, tmp_path) == ["a.mp4"]
    told = reasons(result, tmp_path)
    assert told.pop("nope://b/c").startswith("cannot be read (cannot open storage nope://b/c")
    assert told == {
        "gone.mp4": "does not exist",
        "empty": "no videos and no PNG or JPEG frames in this folder or below",
        "a.png": "is a picture; name the folder of frames",
        "empty.txt": "a list that names no source",
        "gone.csv": "does not exist",
        "gone*.mp4": "does not exist, and as a pattern it matches no video and no folder of frames",
    }


def test_patterns_match_videos_folders_and_lists(tmp_path: Path) -> None:
    make(tmp_path, "v/a1.mp4", "v/a2.MP4", "v/b.mkv", "v/readme.md", "v/.a.mp4", "v/odd.dat")
    make(tmp_path, "f/x1/1.png", "f/x2/1.png", "f/y/1.png", "deep/er/c.mp4")
    (tmp_path / "v" / "l.txt").write_text("b.mkv\n")

    def matched(pattern: str) -> list[str]:
        result = expand([f"{tmp_path}/{pattern}"])
        assert not result.rejected
        return paths(result, tmp_path)

    assert matched("v/*") == ["v/a1.mp4", "v/a2.MP4", "v/b.mkv"]
    assert matched("v/a?.mp4") == ["v/a1.mp4"]
    assert matched("v/*.dat") == ["v/odd.dat"]
    assert matched("v/*.txt") == ["v/b.mkv"]
    assert matched("f/x[12]") == ["f/x1", "f/x2"]
    assert matched("**/*.mp4") == ["deep/er/c.mp4", "v/a1.mp4"]
    assert matched("d*") == ["deep/er/c.mp4"]
    assert matched("?") == ["f/x1", "f/x2", "f/y", "v/a1.mp4", "v/a2.MP4", "v/b.mkv"]


def test_a_name_with_wildcards_is_that_name_first(tmp_path: Path) -> None:
    make(tmp_path, "a[1].mp4", "a1.mp4", "b*/1.png", "bc/1.png")
    assert paths(expand([f"{tmp_path}/a[1].mp4", f"{tmp_path}/b*"]), tmp_path) == ["a[1].mp4", "b*"]


def test_lists_name_sources_of_all_kinds(tmp_path: Path) -> None:
    make(tmp_path, "a.mp4", "b.mp4", "c/1.png", "d/e.mp4", "x1.mp4", "x2.mp4")
    (tmp_path / "list.csv").write_text("uri,frames,downscale\nd,,\nb.mp4,7:9,3\nc,:5,\ngone.mp4,,\nx*.mp4,,4\n")
    result = expand([f"{tmp_path}/list.csv", f"{tmp_path}/a.mp4"], start=1)
    use = {clip.uri.removeprefix(f"{tmp_path}/"): (clip.start, clip.stop, clip.downscale) for clip in result.clips}
    one, four = (1, None, 1), (1, None, 4)
    assert use == {"b.mp4": (7, 9, 3), "c": (0, 5, 1), "d/e.mp4": one, "x1.mp4": four, "x2.mp4": four, "a.mp4": one}
    assert list(use) == ["b.mp4", "c", "d/e.mp4", "x1.mp4", "x2.mp4", "a.mp4"]
    assert reasons(result, tmp_path) == {"gone.mp4": "does not exist"}


def test_lists_do_not_name_lists(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\na.txt\n")
    with pytest.raises(UserError, match=r"a\.txt, line 2: .*/a\.txt is a list"):
        expand([f"{tmp_path}/a.txt"])


def test_a_source_is_used_once_and_in_one_way(tmp_path: Path) -> None:
    make(tmp_path, "a.mp4")
    (tmp_path / "l.csv").write_text("uri,frames\na.mp4,:\n./a.mp4,\n")
    assert paths(expand([str(tmp_path), f"{tmp_path}/l.csv", f"{tmp_path}/a.mp4"]), tmp_path) == ["a.mp4"]
    with pytest.raises(UserError, match=r"a\.mp4: named twice, .* \(the command line; .*/l\.csv, line 2\)"):
        expand([str(tmp_path), f"{tmp_path}/l.csv"], start=1)


# Vimeo90K


@pytest.fixture
def vimeo(tmp_path: Path) -> Path:
    """Three septuplets to train on, one of which is missing, and two others."""
    root = tmp_path / "vimeo"
    for name in ("00001/0001", "00001/0002", "00002/0001", "00002/0003"):
        make(root / "sequences" / name, *(f"im{number}.png" for number in range(1, 8)))
    make(root, "readme.png", "extra/1.png")
    (root / "sep_trainlist.txt").write_text("00001/0001\n00002/0001\n00003/0001\n\n")
    (root / "sep_testlist.txt").write_text("00001/0002\n")
    return root


def test_vimeo90k_is_its_training_list_alone(vimeo: Path) -> None:
    result = expand([str(vimeo)])
    clips = [clip for clip in result.clips if "sequences" in clip.uri]
    assert [clip.uri.removeprefix(f"{vimeo}/sequences/") for clip in clips] == ["00001/0001", "00002/0001"]
    assert clips[0].files == tuple(f"im{number}.png" for number in range(1, 8))
    assert (clips[0].name, clips[0].bytes, clips[0].modified) == ("00001/0001", 35, 1000.5)
    assert reasons(result, vimeo) == {"sequences/00003/0001": "is in sep_trainlist.txt, but there are no frames"}
    left_out = "2 septuplets of sep_trainlist.txt; 2 others, among them those to test on, are left out"
    assert result.notes == [f"{vimeo}: {left_out}"]


@pytest.mark.parametrize(
    "below", ["sequences", "sequences/00001", "sequences/*/*", "sequences/0000[1-3]", "*/*", "../*"]
)
def test_no_way_into_vimeo90k_leads_to_its_test_list(vimeo: Path, below: str) -> None:
    found = paths(expand([f"{vimeo}/{below}"]), vimeo)
    assert "sequences/00001/0001" in found
    assert not {"sequences/00001/0002", "sequences/00002/0003"} & set(found)


def test_nothing_but_septuplets_to_test_on_is_rejected(vimeo: Path) -> None:
    (vimeo / "sep_trainlist.txt").write_text("00002/0001\n")
    result = expand([f"{vimeo}/sequences/00001"])
    assert reasons(result, vimeo) == {"sequences/00001": "holds no septuplet of sep_trainlist.txt"}


@pytest.mark.parametrize(
    ("name", "found"), [("sep_trainlist.txt", ["00001/0001", "00002/0001"]), ("sep_testlist.txt", ["00001/0002"])]
)
def test_vimeo90ks_lists_are_sources(vimeo: Path, name: str, found: list[str]) -> None:
    result = expand([f"{vimeo}/{name}"])
    assert [clip.name for clip in result.clips] == found
    assert [clip.uri for clip in result.clips] == [f"{vimeo}/sequences/{septuplet}" for septuplet in found]
    missing = {"sequences/00003/0001": "is in sep_trainlist.txt, but there are no frames"}
    assert reasons(result, vimeo) == (missing if name == "sep_trainlist.txt" else {})


def test_wrong_lists_of_septuplets(vimeo: Path) -> None:
    (vimeo / "sep_testlist.txt").write_text("00001/0001\n../../etc\n")
    with pytest.raises(UserError, match=r"sep_testlist\.txt, line 2: not a septuplet"):
        expand([f"{vimeo}/sep_testlist.txt"])
    (vimeo / "sequences").rename(vimeo / "moved")
    result = expand([f"{vimeo}/sep_trainlist.txt"])
    assert reasons(result, vimeo) == {"sep_trainlist.txt": "there is no folder sequences beside it"}


# Odd names


def test_odd_names_stay_as_they_are(tmp_path: Path) -> None:
    names = ["a b.mp4", "a#b.mp4", "a%20b.mp4", "a?b=c.mp4", "new\nline.mp4", "ü 漢.mp4", "frames #1/1 1.png"]
    make(tmp_path, *names[:6])
    for name in names[:6]:
        assert expand([f"{tmp_path}/{name}"]).clips == [
            Clip(uri=f"{tmp_path}/{name}", files=None, bytes=5, modified=1000.5, name=name.removesuffix(".mp4"))
        ]
    assert paths(expand([str(tmp_path)]), tmp_path) == sorted(names[:6])
    make(tmp_path / "pictures", names[6])
    (clip,) = expand([f"{tmp_path}/pictures"]).clips
    assert (clip.uri, clip.files, clip.name) == (f"{tmp_path}/pictures/frames #1", ("1 1.png",), "frames #1")


def test_names_that_are_not_utf8_are_rejected(tmp_path: Path) -> None:
    make(tmp_path, "a.mp4")
    broken = os.fsdecode(os.fsencode(tmp_path) + b"/b\xff.mp4")
    Path(broken).touch()
    for argument in (str(tmp_path), broken):
        assert reasons(expand([argument]), tmp_path) == {"b\\udcff.mp4": "its name is not UTF-8; rename it"}
    assert paths(expand([str(tmp_path)]), tmp_path) == ["a.mp4"]


def test_object_keys_are_no_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = ["v/../up.mp4", "v//twice.mp4", "/slash.mp4", "v/./dot.mp4", "v/zero.mp4"]

    class Store:
        """As pyarrow lists a bucket with such keys."""

        def get_file_info(self, what: str | fs.FileSelector) -> object:
            if isinstance(what, fs.FileSelector):
                assert what.recursive
                return [fs.FileInfo(f"bucket/{key}", fs.FileType.File, size=0, mtime_ns=2 * 10**9) for key in keys]
            return fs.FileInfo(what, fs.FileType.Directory)

    monkeypatch.setattr("mana_dist.storage.filesystems.filesystem", lambda uri: (Store(), uri.removeprefix("mock://")))
    result = expand(["mock://bucket"])
    assert [clip.uri for clip in result.clips] == sorted(f"mock://bucket/{key}" for key in keys)


# Web servers


@pytest.fixture
def server() -> Iterator[WebServer]:
    with web_server() as served:
        yield served


def test_urls_are_clips_and_lists(server: WebServer) -> None:
    server.files = {"/a b.mp4": b"123", "/lists/l.txt": b"../a%20b.mp4?key=1\nhttp://127.0.0.1:9x/\ngone.mp4\n"}
    result = expand([f"{server.url}/lists/l.txt?key=2", f"{server.url}/a%20b.mp4?key=1"])
    assert result.clips == [
        Clip(uri=f"{server.url}/a%20b.mp4?key=1", files=None, bytes=3, modified=1795341600.0, name="a b")
    ]
    told = {item.source.removeprefix(server.url): item.reason for item in result.rejected}
    assert told["/lists/gone.mp4"] == "does not exist"
    assert told["http://127.0.0.1:9x/"].startswith("cannot be read (")
