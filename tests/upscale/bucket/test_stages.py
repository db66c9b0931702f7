"""The work on Ray: what dies again and again is given up, the rest is done."""

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from mana_dist.child_task import Step, Task
from mana_dist.errors import UserError
from mana_dist.registry import model_folder
from mana_dist.upscale.bucket import stages
from mana_dist.upscale.bucket.output_names import Output
from mana_dist.upscale.bucket.segment_tasks import Failure, Recipe, Video
from mana_dist.upscale.config import Settings
from tests.upscale.bucket.runs import CONFIG, write_film, write_model


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    model = write_model(tmp_path / "model")
    settings = Settings(segment=12, device="cpu", memory=4096, threads=1)
    network, sha256 = CONFIG.model, model_folder.load_identified(model).sha256
    return Recipe(model, "", sha256, network.frames, network.scale, settings)


def outputs(tmp_path: Path) -> list[Output]:
    names = ["a", "b", "c"]
    for name in names:
        write_film(tmp_path / f"{name}.mp4", 36)
    (tmp_path / "b.mp4").write_text("no video")
    return [Output(str(tmp_path / f"{name}.mp4"), name, str(tmp_path / "out" / name), 9, 1.0, name) for name in names]


def test_large_sources_are_looked_at_on_the_cluster(
    tmp_path: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = outputs(tmp_path)
    folders = [str(tmp_path / "work" / output.key) for output in made]
    here = dict(stages.inspect(made, folders, recipe))

    def all_but_the_first(items: Sequence[str], task: Task, name: Callable[[str], str]) -> Iterator[str]:
        assert list(map(name, items)) == ["a", "b", "c"]
        for item in reversed(items[1:]):
            yield task(item, lambda: None)

    monkeypatch.setattr(stages, "map_on_ray", all_but_the_first)
    monkeypatch.setattr(stages, "_LOOK_HERE", 0)
    there = dict(stages.inspect(made, folders, recipe))
    assert there[made[0]] == stages.DIED
    assert [here[output] for output in made[1:]] == [there[output] for output in made[1:]]
    refused, video = there[made[1]], there[made[2]]
    assert isinstance(refused, Failure)
    assert refused.rejected
    assert isinstance(video, Video)
    assert (video.folder, len(video.segments)) == (folders[2], 3)


def die_of_the_second(item: str, step: Step, recipe: Recipe) -> str:
    """Write down every try, and leave the process at the second segment, as if all were well."""
    del step, recipe
    video, segment = stages._unpack(item)
    with open(f"{video.folder}.tries", "a", encoding="utf-8") as file:
        file.write(f"{segment.number}\n")
    if segment.number == 1:
        sys.exit(0)
    return stages._pack((video.output.key, segment.number, None))


@pytest.mark.cluster
def test_a_segment_that_kills_its_worker_is_given_up(
    tmp_path: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = outputs(tmp_path)[:1]
    ((_, video),) = stages.inspect(made, [str(tmp_path / "work")], recipe)
    assert isinstance(video, Video)
    assert stages.device("auto") == "cpu"  # starts Ray
    with pytest.raises(UserError, match="--device cuda: the Ray cluster has no GPU"):
        stages.device("cuda")
    with pytest.raises(UserError, match="--cpus-per-worker 1000"):
        stages.workers(recipe, None, 1000)
    assert stages.workers(recipe, 1, 1) == 1
    monkeypatch.setattr(stages, "_upscale", die_of_the_second)
    results = list(stages.upscale([(video, segment) for segment in video.segments], recipe, 1, 1))
    outcomes = {segment.number: failure for _, segment, failure in results}
    assert outcomes == {0: None, 1: stages.DIED, 2: None}
    tries = (tmp_path / "work.tries").read_text().split()
    assert (tries.count("0"), tries.count("1"), tries.count("2")) == (1, 3, 1)
    import ray

    ray.shutdown()
