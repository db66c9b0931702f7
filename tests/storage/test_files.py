"""Files by URI."""

import os
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from pyarrow import fs

from mana_dist import storage
from mana_dist.errors import UserError
from mana_dist.storage import s3
from mana_dist.video.reading import read_frames
from tests.video.videos import noise_frames, write_video


def test_local_paths_and_file_uris_are_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert storage.resolve("a/b") == storage.resolve(f"file://{tmp_path}/a/b") == str(tmp_path / "a/b")
    assert storage.resolve("s3://bucket/key/") == "s3://bucket/key"
    assert storage.join("s3://bucket/", "a/", "/b") == "s3://bucket/a/b"
    assert [storage.is_remote(uri) for uri in ("gs://x", "file:///x", "x", "/a/b://x")] == [True, False, False, False]


def test_bytes_come_back_and_replace_the_old_ones(tmp_path: Path) -> None:
    uri = str(tmp_path / "new" / "folder" / "file")
    storage.write_bytes(uri, b"one")
    storage.write_bytes(uri, b"two")
    assert storage.read_bytes(uri) == b"two"
    assert os.listdir(tmp_path / "new" / "folder") == ["file"]
    with storage.open_read(uri) as stream:
        stream.seek(1)
        assert stream.read() == b"wo"


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    uri = str(tmp_path / "file")
    storage.write_bytes(uri, b"old")
    with pytest.raises(TypeError):
        storage.write_bytes(uri, "not bytes")  # type: ignore[arg-type]
    assert os.listdir(tmp_path) == ["file"]
    assert storage.read_bytes(uri) == b"old"


def test_files_are_deleted_whatever_their_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    local, remote = str(tmp_path / "caf\udce9"), "s3://bucket/a b#c?d%20e"
    monkeypatch.setattr(s3, "filesystem", lambda _: fs.SubTreeFileSystem(str(tmp_path), fs.LocalFileSystem()))
    (tmp_path / "bucket").mkdir()
    for uri, path in ((local, local), (remote, str(tmp_path / "bucket/a b#c?d%20e"))):
        Path(path).write_bytes(b"")
        storage.delete(uri)
        assert not os.path.exists(path)
        with pytest.raises(FileNotFoundError):
            storage.delete(uri)


def test_a_folder_whose_name_is_not_utf8_can_be_written(tmp_path: Path) -> None:
    folder = tmp_path / "caf\udce9"
    folder.mkdir()
    storage.check_writable(str(folder), "--out")
    assert os.listdir(folder) == []


def test_folders(tmp_path: Path) -> None:
    for name in ("b", "a"):
        storage.write_bytes(str(tmp_path / "from" / name), name.encode())
    source, target = str(tmp_path / "from"), str(tmp_path / "to")
    assert storage.is_folder(source)
    assert not storage.exists(target)
    assert storage.list_folder(source) == [f"{source}/a", f"{source}/b"]


def test_files_of_a_folder_without_its_folders(tmp_path: Path) -> None:
    for name in ("b/c", "a"):
        storage.write_bytes(str(tmp_path / name), b"")
    (tmp_path / "link").symlink_to("b")
    assert storage.files_in(str(tmp_path)) == [f"{tmp_path}/a"]
    assert storage.list_folder(str(tmp_path)) == [f"{tmp_path}/a", f"{tmp_path}/b", f"{tmp_path}/link"]


def test_names_that_are_not_utf_8_are_listed_and_read(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"\xff.png")).write_bytes(b"data")
    (name,) = storage.list_folder(str(tmp_path))
    assert os.fsencode(name) == os.fsencode(tmp_path) + b"/\xff.png"
    assert storage.read_bytes(name) == b"data"


@pytest.mark.parametrize("listing", [storage.list_folder, storage.files_in])
def test_what_cannot_be_listed_is_an_os_error(tmp_path: Path, listing: Callable[[str], list[str]]) -> None:
    (tmp_path / "file").touch()
    for name in ("gone", "file", "a\0b"):
        with pytest.raises(OSError, match=name.partition("\0")[0]):
            listing(str(tmp_path / name))


@pytest.mark.parametrize("name", ["with space", "a#b", "a?b=c", "50%", "ü"])
def test_odd_characters_are_part_of_the_name(tmp_path: Path, name: str) -> None:
    uri = str(tmp_path / name)
    storage.write_bytes(uri, b"data")
    assert storage.read_bytes(uri) == b"data"
    assert os.listdir(tmp_path) == [name]
    assert storage.filesystem(f"gs://bucket/{name}")[1] == f"bucket/{name}"


@pytest.mark.parametrize("name", ["x" * 255, "ü" * 127, "x" * 214, "x" * 215])
def test_the_longest_names_are_written(tmp_path: Path, name: str) -> None:
    uri = str(tmp_path / name)
    storage.write_bytes(uri, b"one")
    storage.write_bytes(uri, b"two")
    assert storage.read_bytes(uri) == b"two"
    assert os.listdir(tmp_path) == [name]


def test_names_that_are_too_long_are_told_before(tmp_path: Path) -> None:
    for uri in (str(tmp_path / ("ü" * 128)), f"{tmp_path}/gone/{'x' * 256}/a", "s3://b/" + "ü" * 513, "/x" * 2048):
        assert "too long" in storage.name_problem(uri)
    for uri in (str(tmp_path / ("ü" * 127)), f"{tmp_path}/gone/{'x' * 255}/a", "s3://b/" + "ü" * 512, "gs://b/a"):
        assert storage.name_problem(uri) == ""
    with pytest.raises(UserError, match=r"--out: gs://b/x+: what lies below is too deep \(its key is too long"):
        storage.check_writable("gs://b/" + "x" * 900, "--out")


def test_an_unknown_scheme_is_a_users_mistake() -> None:
    with pytest.raises(UserError, match="cannot open storage nope://x"):
        storage.filesystem("nope://x")


def remote_store(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have ``mock://name`` be the file ``name`` in ``folder``."""
    store = fs.SubTreeFileSystem(str(folder), fs.LocalFileSystem())
    monkeypatch.setattr("mana_dist.storage.filesystems.filesystem", lambda uri: (store, uri.removeprefix("mock://")))


def test_remote_bytes_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    remote_store(tmp_path, monkeypatch)
    storage.write_bytes("mock://file", b"one")
    storage.write_bytes("mock://file", b"two")
    assert os.listdir(tmp_path) == ["file"]
    with storage.open_read("mock://file") as stream:
        stream.seek(1)
        assert stream.read() == b"wo"


def test_a_failed_upload_leaves_the_old_object_and_no_litter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    remote_store(tmp_path, monkeypatch)

    def breaks_off(uri: str) -> None:
        with storage.open_write(uri) as stream:
            stream.write(b"half of")
            raise ConnectionResetError

    for existing in ([], ["file"]):
        with pytest.raises(ConnectionResetError):
            breaks_off("mock://file")
        assert os.listdir(tmp_path) == existing
        storage.write_bytes("mock://file", b"whole")
    assert storage.read_bytes("mock://file") == b"whole"


def test_remote_videos_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = noise_frames(3)
    write_video(tmp_path / "a.mp4", frames)
    remote_store(tmp_path, monkeypatch)
    np.testing.assert_array_equal(list(read_frames("mock://a.mp4")), frames)


@pytest.mark.parametrize("remote", [True, False])
def test_all_files_below_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, remote: bool) -> None:
    for name in ("a", "b/c/d", "b/e"):
        storage.write_bytes(str(tmp_path / name), name.encode())
        os.utime(tmp_path / name, (0, 1234.5))
    if remote:
        remote_store(tmp_path, monkeypatch)
    found = storage.list_files("mock://." if remote else str(tmp_path))
    assert sorted(found) == [("a", 1, 1234.5), ("b/c/d", 5, 1234.5), ("b/e", 3, 1234.5)]


def test_links_are_followed_but_not_around_and_around(tmp_path: Path) -> None:
    storage.write_bytes(str(tmp_path / "tree" / "deep" / "a"), b"")
    storage.write_bytes(str(tmp_path / "elsewhere" / "b"), b"")
    (tmp_path / "tree" / "deep" / "up").symlink_to(tmp_path / "tree")
    (tmp_path / "tree" / "other").symlink_to(tmp_path / "elsewhere")
    storage.write_bytes(str(tmp_path / "tree" / "p" / "c"), b"")
    (tmp_path / "tree" / "r").mkdir()
    (tmp_path / "tree" / "p" / "q").symlink_to(tmp_path / "tree" / "r")
    (tmp_path / "tree" / "r" / "s").symlink_to(tmp_path / "tree" / "p")
    (tmp_path / "tree" / "nowhere").symlink_to(tmp_path / "gone")
    (tmp_path / "tree" / "itself").symlink_to(tmp_path / "tree" / "itself")
    assert sorted(file.path for file in storage.list_files(str(tmp_path / "tree"))) == [
        "deep/a",
        "other/b",
        "p/c",
        "r/s/c",
    ]


def test_a_folder_that_cannot_be_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "locked/b"):
        storage.write_bytes(str(tmp_path / name), b"")
    scan = os.scandir

    def refuse(path: str) -> object:  # what the tests may run as, root, is refused nothing
        if str(path).rstrip("/").endswith("locked"):
            raise PermissionError(13, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    told: list[OSError] = []
    assert [file.path for file in storage.list_files(str(tmp_path), told.append)] == ["a"]
    assert [error.filename for error in told] == [f"{tmp_path}/locked"]
    for folder in (tmp_path, tmp_path / "locked"):
        with pytest.raises(PermissionError):
            storage.list_files(str(folder))


def test_names_that_are_not_utf8_are_listed(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/a\xff")).touch()
    assert [os.fsencode(file.path) for file in storage.list_files(str(tmp_path))] == [b"a\xff"]


@pytest.mark.parametrize("remote", [True, False])
def test_stat_tells_files_from_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, remote: bool) -> None:
    storage.write_bytes(str(tmp_path / "folder" / "file"), b"12345")
    os.utime(tmp_path / "folder" / "file", (0, 1234.5))
    if remote:
        remote_store(tmp_path, monkeypatch)
    root = "mock:/" if remote else str(tmp_path)
    assert storage.stat(f"{root}/folder") == storage.FileStat(f"{root}/folder", folder=True)
    uri = f"{root}/folder/file"
    assert storage.stat(uri) == storage.FileStat(uri, folder=False, bytes=5, modified=1234.5)
    assert [storage.is_folder(f"{root}/{name}") for name in ("folder", "folder/file", "gone")] == [True, False, False]
    assert [storage.exists(f"{root}/{name}") for name in ("folder", "folder/file", "gone")] == [True, True, False]
    with pytest.raises(FileNotFoundError):
        storage.stat(f"{root}/gone")


def test_names_that_no_file_can_have(tmp_path: Path) -> None:
    for name in ("a\0b", "x" * 300):
        assert not storage.exists(str(tmp_path / "gone" / name))
    with pytest.raises(FileNotFoundError, match="no file can have this name"):
        storage.open_read(str(tmp_path / "a\0b"))


@pytest.mark.parametrize(
    ("pattern", "folder", "matches", "others"),
    [
        ("s3://b/films/*.mp4", "s3://b/films", ["a.mp4", "a b#.mp4"], ["a.mkv", "c/a.mp4", ".a.mp4"]),
        ("s3://b/*/x/[ab]?.mp4", "s3://b", ["c/x/a1.mp4"], ["c/x/c1.mp4", "x/a1.mp4", ".c/x/a1.mp4"]),
        ("s3://b/**/*.mp4", "s3://b", ["a.mp4", "c/d/a.mp4"], ["c/d/a.mkv", "c/.d/a.mp4"]),
        ("/films/[!a].mp4", "/films", ["b.mp4"], ["a.mp4"]),
        ("/*/a.mp4", "/", ["b/a.mp4"], ["a.mp4"]),
        ("/films/.*/a.mp4", "/films", [".b/a.mp4"], ["b/a.mp4"]),
        ("/films/a[*].mp4", "/films", ["a*.mp4"], ["ab.mp4"]),
    ],
)
def test_patterns(pattern: str, folder: str, matches: list[str], others: list[str]) -> None:
    assert storage.has_wildcards(pattern)
    found, expression = storage.split_pattern(pattern)
    assert found == folder
    assert [name for name in matches + others if expression.fullmatch(name)] == matches


def test_wrong_patterns_are_a_users_mistake() -> None:
    for pattern, message in (("s3://b*/a.mp4", "without wildcards"), ("/a/b**c/d", "not a pattern")):
        with pytest.raises(UserError, match=message):
            storage.split_pattern(pattern)
    assert not storage.has_wildcards("http://host/a?b=*")


def test_web_servers_can_only_be_read() -> None:
    with pytest.raises(UserError, match="cannot open storage https://host/a: .*not written or listed"):
        storage.filesystem("https://host/a")


def test_google_storage_gives_up_after_a_minute() -> None:
    # Without a limit a store that is out of reach hangs the program, silently.
    limited = fs.GcsFileSystem(retry_time_limit=timedelta(seconds=60), default_bucket_location="")
    assert storage.filesystem("gs://bucket/key") == (limited, "bucket/key")


def test_a_scheme_that_nothing_reads_is_a_users_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="nope://x"):
        storage.open_read("nope://x")

    def no_library(*_: object, **__: object) -> None:
        raise ImportError("no boto3")

    monkeypatch.setattr(s3, "_client", no_library)
    with pytest.raises(UserError, match=r"cannot read s3://b/x: nothing installed reads s3:// \(no boto3\)"):
        storage.open_read("s3://b/x")


def test_storage_that_cannot_be_written_is_named_with_its_key(tmp_path: Path) -> None:
    storage.check_writable(str(tmp_path), "run.storage")
    storage.check_writable(str(tmp_path / "new" / "below"), "run.storage")
    assert os.listdir(tmp_path) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"run\.storage: cannot write to"):
        storage.check_writable(str(tmp_path / "file" / "below"), "run.storage")


class GoogleStorage(BaseHTTPRequestHandler):
    """As much of Google's storage as an upload needs: what came, and the object once an upload says its size."""

    requests: ClassVar[list[str]] = []
    objects: ClassVar[list[bytes]] = []
    came: ClassVar[bytearray] = bytearray()

    def do_POST(self) -> None:
        self.requests.append("begin")
        self._answer(200, Location=f"http://{self.headers['Host']}/upload")

    def do_PUT(self) -> None:
        self.came.extend(self.rfile.read(int(self.headers["Content-Length"])))
        self.requests.append("data")
        if self.headers["Content-Range"].endswith("/*"):  # more is to come
            self._answer(308, Range=f"bytes=0-{len(self.came) - 1}")
        else:
            self.objects.append(bytes(self.came))
            self._answer(200)

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, status: int, **headers: str) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": "2"}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(b"{}")


@pytest.fixture
def google(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[GoogleStorage]]:
    class Store(GoogleStorage):
        requests: ClassVar[list[str]] = []
        objects: ClassVar[list[bytes]] = []
        came: ClassVar[bytearray] = bytearray()

    with ThreadingHTTPServer(("127.0.0.1", 0), Store) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        where = f"127.0.0.1:{server.server_port}"
        here = fs.GcsFileSystem(
            anonymous=True, scheme="http", endpoint_override=where, retry_time_limit=timedelta(seconds=60)
        )
        monkeypatch.setattr("mana_dist.storage.filesystems.filesystem", lambda uri: (here, uri.removeprefix("gs://")))
        yield Store
        server.shutdown()


@pytest.mark.parametrize("size", [0, 4, 20 * 2**20])
def test_an_object_of_googles_is_one_upload(google: type[GoogleStorage], size: int) -> None:
    storage.write_bytes("gs://bucket/a b", bytes(size))
    assert google.objects == [bytes(size)]
    assert google.requests.count("begin") == 1  # and none that copies or deletes: the server answers no such


def test_an_upload_to_google_that_breaks_off_publishes_nothing(google: type[GoogleStorage]) -> None:
    def breaks_off() -> None:
        with storage.open_write("gs://bucket/a") as stream:
            stream.write(bytes(20 * 2**20))
            raise InterruptedError

    with pytest.raises(InterruptedError):
        breaks_off()
    assert (google.objects, google.requests) == ([], [])
