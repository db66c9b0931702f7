"""Ranges of frames against the whole video's result, and folders of pictures against the same frames as a video."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mana_dist.config import Config
from mana_dist.errors import UserError
from mana_dist.model import Mana, ModelConfig
from mana_dist.registry import model_folder
from mana_dist.upscale import mark, upscale
from mana_dist.upscale.__main__ import main
from mana_dist.upscale.config import Settings
from mana_dist.upscale.join import Summary
from mana_dist.upscale.jumps import Clock, Epoch
from tests.upscale.runs import LONG, read, synthesise
from tests.video.videos import moving_frames, noise_frames, write_pictures, write_video

CONFIG = Config(model=ModelConfig(channels=8, encoder_blocks=1, decoder_blocks=1, frames=3, window=3, memory_slots=4))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(0)
    network = Mana(CONFIG.model)
    torch.nn.init.normal_(network.attention.project.weight)  # else no neighbour moves a pixel
    folder = str(tmp_path_factory.mktemp("model"))
    model_folder.save(folder, network.state_dict(), CONFIG)
    return folder


def lossless(source: Path, destination: Path, model: str, frames: str = ":", fps: float | None = None) -> Summary:
    settings = Settings(codec="ffv1", device="cpu", threads=1, segment=8, frames=frames, fps=fps)
    summary = upscale(str(source), str(destination), model, settings)
    assert summary is not None
    return summary


def two_shots(path: Path) -> Path:
    """40 frames of 32x24, a keyframe every 8, a shot cut at 20."""
    first, second = moving_frames(20, 24, 32), 255 - moving_frames(40, 24, 32)[20:]
    return write_video(path, np.concatenate([first, second]), keyframes=8)


def test_frames_of_a_range_are_those_of_the_whole_video(tmp_path: Path, model: str) -> None:
    source = two_shots(tmp_path / "in.mp4")
    assert lossless(source, tmp_path / "whole.mkv", model).cuts == 1
    whole = read(tmp_path / "whole.mkv")
    for number, (text, begin, end, cuts) in enumerate(
        [(":9", 0, 9, 0), ("5:13", 5, 13, 0), ("19:21", 19, 21, 1), ("20:40", 20, 40, 0), ("13:99", 13, 40, 1)]
    ):
        part = tmp_path / f"{number}.mkv"
        summary = lossless(source, part, model, text)
        found = read(part)
        assert (summary.frames, summary.cuts, summary.stopped) == (end - begin, cuts, "")
        np.testing.assert_array_equal(found.frames, whole.frames[begin:end])
        assert found.times == [time - whole.times[begin] for time in whole.times[begin:end]]


def test_a_range_begins_at_0_without_sound_and_says_so(tmp_path: Path, model: str) -> None:
    source = synthesise(tmp_path / "in.mp4", LONG, keyframes=8)
    settings = Settings(device="cpu", segment=8, preset="ultrafast", frames="11:30")
    summary = upscale(str(source), str(tmp_path / "out.mp4"), model, settings)
    assert summary is not None
    assert summary.left_out == ("everything but the pictures, as with every range of frames",)
    found = read(tmp_path / "out.mp4")
    assert found.times == [Fraction(time - LONG[11], 90_000) for time in LONG[11:30]]
    assert found.audio == []


def test_damage_beyond_a_range_is_not_the_ranges(tmp_path: Path, model: str) -> None:
    source = write_video(tmp_path / "in.mp4", noise_frames(40, 24, 32), faststart=True, keyframes=8)
    data = source.read_bytes()
    source.write_bytes(data[: len(data) * 3 // 4])  # the header still promises all frames
    assert "stopped at frame" in lossless(source, tmp_path / "whole.mkv", model).stopped
    part = lossless(source, tmp_path / "part.mkv", model, "3:12")
    assert (part.frames, part.stopped) == (9, "")


@pytest.mark.parametrize(("fps", "rate"), [(None, Fraction(25)), (24000 / 1001, Fraction(24000, 1001))])
def test_a_folder_of_pictures_gives_what_its_frames_as_a_video_give(
    tmp_path: Path, model: str, fps: float | None, rate: Fraction
) -> None:
    frames = moving_frames(21, 24, 32)
    pictures = write_pictures(tmp_path / "pictures", frames)  # im1 to im21: in the order of the numbers
    lossless(write_video(tmp_path / "in.mp4", frames), tmp_path / "video.mkv", model)
    summary = lossless(pictures, tmp_path / "out.mkv", model, fps=fps)
    assert (summary.left_out, summary.stopped) == ((), "")
    expected, found = read(tmp_path / "video.mkv"), read(tmp_path / "out.mkv")
    np.testing.assert_array_equal(found.frames, expected.frames)
    late = [abs(time - number / rate) for number, time in enumerate(found.times)]
    assert max(late) <= Fraction(1, 2000)  # Matroska counts milliseconds
    lossless(pictures, tmp_path / "part.mkv", model, "9:14", fps)
    np.testing.assert_array_equal(read(tmp_path / "part.mkv").frames, expected.frames[9:14])


def test_a_folder_of_pictures_becomes_a_folder_of_pictures_or_an_mp4(tmp_path: Path, model: str) -> None:
    pictures = write_pictures(tmp_path / "pictures", moving_frames(9, 24, 32))
    lossless(pictures, tmp_path / "out.mkv", model)
    expected = read(tmp_path / "out.mkv").frames
    same = ["--model", model, "--device", "cpu", "--threads", "1"]
    main([str(pictures), str(tmp_path / "out"), "--codec", "png", *same])
    found = [np.asarray(Image.open(tmp_path / "out" / f"{number:08}.png")) for number in range(9)]
    np.testing.assert_array_equal(found, expected)
    main([str(pictures), str(tmp_path / "out.mp4"), "--fps", "30", "--compare", *same])
    assert read(tmp_path / "out.mp4").times == [Fraction(number, 30) for number in range(9)]


def test_a_picture_that_cannot_be_read_is_missing_and_said(tmp_path: Path, model: str) -> None:
    pictures = write_pictures(tmp_path / "pictures", moving_frames(9, 24, 32))
    (pictures / "im4.png").write_bytes(b"no picture")
    summary = lossless(pictures, tmp_path / "out.mkv", model)
    assert (summary.frames, summary.stopped) == (8, "the source is damaged: 1 frame missing")
    expected = [Fraction(number, 25) for number in range(9) if number != 3]
    assert read(tmp_path / "out.mkv").times == expected


def test_results_of_two_ranges_or_rates_are_never_mixed(tmp_path: Path, model: str) -> None:
    pictures = write_pictures(tmp_path / "pictures", moving_frames(9, 24, 32))
    out = tmp_path / "out.mkv"
    lossless(pictures, out, model, "2:6")
    before = out.read_bytes()
    for frames, fps in (("2:7", None), (":", None), ("2:6", 30.0)):
        with pytest.raises(UserError, match="is there already"):
            lossless(pictures, out, model, frames, fps)
    assert out.read_bytes() == before
    same = Settings(codec="ffv1", device="cpu", threads=1, segment=8, frames="2:6")
    assert upscale(str(pictures), str(out), model, same) is None  # done already
    assert mark.mark("a", 1, Settings(frames="2:6")) != mark.mark("a", 1, Settings())


@pytest.mark.parametrize(
    ("source", "more", "message"),
    [
        ("in.mp4", ["--frames", "3-9"], "frame range '3-9': write START:STOP"),
        ("in.mp4", ["--frames", "3:3"], "frame range '3:3' is empty"),
        ("in.mp4", ["--frames", "40:"], "in.mp4: has 40 frames, so none from 40 on; name an earlier START in --frames"),
        ("in.mp4", ["--fps", "25"], "in.mp4: --fps is for folders of pictures"),
        ("pictures", ["--fps", "fast"], "'fast' is no rate; write 24, 23.976 or 24000/1001"),
        ("pictures", ["--fps", "0"], "--fps must be from 1/1001 to 1000"),
        ("pictures", ["--frames", "9:"], "pictures: has 9 frames, so none from 9 on"),
        ("empty", [], "empty: a folder without PNG or JPEG frames"),
        ("sizes", [], r"sizes/im3\.png: is 16x24, the first one 32x24; all pictures of a folder must have one size"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, model: str, source: str, more: list[str], message: str) -> None:
    two_shots(tmp_path / "in.mp4")
    write_pictures(tmp_path / "pictures", moving_frames(9, 24, 32))
    write_pictures(tmp_path / "sizes", moving_frames(4, 24, 32))
    Image.new("RGB", (16, 24)).save(tmp_path / "sizes" / "im3.png")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=message):
        main([str(tmp_path / source), str(tmp_path / "out.mp4"), "--model", model, *more])
    assert not (tmp_path / "out.mp4").exists()


def test_ranges_of_many_videos_are_refused(tmp_path: Path) -> None:
    many = ["--source", str(tmp_path), "--out", str(tmp_path), "--model", "m"]
    for more in (["--frames", "1:2"], ["--fps", "24"]):
        with pytest.raises(UserError, match="go with SRC and DST"):
            main([*many, *more])


def test_a_range_that_begins_after_a_jump_of_the_clock_has_the_jumps_after_it_closed() -> None:
    begins = [(0, 9, 0), (100, 109, -90), (200, 209, -180)]
    clock = Clock(tuple(Epoch(*map(Fraction, epoch)) for epoch in begins), ahead=True)
    whole = [Fraction(first + number) for first, _, _ in begins for number in range(10)]
    offsets = list(clock.pictures(whole))
    for begin in range(30):
        assert list(clock.pictures(whole[begin:])) == offsets[begin:]
