"""The page's queue, bounds and deletions, by a clock of the tests' own and without a process."""

import os
import tempfile
import threading
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path

import pytest
from filelock import FileLock

from mana_dist.serve.web_page import page_service
from mana_dist.serve.web_page.clip import Client
from mana_dist.serve.web_page.page_service import PageService
from mana_dist.serve.windows import RefusedError
from mana_dist.upscale.config import Settings
from tests.serve.web_page.servers import ANNE, BERT, Clock, Work, bring, service_of


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the services' folders are, so that it can be seen what is in them."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def work() -> Work:
    return Work()


@pytest.fixture
def service(work: Work, clock: Clock) -> Iterator[PageService]:
    with service_of(work, clock, page_keep=100, page_upload=1, page_frames=4) as made:
        yield made


def refused(status: HTTPStatus, reason: str) -> "pytest.RaisesExc[RefusedError]":
    return pytest.RaisesExc(RefusedError, match=reason, check=lambda error: error.status == status)


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*") if path.is_file()} - {"lock", "poster.png"}


def test_first_come_first_served_and_everybody_sees_their_place(service: PageService, work: Work) -> None:
    clips = [bring(service, Client(f"10.0.0.{number}", str(number))) for number in range(3)]
    for clip in (clips[2], clips[0], clips[1]):
        service.start(clip, "first", 0, 4)
    assert [service.state(clip)["ahead"] for clip in clips] == [1, 2, 0]
    seen: list[list[object]] = []
    work.during = lambda: seen.append(
        [service.state(clip).get("ahead", service.state(clip)["state"]) for clip in clips]
    )
    assert [service.work_one() for _ in range(4)] == [True, True, True, False]
    assert seen == [[1, 2, "running"], ["running", 1, "done"], ["done", "running", "done"]]


def test_the_work_is_what_was_asked_for(service: PageService, work: Work) -> None:
    clip = bring(service, ANNE, "a film.MKV")
    service.start(clip, "second", 1, 5)
    service.work_one()
    task = work.tasks[-1]
    assert (task["model"], task["settings"]) == ("models/b", {"frames": "1:5", "compare": True})
    assert os.path.basename(task["source"]) == "source.mkv"
    done = service.state(clip)
    assert (done["name"], done["state"], done["result_bytes"]) == ("a film.MKV", "done", len("made of 1:5"))
    assert service.read(clip, "result.mp4", 5, 2) == (len("made of 1:5"), b"of")


def test_a_whole_clip_is_upscaled_as_by_the_command_without_a_range(service: PageService, work: Work) -> None:
    work.facts["frames"] = 4
    service.start(bring(service, ANNE), "first", 0, 4)
    service.work_one()
    assert work.tasks[-1]["settings"]["frames"] == Settings().frames


def test_the_time_left_is_that_of_the_frames_left(service: PageService, work: Work, clock: Clock) -> None:
    clip = bring(service, ANNE)
    service.start(clip, "first", 0, 4)
    left: list[float | None] = []

    def frames() -> None:
        left.append(service.state(clip).get("left"))  # one frame is no speed
        clock.now += 20
        service._report(service._clips[clip], {"done": 3, "of": 4})  # two more in 20 s: the last takes 10 s
        left.append(service.state(clip)["left"])

    work.during = frames
    service.work_one()
    assert left == [None, 10.0]


def test_one_clip_of_a_client_waits_at_a_time(service: PageService, work: Work) -> None:
    first = bring(service, ANNE)
    service.start(first, "first", 0, 4)
    second, of_another = bring(service, ANNE), bring(service, BERT)
    with refused(HTTPStatus.TOO_MANY_REQUESTS, "a clip of yours waits already; wait for it, or delete it"):
        service.start(second, "first", 0, 4)
    service.start(of_another, "first", 0, 4)
    while_running: list[str] = []
    work.during = lambda: while_running.append(service.start(second, "first", 0, 4)["state"])
    service.work_one()
    assert while_running == ["waiting"]
    assert service.state(of_another)["ahead"] == 0  # it came before that second one
    assert service.state(second)["ahead"] == 1


def test_a_clip_that_was_not_started_makes_room_for_the_next_of_the_same_browser(service: PageService) -> None:
    first = bring(service, ANNE)
    second = bring(service, ANNE)
    with refused(HTTPStatus.NOT_FOUND, "no such clip"):
        service.state(first)
    assert [clip["id"] for clip in service.of_browser(ANNE)] == [second]
    assert service.of_browser(Client(ANNE.address, "")) == []


def test_an_address_holds_so_many_clips_and_all_together_so_many(work: Work) -> None:
    with service_of(work, page_clips_each=2, page_clips=3) as service:
        for number in range(2):
            bring(service, Client("10.0.0.1", f"browser {number}"))
        with refused(HTTPStatus.TOO_MANY_REQUESTS, "2 clips of your address are here"):
            service.create(Client("10.0.0.1", "browser 2"), "clip.mp4")
        bring(service, BERT)
        with refused(HTTPStatus.SERVICE_UNAVAILABLE, "holds as many clips as it can"):
            service.create(Client("10.0.0.3", "carl"), "clip.mp4")


def test_what_is_over_its_time_is_deleted(service: PageService, clock: Clock, temporary: Path) -> None:
    finished, waiting, ready = bring(service, ANNE), bring(service, BERT), bring(service, Client("10.0.0.3", "carl"))
    service.start(finished, "first", 0, 4)
    clock.now += 60
    service.work_one()
    service.start(waiting, "first", 0, 4)
    clock.now += 50  # 110 s after the uploads, 50 s after the work
    service.sweep()
    with refused(HTTPStatus.NOT_FOUND, "its time was over"):
        service.state(ready)
    assert service.state(finished)["deleted_in"] == 50
    clock.now += 51
    service.sweep()
    assert service.state(waiting)["state"] == "waiting"  # its person may be away, its turn comes
    assert len(service._clips) == 1
    assert files(temporary) == {"source.mp4"}
    service.work_one()
    clock.now += 101
    service.sweep()
    assert files(temporary) == set()


def test_an_upload_that_falls_silent_is_given_up(service: PageService, clock: Clock, temporary: Path) -> None:
    clip = service.create(ANNE, "clip.mp4")
    service.add(clip, b"a piece")
    clock.now += page_service.SILENCE - 1
    service.add(clip, b"another")
    clock.now += page_service.SILENCE - 1
    service.sweep()
    assert service.state(clip)["bytes"] == 14
    clock.now += 2
    service.sweep()
    with refused(HTTPStatus.NOT_FOUND, "no such clip"):
        service.add(clip, b"too late")
    assert files(temporary) == set()


def test_deleting_stops_the_work_and_leaves_nothing(service: PageService, work: Work, temporary: Path) -> None:
    clip = bring(service, ANNE)
    service.start(clip, "first", 0, 4)
    work.during = lambda: service.delete(clip)
    assert service.work_one()
    assert files(temporary) == set()
    waiting = bring(service, ANNE)
    service.start(waiting, "first", 0, 4)
    service.delete(waiting)
    assert not service.work_one()


def test_closing_leaves_nothing(work: Work, temporary: Path) -> None:
    with service_of(work) as service:
        clips = [bring(service, ANNE), bring(service, BERT)]
        for clip in clips:
            service.start(clip, "first", 0, 4)
        service.work_one()
    assert list(temporary.iterdir()) == []


def test_the_threads_work_and_end(work: Work, temporary: Path) -> None:
    done = threading.Event()
    work.during = done.set
    with service_of(work).start_threads() as service:
        service.start(bring(service, ANNE), "first", 0, 4)
        assert done.wait(30)
    assert list(temporary.iterdir()) == []


def test_a_killed_servers_folder_is_deleted_by_the_next_one(work: Work, temporary: Path) -> None:
    killed, living, others = (temporary / f"mana_dist-page-{name}" for name in ("killed", "living", "others"))
    for folder in (killed, living, others):
        (folder / "clip").mkdir(parents=True)
    for folder in (killed, living):
        (folder / "lock").touch()
    with FileLock(living / "lock"), service_of(work):
        assert not killed.exists()
        assert (living / "clip").is_dir()
        assert (others / "clip").is_dir()  # it has no lock: no service's


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
def test_wrong_wishes_get_one_line(service: PageService, model: str, first: int, stop: int, reason: str) -> None:
    clip = bring(service, ANNE)
    with refused(HTTPStatus.UNPROCESSABLE_ENTITY, reason):
        service.start(clip, model, first, stop)
    assert service.state(clip)["state"] == "ready"


def test_a_clip_is_upscaled_again_with_other_frames(service: PageService) -> None:
    clip = bring(service, ANNE)
    for first in (0, 2):
        service.start(clip, "first", first, first + 2)
        with refused(HTTPStatus.NOT_FOUND, "there is no result.mp4 of it"):
            service.read(clip, "result.mp4", 0, 0)
        with refused(HTTPStatus.CONFLICT, "clip.mp4: is waiting"):
            service.start(clip, "first", 0, 2)
        service.work_one()
        assert service.read(clip, "result.mp4", 0, 100)[1] == f"made of {first}:{first + 2}".encode()


def test_longer_than_said_is_refused_before_and_while_it_comes(service: PageService, temporary: Path) -> None:
    reason = "clip.mp4: is longer than 1 MiB, the server's page_upload; cut it first"
    with refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, reason):
        service.create(ANNE, "clip.mp4", 2**20 + 1)
    clip = service.create(ANNE, "clip.mp4", 2**20)
    service.add(clip, bytes(2**20))
    with refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, reason):
        service.add(clip, b"1")
    assert files(temporary) == set()


def test_a_clip_that_cannot_be_read_gets_its_line_and_is_deleted(
    service: PageService, work: Work, temporary: Path
) -> None:
    work.error = "{source}: has no video stream"
    clip = service.create(ANNE, "song.mp3")
    service.add(clip, b"la")
    with refused(HTTPStatus.UNPROCESSABLE_ENTITY, "^song.mp3: has no video stream$"):
        service.finish(clip)
    assert files(temporary) == set()
    empty = service.create(ANNE, "empty.mp4")
    with refused(HTTPStatus.BAD_REQUEST, "empty.mp4: is empty"):
        service.finish(empty)


def test_frames_of_too_many_pixels_are_refused(work: Work) -> None:
    with service_of(work, max_pixels=48 * 32 - 1) as service:
        clip = service.create(ANNE, "clip.mp4")
        service.add(clip, b"frames")
        with refused(HTTPStatus.UNPROCESSABLE_ENTITY, "clip.mp4: frames of 48x32 have more than 1535 pixels"):
            service.finish(clip)


def test_what_fails_says_why_without_paths_and_the_next_has_its_turn(service: PageService, work: Work) -> None:
    first, second = bring(service, ANNE), bring(service, BERT)
    for clip in (first, second):
        service.start(clip, "first", 0, 4)
    work.error = "{source}: cannot be upscaled (no room); what is done stays in {destination}.partial, and so on"
    service.work_one()
    state = service.state(first)
    assert (state["state"], state["error"]) == ("failed", "clip.mp4: cannot be upscaled (no room)")
    work.error = ""
    work.during = lambda: 1 / 0
    service.work_one()
    assert service.state(second)["error"] == "the server failed on it; its log says more"


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
    service: PageService, work: Work, temporary: Path, name: str, shown: str, source: str
) -> None:
    clip = bring(service, ANNE, name)
    assert service.state(clip)["name"] == shown
    assert files(temporary) == {source}
    assert Path(work.tasks[-1]["source"]).is_relative_to(temporary)
    for wrong in ("../lock", "lock", f"../../{clip}/source"):
        with refused(HTTPStatus.NOT_FOUND, "there is no"):
            service.read(clip, wrong, 0, 1)


def test_ids_are_secrets(service: PageService) -> None:
    ids = {service.create(Client("", ""), "clip.mp4") for _ in range(4)}
    assert len(ids) == 4
    assert {len(id_) for id_ in ids} == {22}  # 128 bits
