"""Leases on a real S3 store: one owner at a time, through outages, and nothing left behind."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from mana_dist.errors import UserError
from mana_dist.storage import swap
from mana_dist.storage.lease import Lease, LostError, Owner, hold
from tests.s3.seaweedfs import OWNER, READER, STRANGER, SeaweedFS
from tests.storage.test_lease import LENGTH, FakeClock


@pytest.fixture
def folder(server: SeaweedFS, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[str]:
    for name, value in OWNER.environment(server.endpoint).items():
        monkeypatch.setenv(name, value)
    name = f"leases/{request.node.name} 50% #1"
    yield f"s3://runs/{name}"
    assert server.keys("runs", f"{name}/") == []


def elsewhere(folder: str) -> Lease:
    owner = replace(Owner.here(), host="node7", pid=4711, machine="another kernel")
    assert swap.swap(f"{folder}/.lease", None, owner.encode())
    return Lease(folder, "run one", owner, LENGTH)


def test_of_many_that_replace_the_same_one_succeeds(folder: str) -> None:
    """A storm from eight threads: what each success has replaced makes a chain, without a fork."""
    uri, rounds = f"{folder}/.lease", 5
    start = threading.Barrier(8)

    def storm(number: int) -> list[tuple[bytes | None, bytes]]:
        done: list[tuple[bytes | None, bytes]] = []
        start.wait()
        while len(done) < rounds:
            old, mine = swap.read(uri), f"{number} {len(done)}".encode()
            if swap.swap(uri, old, mine):
                done.append((old, mine))
        return done

    with ThreadPoolExecutor(8) as pool:
        links = [link for done in pool.map(storm, range(8)) for link in done]
    left = swap.read(uri)
    assert len({old for old, _ in links}) == len(links) == 8 * rounds
    assert {old for old, _ in links} | {left} == {new for _, new in links} | {None}
    assert swap.swap(uri, left, None)


def test_a_live_owner_refuses_and_a_silent_one_is_replaced(folder: str) -> None:
    owner = elsewhere(folder)
    with (
        pytest.raises(UserError, match="run one belongs to another attempt, which is at work"),
        hold(folder, "run one", "wait", clock=FakeClock(lambda _: owner.renew())),
    ):
        pass
    owner.check()
    owner.fence.check()
    clock = FakeClock()
    with hold(folder, "run one", "wait", clock=clock) as held:
        assert clock.now >= LENGTH
        for check in (owner.check, owner.fence.check):
            with pytest.raises(LostError, match="taken over by another attempt"):
                check()
        owner.release()
        held.check()


def test_an_outage_costs_nobody_the_folder(folder: str, server: SeaweedFS) -> None:
    with hold(folder, "run one", "wait") as held:
        server.kill()
        try:
            with pytest.raises(OSError, match=r"leases/"):
                held.renew()
            held.heed()
        finally:
            server.start()
        held.check()
        held.fence.check()


@pytest.mark.parametrize("identity", [READER, STRANGER], ids=["reader", "stranger"])
def test_who_may_not_write_is_told_so(
    folder: str, server: SeaweedFS, identity: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in identity.environment(server.endpoint).items():  # type: ignore[attr-defined]
        monkeypatch.setenv(name, value)
    with (
        pytest.raises(UserError, match=r"run one: cannot write s3://runs/.*; mend its storage or wait"),
        hold(folder, "run one", "wait"),
    ):
        pass
    for name, value in OWNER.environment(server.endpoint).items():
        monkeypatch.setenv(name, value)
