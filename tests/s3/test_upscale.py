"""Videos upscaled from bucket to bucket: the bytes of a local run in one process, and nothing left over."""

import json
from pathlib import Path

from tests.s3.commands import Command, refusal
from tests.s3.conftest import KEYS
from tests.s3.seaweedfs import OWNER, SeaweedFS
from tests.upscale.bucket.runs import single_process, write_film, write_model


def test_from_bucket_to_bucket(server: SeaweedFS, tmp_path: Path) -> None:
    client, model = server.client(), write_model(tmp_path / "model")
    names = [key.removeprefix("takes/") for key in KEYS]
    expected = {}
    for number, name in enumerate(names):
        film = write_film(tmp_path / f"{number}{Path(name).suffix}", 14 + 12 * (number == 0))
        client.upload_file(str(film), "clips", f"films/{name}")
        alone = tmp_path / f"alone-{number}.mkv"
        single_process(film, alone, "--model", model, "--segment", "12")
        expected[str(Path(name).with_suffix(".mkv"))] = alone.read_bytes()
    client.put_object(Bucket="clips", Key="films/bad.mp4", Body=b"no video")
    out = "s3://samples/upscaled films"
    arguments = ["mana_dist.upscale", "--source", "s3://clips/films", "--out", out, "--model", model]
    options = ["--segment", "12", "--suffix", ".mkv"]
    environment = OWNER.environment(server.endpoint)
    with Command(*arguments, *options, folder=tmp_path, environment=environment) as command:
        command.succeed()
    stored = {
        item["Key"].removeprefix("upscaled films/"): client.get_object(Bucket="samples", Key=item["Key"])["Body"].read()
        for item in client.list_objects_v2(Bucket="samples", Prefix="upscaled films/")["Contents"]
        if not item["Key"].endswith("/")
    }
    report = json.loads(stored["upscale.json"])
    assert [item["source"] for item in report["rejected"]] == ["s3://clips/films/bad.mp4"]
    assert {name: data for name, data in stored.items() if name.endswith(".mkv")} == expected
    records = [name for name in stored if name.startswith(".work/") and "precision" not in name]
    assert len(records) == len(expected)
    assert stored.keys() == {*expected, *records, ".work/precision-cpu.json", "upscale.json"}
    with Command(*arguments, *options, folder=tmp_path, environment=environment) as command:
        assert f"{len(names)} videos ({len(names)} there before)" in command.succeed()


def test_a_bucket_that_is_not_there_is_named(server: SeaweedFS, tmp_path: Path) -> None:
    film = write_film(tmp_path / "film.mp4", 12)
    arguments = ["mana_dist.upscale", "--source", str(film), "--out", "s3://nowhere/x", "--model", "m"]
    told = refusal(*arguments, folder=tmp_path, environment=OWNER.environment(server.endpoint))
    assert "--out: cannot write to s3://nowhere/x" in told
