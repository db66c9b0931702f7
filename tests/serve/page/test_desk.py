"""The page's queue, bounds and deletions, by a clock of the tests' own and without a process."""

import os
import tempfile
import threading
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path

import pytest
from filelock import FileLock

from mana_dist.serve.page import desk as desks
from mana_dist.serve.page.clip import Client
from mana_dist.serve.page.desk import Desk
from mana_dist.serve.windows import RefusedError
from mana_dist.upscale.config import Settings
from tests.serve.page.servers import ANNE, BERT, Clock, Work, bring, desk_of


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the desks' folders are, so that it can be seen what is in them."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def work() -> Work:
    return Work()


@pytest.fixture
def desk(work: Work, clock: Clock) -> Iterator[Desk]:
    with desk_of(work, clock, page_keep=100, page_upload=1, page_frames=4) as made:
        yield made


def refused(status: HTTPStatus, reason: str) -> "pytest.RaisesExc[RefusedError]":
    return pytest.RaisesExc(RefusedError, match=reason, check=lambda error: error.status == status)


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*") if path.is_file()} - {"lock", "poster.png"}


def test_first_come_first_served_and_everybody_sees_their_place(desk: Desk, work: Work) -> None:
    clips = [bring(desk, Client(f"10.0.0.{number}", str(number))) for number in range(3)]
    for clip in (clips[2], clips[0], clips[1]):
        desk.start(clip, "first", 0, 4)
    assert [desk.state(clip)["ahead"] for clip in clips] == [1, 2, 0]
    seen: list[list[object]] = []
    work.during = lambda: seen.append([desk.state(clip).get("ahead", desk.state(clip)["state"]) for clip in clips])
    assert [desk.work_one() for _ in range(4)] == [True, True, True, False]
    assert seen == [[1, 2, "running"], ["running", 1, "done"], ["done", "running", "done"]]


def test_the_work_is_what_was_asked_for(desk: Desk, work: Work) -> None:
    clip = bring(desk, ANNE, "a film.MKV")
    desk.start(clip, "second", 1, 5)
    desk.work_one()
    task = work.tasks[-1]
    assert (task["model"], task["settings"]) == ("models/b", {"frames": "1:5", "compare": True})
    assert os.path.basename(task["source"]) == "source.mkv"
    done = desk.state(clip)
    assert (done["name"], done["state"], done["result_bytes"]) == ("a film.MKV", "done", len("made of 1:5"))
    assert desk.read(clip, "result.mp4", 5, 2) == (len("made of 1:5"), b"of")


def test_a_whole_clip_is_upscaled_as_by_the_command_without_a_range(desk: Desk, work: Work) -> None:
    work.facts["frames"] = 4
    desk.start(bring(desk, ANNE), "first", 0, 4)
    desk.work_one()
    assert work.tasks[-1]["settings"]["frames"] == Settings().frames


def test_the_time_left_is_that_of_the_frames_left(desk: Desk, work: Work, clock: Clock) -> None:
    clip = bring(desk, ANNE)
    desk.start(clip, "first", 0, 4)
    left: list[float | None] = []

    def frames() -> None:
        left.append(desk.state(clip).get("left"))  # one frame is no speed
        clock.now += 20
        desk._report(desk._clips[clip], {"done": 3, "of": 4})  # two more in 20 s: the last takes 10 s
        left.append(desk.state(clip)["left"])

    work.during = frames
    desk.work_one()
    assert left == [None, 10.0]


def test_one_clip_of_a_client_waits_at_a_time(desk: Desk, work: Work) -> None:
    first = bring(desk, ANNE)
    desk.start(first, "first", 0, 4)
    second, of_another = bring(desk, ANNE), bring(desk, BERT)
    with refused(HTTPStatus.TOO_MANY_REQUESTS, "a clip of yours waits already; wait for it, or delete it"):
        desk.start(second, "first", 0, 4)
    desk.start(of_another, "first", 0, 4)
    while_running: list[str] = []
    work.during = lambda: while_running.append(desk.start(second, "first", 0, 4)["state"])
    desk.work_one()
    assert while_running == ["waiting"]
    assert desk.state(of_another)["ahead"] == 0  # it came before that second one
    assert desk.state(second)["ahead"] == 1


def test_a_clip_that_was_not_started_makes_room_for_the_next_of_the_same_browser(desk: Desk) -> None:
    first = bring(desk, ANNE)
    second = bring(desk, ANNE)
    with refused(HTTPStatus.NOT_FOUND, "no such clip"):
        desk.state(first)
    assert [clip["id"] for clip in desk.of_browser(ANNE)] == [second]
    assert desk.of_browser(Client(ANNE.address, "")) == []


def test_an_address_holds_so_many_clips_and_all_together_so_many(work: Work) -> None:
    with desk_of(work, page_clips_each=2, page_clips=3) as desk:
        for number in range(2):
            bring(desk, Client("10.0.0.1", f"browser {number}"))
        with refused(HTTPStatus.TOO_MANY_REQUESTS, "2 clips of your address are here"):
            desk.create(Client("10.0.0.1", "browser 2"), "clip.mp4")
        bring(desk, BERT)
        with refused(HTTPStatus.SERVICE_UNAVAILABLE, "holds as many clips as it can"):
            desk.create(Client("10.0.0.3", "carl"), "clip.mp4")


def test_what_is_over_its_time_is_deleted(desk: Desk, clock: Clock, temporary: Path) -> None:
    finished, waiting, ready = bring(desk, ANNE), bring(desk, BERT), bring(desk, Client("10.0.0.3", "carl"))
    desk.start(finished, "first", 0, 4)
    clock.now += 60
    desk.work_one()
    desk.start(waiting, "first", 0, 4)
    clock.now += 50  # 110 s after the uploads, 50 s after the work
    desk.sweep()
    with refused(HTTPStatus.NOT_FOUND, "its time was over"):
        desk.state(ready)
    assert desk.state(finished)["deleted_in"] == 50
    clock.now += 51
    desk.sweep()
    assert desk.state(waiting)["state"] == "waiting"  # its person may be away, its turn comes
    assert len(desk._clips) == 1
    assert files(temporary) == {"source.mp4"}
    desk.work_one()
    clock.now += 101
    desk.sweep()
    assert files(temporary) == set()


def test_an_upload_that_falls_silent_is_given_up(desk: Desk, clock: Clock, temporary: Path) -> None:
    clip = desk.create(ANNE, "clip.mp4")
    desk.add(clip, b"a piece")
    clock.now += desks.SILENCE - 1
    desk.add(clip, b"another")
    clock.now += desks.SILENCE - 1
    desk.sweep()
    assert desk.state(clip)["bytes"] == 14
    clock.now += 2
    desk.sweep()
    with refused(HTTPStatus.NOT_FOUND, "no such clip"):
        desk.add(clip, b"too late")
    assert files(temporary) == set()


def test_deleting_stops_the_work_and_leaves_nothing(desk: Desk, work: Work, temporary: Path) -> None:
    clip = bring(desk, ANNE)
    desk.start(clip, "first", 0, 4)
    work.during = lambda: desk.delete(clip)
    assert desk.work_one()
    assert files(temporary) == set()
    waiting = bring(desk, ANNE)
    desk.start(waiting, "first", 0, 4)
    desk.delete(waiting)
    assert not desk.work_one()


def test_closing_leaves_nothing(work: Work, temporary: Path) -> None:
    with desk_of(work) as desk:
        clips = [bring(desk, ANNE), bring(desk, BERT)]
        for clip in clips:
            desk.start(clip, "first", 0, 4)
        desk.work_one()
    assert list(temporary.iterdir()) == []


def test_the_threads_work_and_end(work: Work, temporary: Path) -> None:
    done = threading.Event()
    work.during = done.set
    with desk_of(work).start_threads() as desk:
        desk.start(bring(desk, ANNE), "first", 0, 4)
        assert done.wait(30)
    assert list(temporary.iterdir()) == []


def test_a_killed_servers_folder_is_deleted_by_the_next_one(work: Work, temporary: Path) -> None:
    killed, living, others = (temporary / f"mana_dist-page-{name}" for name in ("killed", "living", "others"))
    for folder in (killed, living, others):
        (folder / "clip").mkdir(parents=True)
    for folder in (killed, living):
        (folder / "lock").touch()
    with FileLock(living / "lock"), desk_of(work):
        assert not killed.exists()
        assert (living / "clip").is_dir()
        assert (others / "clip").is_dir()  # it has no lock: no desk's


@pytest.mark.parametrize(
    ("model", "first", "stop", "reason"),
    [
        ("models/a", 0, 4, "model models/a: there are first, second"),
        ("first", 0, 5, "frames 0:5: at most 4 at a time, the server's page_frames"),
        ("first", 3, 7, "frames 3:7: clip.mp4 has the frames 0:6"),
        ("first", -1, 2, "frames -1:2: clip.mp4 has"),
        ("first", 2, 2, "frames 2:2: clip.mp4 has"),
    ],
)
def test_wrong_wishes_get_one_line(desk: Desk, model: str, first: int, stop: int, reason: str) -> None:
    clip = bring(desk, ANNE)
    with refused(HTTPStatus.UNPROCESSABLE_ENTITY, reason):
        desk.start(clip, model, first, stop)
    assert desk.state(clip)["state"] == "ready"


def test_a_clip_is_upscaled_again_with_other_frames(desk: Desk) -> None:
    clip = bring(desk, ANNE)
    for first in (0, 2):
        desk.start(clip, "first", first, first + 2)
        with refused(HTTPStatus.NOT_FOUND, "there is no result.mp4 of it"):
            desk.read(clip, "result.mp4", 0, 0)
        with refused(HTTPStatus.CONFLICT, "clip.mp4: is waiting"):
            desk.start(clip, "first", 0, 2)
        desk.work_one()
        assert desk.read(clip, "result.mp4", 0, 100)[1] == f"made of {first}:{first + 2}".encode()


def test_longer_than_said_is_refused_before_and_while_it_comes(desk: Desk, temporary: Path) -> None:
    reason = "clip.mp4: is longer than 1 MiB, the server's page_upload; cut it first"
    with refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, reason):
        desk.create(ANNE, "clip.mp4", 2**20 + 1)
    clip = desk.create(ANNE, "clip.mp4", 2**20)
    desk.add(clip, bytes(2**20))
    with refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, reason):
        desk.add(clip, b"1")
    assert files(temporary) == set()


def test_a_clip_that_cannot_be_read_gets_its_line_and_is_deleted(desk: Desk, work: Work, temporary: Path) -> None:
    work.error = "{source}: has no video stream"
    clip = desk.create(ANNE, "song.mp3")
    desk.add(clip, b"la")
    with refused(HTTPStatus.UNPROCESSABLE_ENTITY, "^song.mp3: has no video stream$"):
        desk.finish(clip)
    assert files(temporary) == set()
    empty = desk.create(ANNE, "empty.mp4")
    with refused(HTTPStatus.BAD_REQUEST, "empty.mp4: is empty"):
        desk.finish(empty)


def test_frames_of_too_many_pixels_are_refused(work: Work) -> None:
    with desk_of(work, max_pixels=48 * 32 - 1) as desk:
        clip = desk.create(ANNE, "clip.mp4")
        desk.add(clip, b"frames")
        with refused(HTTPStatus.UNPROCESSABLE_ENTITY, "clip.mp4: frames of 48x32 have more than 1535 pixels"):
            desk.finish(clip)


def test_what_fails_says_why_without_paths_and_the_next_has_its_turn(desk: Desk, work: Work) -> None:
    first, second = bring(desk, ANNE), bring(desk, BERT)
    for clip in (first, second):
        desk.start(clip, "first", 0, 4)
    work.error = "{source}: cannot be upscaled (no room); what is done stays in {destination}.partial, and so on"
    desk.work_one()
    state = desk.state(first)
    assert (state["state"], state["error"]) == ("failed", "clip.mp4: cannot be upscaled (no room)")
    work.error = ""
    work.during = lambda: 1 / 0
    desk.work_one()
    assert desk.state(second)["error"] == "the server failed on it; its log says more"


@pytest.mark.parametrize(
    ("name", "shown", "source"),
    [
        ("../../etc/passwd", "passwd", "source"),
        ("C:\\films\\a.mp4", "a.mp4", "source.mp4"),
        ("a\x00b\n.mp4", "ab.mp4", "source.mp4"),
        ("x.sh;rm", "x.sh;rm", "source"),
        ("..", "..", "source"),
        ("", "clip", "source"),
        ("n" * 500 + ".mkv", "n" * 116 + ".mkv", "source.mkv"),
    ],
)
def test_names_are_shown_and_never_paths(
    desk: Desk, work: Work, temporary: Path, name: str, shown: str, source: str
) -> None:
    clip = bring(desk, ANNE, name)
    assert desk.state(clip)["name"] == shown
    assert files(temporary) == {source}
    assert Path(work.tasks[-1]["source"]).is_relative_to(temporary)
    for wrong in ("../lock", "lock", f"../../{clip}/source"):
        with refused(HTTPStatus.NOT_FOUND, "there is no"):
            desk.read(clip, wrong, 0, 1)


def test_ids_are_secrets(desk: Desk) -> None:
    ids = {desk.create(Client("", ""), "clip.mp4") for _ in range(4)}
    assert len(ids) == 4
    assert {len(id_) for id_ in ids} == {22}  # 128 bits
