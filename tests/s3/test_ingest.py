"""From bucket to bucket: the right samples, and the same bytes when the server or the ingest is killed on the way."""

import io
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from mana_dist.data.degradation import BI, degrade
from tests.data.shards import plain_array
from tests.s3.commands import Command, refusal
from tests.s3.conftest import Clip, ingest
from tests.s3.seaweedfs import OWNER, SeaweedFS

OUTAGE = 8.0
"""Seconds."""


def manifest_of(server: SeaweedFS, name: str) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads(server.read("samples", f"{name}/manifest.json"))
    return manifest


def objects(server: SeaweedFS, name: str) -> dict[str, str]:
    """SHA-256 of every object of a dataset, without the empty ones that Arrow leaves where folders were."""
    found = server.digests("samples", f"{name}/")
    return {key: digest for key, digest in found.items() if key and not key.endswith("/")}


def finished_shards(server: SeaweedFS, name: str) -> set[str]:
    """The shards of the tasks that an unfinished ingest has recorded as done."""
    keys = [key for key in server.keys("samples", f"{name}/.work/") if key.endswith(".json")]  # the others are plans
    records = [server.read("samples", f"{name}/.work/{key}") for key in keys]
    return {shard["path"] for record in records if record for shard in json.loads(record)["shards"]}


def wait_for_first_task(server: SeaweedFS, name: str, command: Command) -> set[str]:
    """The shards that are finished as soon as there are any."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert command.running, command.told()
        if shards := finished_shards(server, name):
            return shards
        time.sleep(0.05)
    raise AssertionError(f"no task done after 120 s:\n{command.told()}")


def test_samples_are_the_frames_that_were_uploaded(server: SeaweedFS, clips: list[Clip], dataset: str) -> None:
    manifest = manifest_of(server, "undisturbed")
    expected = {(clip.uri, clip.name): set(range(3, len(clip.frames) - 3)) for clip in clips}
    assert manifest["samples"] == sum(map(len, expected.values()))
    assert manifest["rejected"] == []
    assert len(manifest["shards"]) > len(clips)  # videos were split, each part read from its keyframe on
    frames = {clip.uri: clip.frames for clip in clips}
    found: dict[tuple[str, str], set[int]] = {key: set() for key in expected}
    for shard in manifest["shards"]:
        table = pq.read_table(io.BytesIO(server.read("samples", f"undisturbed/{shard['path']}")))
        lr, hr = (plain_array(table, name) for name in ("lr", "hr"))
        rows = zip(*(table[name].to_pylist() for name in ("source", "clip", "centre")), strict=True)
        for row, (source, clip, centre) in enumerate(rows):
            found[source, clip].add(centre)
            np.testing.assert_array_equal(hr[row], frames[source][centre])
            if centre % 10 == 0:
                window = frames[source][centre - 3 : centre + 4]
                np.testing.assert_array_equal(lr[row], degrade(window, BI))
    assert found == expected


def test_a_finished_dataset_holds_nothing_else(server: SeaweedFS, dataset: str) -> None:
    manifest = manifest_of(server, "undisturbed")
    beside = {"manifest.json", "contact_sheet.png", manifest["sources"]}
    assert objects(server, "undisturbed").keys() == {shard["path"] for shard in manifest["shards"]} | beside


def test_a_server_that_is_away_for_eight_seconds_changes_no_byte(
    server: SeaweedFS, dataset: str, tmp_path: Path
) -> None:
    with ingest(server, "s3://samples/outage", tmp_path) as command:
        before = wait_for_first_task(server, "outage", command)
        still_down = server.outage(OUTAGE)
        after = finished_shards(server, "outage")
        assert command.running, command.told()
        command.succeed()
    # In the middle: some tasks were done before, nothing while the server was away, the others after it.
    assert command.lines_between(still_down - OUTAGE / 2, still_down) == []
    assert before <= after < {shard["path"] for shard in manifest_of(server, "undisturbed")["shards"]}
    assert manifest_of(server, "outage") == manifest_of(server, "undisturbed")
    assert objects(server, "outage") == objects(server, "undisturbed")


def test_a_killed_ingest_goes_on_to_the_same_bytes(server: SeaweedFS, dataset: str, tmp_path: Path) -> None:
    with ingest(server, "s3://samples/killed", tmp_path) as command:
        wait_for_first_task(server, "killed", command)
        command.kill()
    assert "manifest.json" not in server.keys("samples", "killed/")  # nobody takes a part for the whole
    done = server.modified("samples", "killed/", finished_shards(server, "killed"))
    with ingest(server, "s3://samples/killed", tmp_path) as command:
        command.succeed()
    assert server.modified("samples", "killed/", done) == done  # what was done was not done again
    assert manifest_of(server, "killed") == manifest_of(server, "undisturbed")
    assert objects(server, "killed") == objects(server, "undisturbed")


def test_verify_finds_a_flipped_bit_in_a_bucket(server: SeaweedFS, dataset: str, tmp_path: Path) -> None:
    client, environment = server.client(), OWNER.environment(server.endpoint)
    with Command("mana_dist.ingest", "--verify", dataset, folder=tmp_path, environment=environment) as command:
        assert "whole" in command.succeed()
    for key in objects(server, "undisturbed"):
        client.copy_object(Bucket="samples", Key=f"damaged/{key}", CopySource=f"samples/undisturbed/{key}")
    shard = manifest_of(server, "damaged")["shards"][0]["path"]
    data = bytearray(server.read("samples", f"damaged/{shard}"))
    data[len(data) // 2] ^= 1
    client.put_object(Bucket="samples", Key=f"damaged/{shard}", Body=bytes(data))
    arguments = ["mana_dist.ingest", "--verify", "s3://samples/damaged"]
    assert shard in refusal(*arguments, folder=tmp_path, environment=environment)
