"""The HTTP front without Ray: replicas that fail, bodies that wait or never come."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import Response

from mana_dist.model.inference import Frame, Frames
from mana_dist.serve import front
from mana_dist.serve.windows import Limits
from tests.serve.models import window
from tests.serve.test_windows import npy

LIMITS = Limits(frames=3, body=100_000, pixels=1000)


def front_of(upscale: Callable[[Frames], Frame]) -> Any:
    """The front, whose replica is ``upscale``."""

    async def remote(frames: Frames) -> Frame:
        return upscale(frames)

    handle = SimpleNamespace(upscale=SimpleNamespace(remote=remote))
    made = SimpleNamespace(_upscaler=handle, _limits=LIMITS, _bodies=asyncio.Semaphore(front.BODIES))
    made.upscale = partial(front.Api.func_or_class.upscale, made)  # type: ignore[attr-defined]  # Ray comes without types
    return made


def request(pieces: AsyncGenerator[bytes, None]) -> Request:
    async def receive() -> dict[str, Any]:
        piece = await anext(pieces, None)
        return {"type": "http.request", "body": piece or b"", "more_body": piece is not None}

    headers = [(b"content-type", b"application/x-npy")]
    return Request({"type": "http", "method": "POST", "headers": headers}, receive)


async def whole() -> AsyncGenerator[bytes, None]:
    yield npy(window())


async def silent() -> AsyncGenerator[bytes, None]:
    yield npy(window())[:100]
    await asyncio.sleep(3600)


class FromReplicaError(Exception):
    """As Ray's, with a traceback for a message."""

    cause = ValueError("no\nluck")


@pytest.mark.parametrize(
    ("error", "reason"),
    [(FromReplicaError("Traceback ..."), b"ValueError: no luck"), (OSError("gone"), b"OSError: gone")],
)
def test_a_replica_that_fails_is_told_in_one_line(error: Exception, reason: bytes) -> None:
    def fails(_: Frames) -> Frame:
        raise error

    answer: Response = asyncio.run(front_of(fails).upscale(request(whole())))
    assert (answer.status_code, answer.body) == (500, b'{"detail":"the model failed on this window (%s)"}' % reason)


def test_so_many_bodies_are_read_at_a_time_and_silent_ones_give_up_their_place(monkeypatch: pytest.MonkeyPatch) -> None:
    upscale = front.Api.func_or_class.upscale  # type: ignore[attr-defined]
    monkeypatch.setitem(upscale.__globals__, "BODY_SECONDS", 0.5)  # Ray's copy of the module's
    read: list[int] = []

    async def counted(number: int) -> AsyncGenerator[bytes, None]:
        read.append(number)
        async for piece in silent():
            yield piece

    async def ask() -> tuple[list[int], list[Response]]:
        api = front_of(lambda frames: frames[1])
        asked = [asyncio.create_task(api.upscale(request(counted(number)))) for number in range(front.BODIES + 2)]
        last = asyncio.create_task(api.upscale(request(whole())))
        await asyncio.sleep(0.2)
        return list(read), await asyncio.gather(*asked, last)

    at_once, answers = asyncio.run(ask())
    assert at_once == list(range(front.BODIES))
    assert [answer.status_code for answer in answers] == [408] * (front.BODIES + 2) + [200]
