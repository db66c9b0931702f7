"""Files by URI."""

import os
from pathlib import Path

import pytest

from mana_dist import storage
from mana_dist.errors import UserError


def test_local_paths_and_file_uris_are_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert storage.resolve("a/b") == storage.resolve(f"file://{tmp_path}/a/b") == str(tmp_path / "a/b")
    assert storage.resolve("s3://bucket/key/") == "s3://bucket/key"
    assert storage.join("s3://bucket/", "a/", "/b") == "s3://bucket/a/b"
    assert [storage.is_remote(uri) for uri in ("gs://x", "file:///x", "x")] == [True, False, False]


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


def test_folders(tmp_path: Path) -> None:
    for name in ("b", "a"):
        storage.write_bytes(str(tmp_path / "from" / name), name.encode())
    source, target = str(tmp_path / "from"), str(tmp_path / "to")
    assert storage.is_folder(source)
    assert not storage.exists(target)
    assert storage.list_folder(source) == [f"{source}/a", f"{source}/b"]
    storage.copy_folder(source, target)
    storage.write_bytes(f"{source}/a", b"changed")
    storage.copy_folder(source, target)
    assert storage.read_bytes(f"{target}/a") == b"changed"
    assert sorted(os.listdir(tmp_path)) == ["from", "to"]


@pytest.mark.parametrize("name", ["with space", "a#b", "a?b=c", "50%", "ü"])
def test_odd_characters_are_part_of_the_name(tmp_path: Path, name: str) -> None:
    uri = str(tmp_path / name)
    storage.write_bytes(uri, b"data")
    assert storage.read_bytes(uri) == b"data"
    assert os.listdir(tmp_path) == [name]
    assert storage.filesystem(f"gs://bucket/{name}")[1] == f"bucket/{name}"


def test_an_unknown_scheme_is_a_users_mistake() -> None:
    with pytest.raises(UserError, match="cannot open storage nope://x"):
        storage.filesystem("nope://x")


def test_storage_that_cannot_be_written_is_named_with_its_key(tmp_path: Path) -> None:
    storage.check_writable(str(tmp_path / "new"), "run.storage")
    assert os.listdir(tmp_path / "new") == []
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"run\.storage: cannot write to"):
        storage.check_writable(str(tmp_path / "file" / "below"), "run.storage")
