"""Ingesting by a recipe: LR frames depend on their clip alone, however the work is shared, stopped and taken up."""

import dataclasses
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

import mana_dist
from mana_dist.child_task import Task
from mana_dist.data.config import SampleSettings
from mana_dist.data.degradation import BI, REAL, Degradation, degrade_clip, find_degradation
from mana_dist.data.degradation.operations import Noise, Resize
from mana_dist.data.degradation.recipe import Recipe
from mana_dist.data.degradation.recipe_file import recipe_of
from mana_dist.data.degradation.video_compression import CODECS, VideoCompression
from mana_dist.data.manifest import load_manifest
from mana_dist.data.sampling import Sampler
from mana_dist.errors import UserError
from mana_dist.ingest import contact_sheet, unit_tasks, units
from mana_dist.ingest.__main__ import main
from mana_dist.video.shots import CUT_MARGIN
from mana_dist.video.strict import Segment, plan_segments
from tests.data.scenes import scene
from tests.data.shards import plain_array
from tests.data.test_recipe import Hr
from tests.ingest.datasets import clip_at, run, tree, without_ray
from tests.video.videos import noise_frames, write_pictures, write_video

RECIPE = Recipe(
    name="mine",
    segment=12,
    operations=(Noise(sigma=(2, 9), drift=10), Resize(), VideoCompression(codecs={"h264": (20, 30)}, drift=20)),
)
SETTINGS = SampleSettings(degradation=Degradation.of_recipe(RECIPE))


@pytest.fixture
def recipe_file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(RECIPE.to_mapping()))
    return path


@pytest.mark.parametrize("length", [16, 31])
def test_segments_of_a_video_give_the_samples_of_the_whole(tmp_path: Path, length: int) -> None:
    frames = noise_frames(100)
    video = write_video(tmp_path / "a.mp4", frames, keyframes=5)
    segments = plan_segments(str(video), length, units.planned_overlap(SETTINGS))
    assert len(segments) >= 3
    shared = units.split(clip_at(video), segments, SETTINGS)
    parts = [run(unit, tmp_path / "parts", SETTINGS) for unit in shared]
    whole = run(units.whole([clip_at(video)], SETTINGS), tmp_path / "whole", SETTINGS)
    one = pq.read_table(tmp_path / "whole" / whole.shards[0].path)
    many = [pq.read_table(tmp_path / "parts" / shard.path) for part in parts for shard in part.shards]
    for column in ("centre", "lr", "hr", "flow", "clip"):
        assert [value for table in many for value in table[column].to_pylist()] == one[column].to_pylist()
    assert one.num_rows == 94
    clip = (Hr(number, 0, frame) for number, frame in enumerate(frames))
    expected = np.stack([lr for _, lr in degrade_clip(clip, SETTINGS.degradation, str(video))])
    for centre, lr in zip(one["centre"].to_pylist(), plain_array(one, "lr"), strict=True):
        np.testing.assert_array_equal(lr, expected[centre - 3 : centre + 4])


def test_units_hold_whole_segments_of_compressed_video(tmp_path: Path) -> None:
    block, needed = RECIPE.segment, 3 + CUT_MARGIN
    clip = clip_at(write_video(tmp_path / "a.mp4", noise_frames(1)))
    for first, second, end in itertools.product(range(24, 40, 3), range(64, 90, 5), (130, 200)):
        overlap = units.planned_overlap(SETTINGS)
        begins = [0, first, second]
        ends = [min(end, begin + overlap) for begin in begins[1:]]
        planned = [
            Segment(place, begin, None if to is None else to - begin, int(begin > 0))
            for place, (begin, to) in enumerate(zip(begins, [*ends, None], strict=True))
        ]
        shared = units.split(clip, planned, SETTINGS)
        assert [unit.centres[1] for unit in shared[:-1]] == [unit.centres[0] for unit in shared[1:]]
        for unit, plan in zip(shared, planned, strict=True):
            segment = unit.segment
            assert segment is not None
            assert segment.first % block == 0
            assert segment.first - segment.skip == plan.first - plan.skip  # the same keyframe
            assert segment.first <= max(0, unit.centres[0] - needed)
            if unit.centres[1] is not None:
                assert segment.frames is not None
                stop = segment.first + segment.frames
                assert stop >= min(end, unit.centres[1] + needed)
                assert stop % block == 0 or stop == end


def test_a_manifest_holds_the_recipe_and_refuses_another(
    tmp_path: Path, recipe_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_ray(monkeypatch)
    clip = write_pictures(tmp_path / "clip", noise_frames(9))
    command = ["--source", str(clip), "--out", str(tmp_path / "out"), "--degradation", str(recipe_file)]
    main(command)
    manifest = load_manifest(str(tmp_path / "out"))
    assert manifest.degradation == "mine"
    assert recipe_of(manifest.recipe or {}) == RECIPE
    sheet = (tmp_path / "out" / contact_sheet.SHEET_NAME).read_bytes()
    assert contact_sheet.write(str(tmp_path / "out"), manifest)
    assert (tmp_path / "out" / contact_sheet.SHEET_NAME).read_bytes() == sheet
    main(command)  # nothing to do
    values = RECIPE.to_mapping()
    values["operations"][0]["sigma"] = 3
    recipe_file.write_text(yaml.safe_dump(values))
    with pytest.raises(
        UserError, match=r"made with other settings \(recipe\.operations\[0\]: .*'sigma': \[2.0, 9.0\].* -> "
    ):
        main(command)
    main(["--source", str(clip), "--out", str(tmp_path / "bi")])
    assert "recipe" not in json.loads((tmp_path / "bi" / "manifest.json").read_text())


def test_units_are_named_after_the_recipe(tmp_path: Path) -> None:
    clip = clip_at(write_video(tmp_path / "a.mp4", noise_frames(1)))
    other = dataclasses.replace(RECIPE, seed=1)
    kinds = [BI, REAL, SETTINGS.degradation, Degradation.of_recipe(other)]
    assert len({units.unit_name([clip], SampleSettings(degradation=kind)) for kind in kinds}) == 4


def test_repeats_and_cuts_are_found_below_the_noise() -> None:
    frames = np.concatenate([scene(0, 12), scene(1, 12)])
    shown = np.repeat(frames, 2, axis=0)
    clean, noisy = Sampler(SampleSettings()), Sampler(SETTINGS)
    centres = [[sample.centre for sample in sampler.samples(enumerate(shown))] for sampler in (clean, noisy)]
    assert noisy.tally == clean.tally
    assert clean.tally.duplicates == 24
    assert clean.tally.cuts == 1
    assert centres[0] == centres[1]


def test_stopped_anywhere_it_goes_on_to_the_same_bytes(
    tmp_path: Path, recipe_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    film = write_video(tmp_path / "film.mp4", noise_frames(90), keyframes=10)
    folder = write_pictures(tmp_path / "takes" / "one", scene(0, 9))
    command = ["--source", str(film), str(folder), "--segment-frames", "20", "--degradation", str(recipe_file)]
    with monkeypatch.context() as patched:
        without_ray(patched)
        main([*command, "--out", str(tmp_path / "whole")])

    def stopped(items: Sequence[str], task: Task, name: Callable[[str], str]) -> Iterator[str]:
        for place, item in enumerate(items):
            if place == 1 and len(items) > 1:
                raise KeyboardInterrupt
            yield task(item, lambda: None)

    for _ in range(2):
        monkeypatch.setattr(unit_tasks, "map_on_ray", stopped)
        with pytest.raises(KeyboardInterrupt):
            main([*command, "--out", str(tmp_path / "out")])
    without_ray(monkeypatch)
    main([*command, "--out", str(tmp_path / "out")])
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


PROGRAM = """
import functools, sys
from mana_dist import ray_runtime
from mana_dist.ingest import unit_tasks
from mana_dist.ingest.__main__ import main

ray_runtime.start_ray(cpus=5)
map_on_ray = unit_tasks.map_on_ray
for workers in (1, 2, 5):
    unit_tasks.map_on_ray = functools.partial(map_on_ray, at_once=workers)
    main([*sys.argv[1:], f"{workers}"])
"""


@pytest.mark.slow
def test_any_number_of_workers_gives_the_same_bytes(
    tmp_path: Path, recipe_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    film = write_video(tmp_path / "film.mp4", noise_frames(90), keyframes=10)
    clips = [write_pictures(tmp_path / f"take{seed}", scene(seed, 9)) for seed in range(3)]
    command = ["--source", *map(str, (film, *clips)), "--segment-frames", "20", "--degradation", str(recipe_file)]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    environment["PYTHONPATH"] = str(Path(mana_dist.__file__).parents[1])
    line = [sys.executable, "-c", PROGRAM, *command, "--out"]
    result = subprocess.run(line, check=False, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert tree(tmp_path / "1") == tree(tmp_path / "2") == tree(tmp_path / "5")
    without_ray(monkeypatch)
    main([*command, "--out", str(tmp_path / "here")])
    assert tree(tmp_path / "here") == tree(tmp_path / "1")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"nme": 1}, "nme: unknown key; did you mean name?"),
        ({"segment": "long"}, "segment: expected int, got value: long"),
        ({"operations": []}, "operations: must be a list with at least one operation"),
        ({"operations": [{"op": "noise"}]}, "operations: the last resize must have scale 1 and chance 1"),
        (
            {"operations": [{"op": "resize", "chance": 0.5}]},
            "operations: the last resize must have scale 1 and chance 1",
        ),
        ({"operations": [{"op": "resize", "scale": [1, 2]}]}, "operations: the last resize must have scale 1"),
        ({"operations": [{"op": "resize", "methods": ["lanczos"]}]}, r"operations\[0\]\.methods: expected one of"),
        ({"operations": [{"op": "blurr"}]}, r"operations\[0\]\.op: there is no blurr; there are blur, resize"),
        (
            {"operations": [{"op": "blur", "sigma": [3, 1]}]},
            r"operations\[0\]\.sigma: must be two numbers, the smaller",
        ),
        ({"operations": [{"op": "blur", "sigma": [0, 99]}]}, r"operations\[0\]\.sigma: must be from 0\.05 to 20, got"),
        ({"operations": [{"op": "blur", "sigma": "x"}]}, r"operations\[0\]\.sigma: must be a number or two"),
        ({"operations": [{"op": "video", "codecs": {"h265": 9}}]}, r"operations\[0\]\.codecs: there is no h265; there"),
        (
            {"operations": [{"op": "video", "codecs": {"h264": [9, 60]}}]},
            r"operations\[0\]\.codecs\.h264: must be from 0",
        ),
        (
            {"operations": [{"op": "video", "codecs": ["h264"]}]},
            r"operations\[0\]\.codecs: must name each with its range",
        ),
        ({"operations": [{"op": "jpeg", "chance": 2}]}, r"operations\[0\]\.chance: must be from 0 to 1, got 2"),
        ({"name": "BI"}, "name: BI is another degradation's; take another name"),
        ({"operations_version": 9}, "operations_version: written for version 9"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused_in_a_line(
    recipe_file: Path, change: dict[str, object], message: str
) -> None:
    recipe_file.write_text(yaml.safe_dump(RECIPE.to_mapping() | change))
    with pytest.raises(UserError, match=rf"mine\.yaml: {message}") as refused:
        main(["--source", "x", "--out", "y", "--degradation", str(recipe_file)])
    assert "\n" not in str(refused.value)


def test_the_recipe_in_the_documentation_is_one(tmp_path: Path) -> None:
    text = (Path(mana_dist.__file__).parents[1] / "docs" / "data.md").read_text()
    path = tmp_path / "mine.yaml"
    path.write_text(text.partition("```yaml\n")[2].partition("```")[0])
    recipe = find_degradation(str(path)).recipe
    assert recipe is not None
    assert len(recipe.operations) == 5
    assert recipe.block == 32


def test_a_codec_that_pyav_lacks_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    lacking = {**CODECS, "h264": dataclasses.replace(CODECS["h264"], encoder="libnone")}
    monkeypatch.setattr("mana_dist.data.degradation.video_compression.CODECS", lacking)
    with pytest.raises(UserError, match=r"real: operations\[4\]\.codecs: h264 needs libnone, which this PyAV lacks"):
        main(["--source", "x", "--out", "y", "--degradation", "real"])


def test_a_recipe_file_that_is_none_is_refused_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "list.yaml").write_text("[1, 2]")
    (tmp_path / "broken.yaml").write_text("a: [")
    for name, message in {"list": "must hold keys", "broken": "not valid YAML", "gone": "cannot be read"}.items():
        with pytest.raises(UserError, match=rf"{name}\.yaml: {message}"):
            main(["--source", "x", "--out", "y", "--degradation", str(tmp_path / f"{name}.yaml")])
    with pytest.raises(UserError, match=r"--degradation BX: there are BI, BD, real; name one of them or a recipe's"):
        main(["--source", "x", "--out", "y", "--degradation", "BX"])
