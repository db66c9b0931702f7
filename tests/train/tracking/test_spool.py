"""A queue that outlives its process and never outgrows its memory."""

import errno
import threading
from pathlib import Path

import pytest

from mana_dist.train.tracking.spool import Spool


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def drain(spool: Spool) -> list[bytes]:
    found = []
    while (data := spool.first(timeout=0)) is not None:
        found.append(data)
        spool.drop_first()
    return found


def test_first_in_first_out_and_no_files_unless_stored(tmp_path: Path) -> None:
    spool = Spool(str(tmp_path / "spool"))
    for message in (b"a", b"b", b"c"):
        spool.append(message)
    assert drain(spool) == [b"a", b"b", b"c"]
    assert files(tmp_path / "spool") == []


def test_stored_messages_come_first_in_the_next_process(tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    before = Spool(str(folder))
    for number in range(12):
        before.append(b"%d" % number)
    before.store()
    before.drop_first()
    after = Spool(str(folder))
    after.append(b"new")
    assert drain(after) == [b"%d" % number for number in range(1, 12)] + [b"new"]
    assert files(folder) == []


def test_memory_is_bounded_and_order_kept(tmp_path: Path) -> None:
    spool = Spool(str(tmp_path), budget=100)
    messages = [bytes([number]) * 30 for number in range(20)]
    for message in messages:
        spool.append(message)
        assert spool._held() <= 130
    assert drain(spool) == messages
    assert spool.lost == 0


def test_without_room_in_memory_or_on_disk_the_oldest_go(tmp_path: Path) -> None:
    spool = Spool(str(tmp_path / "file" / "below"), budget=100)
    (tmp_path / "file").touch()  # so nothing can be written there
    messages = [bytes([number]) * 30 for number in range(20)]
    for message in messages:
        spool.append(message)
    assert drain(spool) == [messages[0], *messages[-2:]]  # the very first may be on its way
    assert spool.lost == 17


def test_memory_is_bounded_where_the_storage_fills_up_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = Spool(str(tmp_path), budget=100)
    messages = [bytes([number]) * 30 for number in range(30)]
    for message in messages[:10]:
        spool.append(message)
    spool.store()

    def full(uri: str, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr("mana_dist.storage.write_bytes", full)
    for message in messages[10:]:
        spool.append(message)
        assert spool._held() <= 100
    kept = drain(spool)
    assert kept[:10] == messages[:10]  # in files
    assert kept[10:] == messages[-len(kept[10:]) :]  # the newest
    assert spool.lost == 30 - len(kept) > 0


def test_files_of_others_are_left_alone(tmp_path: Path) -> None:
    others = ["000000000007.json.bak", "notes", "7.json", ".000000000001.json", "x000000000001.json"]
    for name in others:
        (tmp_path / name).write_text("mine")
    spool = Spool(str(tmp_path))
    spool.append(b"a")
    spool.store()
    assert drain(spool) == [b"a"]
    assert files(tmp_path) == sorted(others)


def test_a_file_that_somebody_deleted_is_counted_and_passed_over(tmp_path: Path) -> None:
    before = Spool(str(tmp_path))
    for message in (b"a", b"b"):
        before.append(message)
    before.store()
    after = Spool(str(tmp_path))
    (tmp_path / files(tmp_path)[0]).unlink()
    assert after.stored() == [b"b"]
    assert drain(after) == [b"b"]
    assert after.lost == 1


def test_waiting_ends_with_the_last_message(tmp_path: Path) -> None:
    spool = Spool(str(tmp_path))
    assert spool.wait_empty(0)
    spool.append(b"a")
    assert not spool.wait_empty(0.01)
    threading.Timer(0.05, spool.drop_first).start()
    assert spool.wait_empty(10)


def test_unwanted_leftovers_are_discarded(tmp_path: Path) -> None:
    before = Spool(str(tmp_path))
    for message in (b"keep", b"drop", b"keep too"):
        before.append(message)
    before.store()
    after = Spool(str(tmp_path))
    after.discard(lambda data: data == b"drop")
    assert len(files(tmp_path)) == 2
    assert after.stored() == [b"keep", b"keep too"]


@pytest.mark.parametrize("writers", [1, 4])
def test_writers_and_the_reader_do_not_disturb_each_other(tmp_path: Path, writers: int) -> None:
    spool = Spool(str(tmp_path), budget=500)

    def write(writer: int) -> None:
        for number in range(60):
            spool.append(b"%d %03d %s" % (writer, number, b"x" * 20))
            if number % 10 == writer:
                spool.store()

    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(writers)]
    for thread in threads:
        thread.start()
    seen: list[bytes] = []
    while len(seen) < 60 * writers:
        data = spool.first(timeout=10)
        assert data is not None
        seen.append(data)
        spool.drop_first()
    for writer in range(writers):
        mine = [data for data in seen if data.startswith(b"%d " % writer)]
        assert mine == sorted(mine)
        assert len(mine) == 60
    assert files(tmp_path) == []
