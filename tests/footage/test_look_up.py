"""What lies at many URIs, and what it costs to find out."""

import os
from collections import Counter
from pathlib import Path

import pytest
from pyarrow import fs

from mana_dist import storage
from mana_dist.footage.look_up import Place, look_up


class CountingStore:
    """``mock://bucket/...`` is a local folder; how often it was asked for what."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.requests: Counter[str] = Counter()
        self._files = fs.SubTreeFileSystem(str(folder), fs.LocalFileSystem())
        monkeypatch.setattr("mana_dist.storage.filesystems.filesystem", lambda uri: (self, uri.removeprefix("mock://")))

    def get_file_info(self, what: str | fs.FileSelector) -> object:
        self.requests["listing" if isinstance(what, fs.FileSelector) else "single"] += 1
        return self._files.get_file_info(what)


def place(uri: str, path: Path) -> Place:
    return Place(uri, file=storage.FileStat(uri, False, path.stat().st_size, path.stat().st_mtime))


@pytest.fixture
def bucket(tmp_path: Path) -> Path:
    for number in range(150):
        (tmp_path / "bucket" / "videos").mkdir(parents=True, exist_ok=True)
        (tmp_path / "bucket" / "videos" / f"{number}.mp4").write_bytes(b"x" * number)
        os.utime(tmp_path / "bucket" / "videos" / f"{number}.mp4", (0, number + 0.5))
        folder = tmp_path / "bucket" / "frames" / f"{number:03}"
        folder.mkdir(parents=True)
        (folder / "1.png").write_bytes(b"y")
        os.utime(folder / "1.png", (0, 2.0))
    return tmp_path / "bucket"


def test_many_names_in_a_folder_cost_one_listing(bucket: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uris = [f"mock://bucket/videos/{number}.mp4" for number in range(150)]
    uris += [f"mock://bucket/frames/{number:03}" for number in range(150)]
    uris += ["mock://bucket/videos/gone.mp4", "mock://bucket/frames/gone"]
    store = CountingStore(bucket.parent, monkeypatch)
    found = look_up(uris)
    assert [item.uri for item in found] == uris
    assert found[:150] == [place(uri, bucket / "videos" / uri.rpartition("/")[2]) for uri in uris[:150]]
    assert [item.files for item in found[150:300]] == [[("1.png", 1, 2.0)]] * 150
    assert all(item.missing for item in found[300:])
    assert sum(store.requests.values()) <= 4  # two folders: what it is, and its listing


def test_few_names_are_asked_for_one_by_one(bucket: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = CountingStore(bucket.parent, monkeypatch)
    uris = ["mock://bucket/videos/7.mp4", "mock://bucket/videos/gone.mp4", "mock://bucket/frames/007"]
    found = look_up([*uris, *uris])
    assert found[:3] == found[3:]
    assert found[0] == place(uris[0], bucket / "videos" / "7.mp4")
    assert found[1].missing
    assert found[2].files == [("1.png", 1, 2.0)]
    assert store.requests == {"single": 3, "listing": 1}


def test_local_and_remote_names_give_the_same(bucket: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"videos/{number}.mp4" for number in range(150)] + ["frames/001", "frames/002", "gone"]
    local = look_up([f"{bucket}/{name}" for name in names])
    CountingStore(bucket.parent, monkeypatch)
    remote = look_up([f"mock://bucket/{name}" for name in names])
    for mine, other in zip(local, remote, strict=True):
        assert (mine.files, mine.missing, mine.error) == (other.files, other.missing, other.error)
        assert (mine.file and (mine.file.bytes, mine.file.modified)) == (
            other.file and (other.file.bytes, other.file.modified)
        )


def test_what_cannot_be_looked_up_says_why(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    strange, below_file = look_up(["nope://b/a.mp4", f"{tmp_path}/file/a.mp4"])
    assert strange.error.startswith("cannot open storage nope://b/a.mp4: ")
    assert below_file.missing
