"""Tasks never raise: they say what failed, and whether the source is to blame; remote storage is tried again."""

import dataclasses
from pathlib import Path

import pytest
import torch

from mana_dist.errors import UserError
from mana_dist.registry import model_folder
from mana_dist.storage import lease
from mana_dist.upscale import segment_record
from mana_dist.upscale.bucket import segment_tasks
from mana_dist.upscale.bucket.output_names import Output
from mana_dist.upscale.bucket.segment_tasks import Failure, Recipe, Upscaler, Video, finish
from mana_dist.upscale.config import Codec, Settings
from mana_dist.upscale.source_video import SourceError
from tests.upscale.bucket.runs import CONFIG, sha256, single_process, write_film, write_model


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    model = write_model(tmp_path_factory.mktemp("model"))
    settings = Settings(segment=12, device="cpu", memory=4096, threads=1, precision="fp32")
    network, sha256 = CONFIG.model, model_folder.load_identified(model).sha256
    return Recipe(model, "", sha256, network.frames, network.scale, settings)


def looked(path: Path, tmp_path: Path, recipe: Recipe) -> Video | Failure:
    output = Output(str(path), "out.mp4", str(tmp_path / "results" / "out.mp4"), None, None, "key")
    return segment_tasks.inspect(output, str(tmp_path / "work"), recipe)


@pytest.fixture
def video(tmp_path: Path, recipe: Recipe) -> Video:
    found = looked(write_film(tmp_path / "film.mp4", 30), tmp_path, recipe)
    assert isinstance(found, Video)
    return found


def test_segments_one_by_one_join_to_the_single_process_result(video: Video, recipe: Recipe, tmp_path: Path) -> None:
    assert [(part.start, video.frames(part)) for part in video.segments] == [(0, 12), (12, 12), (24, 6)]
    for segment in reversed(video.segments):
        assert Upscaler(recipe).upscale(video, segment) is None
    summary = segment_tasks.finish(video, recipe)
    assert not isinstance(summary, Failure)
    assert (summary.frames, summary.width, summary.height) == (30, 256, 192)
    options = ("--model", recipe.model, "--segment", "12", "--precision", "fp32")  # as the recipe says
    alone = single_process(tmp_path / "film.mp4", tmp_path / "alone.mp4", *options)
    assert sha256(Path(video.output.uri)) == alone


@pytest.mark.parametrize(("codec", "name"), [("h264", f"{'ü' * 125}x.mp4"), ("png", f"{'ü' * 127}x")])
def test_the_longest_name_that_a_file_can_have_is_written(
    codec: Codec, name: str, tmp_path: Path, recipe: Recipe
) -> None:
    film = write_film(tmp_path / "film.mp4", 2)
    assert len(name.encode()) == 255
    recipe = dataclasses.replace(recipe, settings=dataclasses.replace(recipe.settings, codec=codec))
    output = Output(str(film), name, str(tmp_path / "results" / name), None, None, "key")
    video = segment_tasks.inspect(output, str(tmp_path / "work"), recipe)
    assert isinstance(video, Video)
    assert Upscaler(recipe).upscale(video, video.segments[0]) is None
    for _ in range(2):  # the second time over the first one's
        assert not isinstance(segment_tasks.finish(video, recipe), Failure)
        assert [path.name for path in (tmp_path / "results").iterdir()] == [name]


def test_a_worker_whose_job_lost_the_folder_leaves_no_result(
    video: Video, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before a segment is begun, and between a finished join and its place."""
    with lease.hold(str(tmp_path), "--out", "wait") as held:
        fenced = dataclasses.replace(recipe, fence=held.fence)
        for segment in video.segments:
            assert Upscaler(fenced).upscale(video, segment) is None
        finished = sorted(Path(video.folder).iterdir())
        (tmp_path / ".lease").unlink()
        lost = [Upscaler(fenced).upscale(video, video.segments[0]), finish(video, fenced)]
    assert all(isinstance(found, Failure) and "another attempt may have had it" in found.reason for found in lost)
    assert not Path(video.output.uri).exists()
    assert sorted(Path(video.folder).iterdir()) == finished


def test_bad_sources_are_to_blame(tmp_path: Path, recipe: Recipe) -> None:
    bad = tmp_path / "bad.mp4"
    bad.write_text("no video")
    found = looked(bad, tmp_path, recipe)
    assert isinstance(found, Failure)
    assert found.rejected
    assert found.reason.startswith("not a video that can be read")  # without its name, which stands beside it
    gone = looked(tmp_path / "gone.mp4", tmp_path, recipe)
    assert isinstance(gone, Failure)
    assert gone.reason.startswith("no such file")
    assert not gone.rejected  # this machine may lack what others have


def test_frames_that_the_codec_does_not_take_are_refused_before_work(tmp_path: Path, recipe: Recipe) -> None:
    film = write_film(tmp_path / "small.mp4", 2, 16, 64)
    hevc = dataclasses.replace(recipe, settings=dataclasses.replace(recipe.settings, codec="hevc"))
    reason = "becomes 256x64, and hevc takes frames from 128x128 on; use --codec h264"
    assert looked(film, tmp_path, hevc) == Failure(reason, rejected=True)
    assert isinstance(looked(film, tmp_path, recipe), Video)


def test_a_broken_worker_is_not_the_sources_fault(video: Video, recipe: Recipe, tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has what the worker must lack")
    lost = dataclasses.replace(recipe, settings=dataclasses.replace(recipe.settings, device="cuda"))
    failure = Upscaler(lost).upscale(video, video.segments[0])
    assert failure is not None
    assert "PyTorch finds no CUDA device" in failure.reason
    assert not failure.rejected
    (tmp_path / "film.mp4").unlink()  # a worker that does not see the storage
    failure = Upscaler(recipe).upscale(video, video.segments[0])
    assert failure is not None
    assert not failure.rejected


def test_frames_of_another_size_are_the_sources_fault(video: Video, recipe: Recipe) -> None:
    other = dataclasses.replace(video, survey=dataclasses.replace(video.survey, height=32))
    failure = Upscaler(recipe).upscale(other, video.segments[0])
    assert failure is not None
    assert failure.reason.startswith("frame 0 is 64x48, the first one 64x32")
    assert failure.rejected


def test_a_finished_segment_is_not_done_again(video: Video, recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Upscaler(recipe).upscale(video, video.segments[0]) is None
    monkeypatch.setattr(segment_tasks, "upscale_segments", lambda *_: pytest.fail("done again"))
    assert Upscaler(recipe).upscale(video, video.segments[0]) is None


def test_the_model_is_read_once(video: Video, recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[str] = []
    load = model_folder.load_identified

    def counted(model: str, tracking_uri: str | None) -> model_folder.Loaded:
        reads.append(model)
        return load(model, tracking_uri)

    monkeypatch.setattr(model_folder, "load_identified", counted)
    worker = Upscaler(recipe)
    assert [worker.upscale(video, segment) for segment in video.segments] == [None] * 3
    assert reads == [recipe.model]


def test_other_weights_than_the_commands_are_refused(video: Video, recipe: Recipe) -> None:
    failure = Upscaler(dataclasses.replace(recipe, sha256="0" * 64)).upscale(video, video.segments[0])
    assert failure is not None
    assert "its weights are not those that the command began with" in failure.reason
    assert not failure.rejected


@pytest.mark.parametrize(("folder", "tries"), [("s3://bucket/work", 3), ("/local", 1)])
def test_remote_storage_that_fails_is_tried_again(
    folder: str, tries: int, video: Video, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = 0

    def fails(*_: object) -> None:
        nonlocal count
        count += 1
        raise OSError("no route to the storage")

    monkeypatch.setattr(segment_record, "read", lambda *_: None)
    monkeypatch.setattr(segment_tasks, "upscale_segments", fails)
    moved = dataclasses.replace(video, folder=folder)
    assert Upscaler(recipe, pauses=(0, 0)).upscale(moved, video.segments[0]) == Failure("no route to the storage")
    assert count == tries


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        (SourceError("{source}: frame 3 is small"), Failure("frame 3 is small", rejected=True)),
        (UserError("{source}: no such file"), Failure("no such file")),
        (RuntimeError("a bug\nof ours"), Failure("RuntimeError: a bug of ours")),
    ],
)
def test_failures_say_whose_fault_it_is(
    error: Exception, failure: Failure, video: Video, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    raised = type(error)(str(error).format(source=video.output.source))

    def fails(*_: object) -> None:
        raise raised

    monkeypatch.setattr(segment_tasks, "upscale_segments", fails)
    assert Upscaler(recipe).upscale(video, video.segments[0]) == failure
