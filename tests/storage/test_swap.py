"""Compare and swap where the storage does not offer it: likely, and honest about what it finds. See also test_lease."""

import errno
import fcntl
import os
from pathlib import Path

import pytest

from mana_dist import storage
from mana_dist.storage import s3, swap


def no_locks(*_: object) -> None:
    raise OSError(errno.ENOLCK, "No locks available")


@pytest.fixture
def uri(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A file on a file system without locks."""
    monkeypatch.setattr(fcntl, "flock", no_locks)
    monkeypatch.setattr("time.sleep", lambda _: None)
    return str(tmp_path / "runs" / "file")


def test_without_locks_one_after_the_other_is_exact(uri: str) -> None:
    assert swap.read(uri) is None
    assert swap.swap(uri, None, b"one")
    assert not swap.swap(uri, None, b"two")
    assert swap.swap(uri, b"one", b"three")
    assert swap.swap(uri, b"one", b"three")  # again, since the answer may have been lost
    assert not swap.swap(uri, b"one", None)
    assert swap.read(uri) == b"three"
    assert swap.swap(uri, b"three", None)
    assert swap.swap(uri, b"three", None)
    assert not os.path.exists(uri)


def test_without_locks_who_is_overwritten_within_a_second_finds_out(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _: Path(uri).write_bytes(b"of another"))
    assert not swap.swap(uri, None, b"mine")
    assert swap.read(uri) == b"of another"


def test_a_lock_that_is_not_given_back_is_an_error_and_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(swap, "_LOCK_PAUSE", 0)
    path = tmp_path / "file"
    assert swap.swap(str(path), None, b"one")
    with path.open("rb") as halted:
        fcntl.flock(halted, fcntl.LOCK_EX)
        with pytest.raises(OSError, match="another process holds the lock"):
            swap.swap(str(path), b"one", b"two")
    assert swap.swap(str(path), b"one", b"two")


def test_an_s3_store_without_conditional_writes_is_written_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def not_implemented(*_: object) -> bool:
        raise NotImplementedError

    written: dict[str, bytes] = {}
    monkeypatch.setattr(s3, "swap", not_implemented)
    monkeypatch.setattr("time.sleep", lambda _: None)
    monkeypatch.setattr(storage, "write_bytes", written.__setitem__)
    monkeypatch.setattr(storage, "read_bytes", lambda uri: written.get(uri, b""))
    assert swap.swap("s3://bucket/a b", None, b"one")
    assert not swap.swap("s3://bucket/a b", None, b"two")
    assert written == {"s3://bucket/a b": b"one"}
