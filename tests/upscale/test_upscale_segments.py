"""Segments made apart are those made in one go, and windows keep to their shot."""

import dataclasses
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from mana_dist.model import Mana, ModelConfig, inference
from mana_dist.upscale.config import Codec, Settings
from mana_dist.upscale.join import join
from mana_dist.upscale.segment_files import files_of
from mana_dist.upscale.source_video import segments_of, survey
from mana_dist.upscale.upscale_segments import Network, network, upscale_segments
from mana_dist.video import reading
from tests.upscale.runs import LONG, SAME, read, run, synthesise
from tests.video.videos import moving_frames, write_coded, write_video

TINY = ModelConfig(channels=8, encoder_blocks=1, decoder_blocks=1, frames=5, window=3, memory_slots=4)


@pytest.fixture(scope="module")
def model() -> Mana:
    """Every frame of a window matters: the attention's projections are not zero."""
    torch.manual_seed(0)
    model = Mana(TINY)
    for parameter in model.attention.project.parameters():
        torch.nn.init.normal_(parameter)
    return model.eval()


def scenes(lengths: list[int], height: int = 24, width: int = 32) -> NDArray[np.uint8]:
    """Shots of moving pictures that have nothing in common."""
    shots = []
    for number, length in enumerate(lengths):
        shot = moving_frames(length, height, width, step=1 + number % 2).astype(int)
        shots.append(np.roll(shot, number, axis=3) * (1 + number % 3) // 3 + 60 * (number % 2))
    return np.concatenate(shots).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("codec", ["h264", "ffv1"])
def test_segments_made_apart_in_any_order_give_the_same_bytes(tmp_path: Path, model: Mana, codec: Codec) -> None:
    frames = scenes([13, 2, 9, 30])
    source = write_coded(tmp_path / "a.mp4", frames, options={"g": "6", "crf": "12"})
    settings = Settings(codec=codec, segment=8, device="cpu", threads=1, precision="fp32")
    surveyed = survey(str(source))
    placed = network(model, settings, surveyed)
    segments = segments_of(surveyed, TINY.frames, 8)
    assert len(segments) >= 5
    assert any(segment.seek is not None for segment in segments)
    upscale_segments(surveyed, segments, placed, settings, str(tmp_path / "whole"))
    for segment in reversed(segments):
        upscale_segments(surveyed, [segment], placed, settings, str(tmp_path / "apart"))
    for segment in segments:
        for name in files_of(segment, settings):
            assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "apart" / name).read_bytes(), name
    for folder in ("whole", "apart"):
        join(surveyed, segments, str(tmp_path / folder), str(tmp_path / f"{folder}.mkv"), settings)
    assert (tmp_path / "whole.mkv").read_bytes() == (tmp_path / "apart.mkv").read_bytes()


def test_each_shot_is_upscaled_as_if_it_were_a_video_of_its_own(tmp_path: Path, model: Mana) -> None:
    lengths = [13, 9, 3, 20]
    frames = scenes(lengths)
    source = write_video(tmp_path / "a.mp4", frames, keyframes=10)  # lossless
    settings = Settings(codec="ffv1", segment=8, device="cpu", threads=1, precision="fp32")
    placed = network(model, settings, survey(str(source)))
    summary = run(source, tmp_path / "b.mkv", settings, placed)
    assert summary.cuts == len(lengths) - 1
    expected: list[NDArray[np.uint8]] = []
    for shot in np.split(frames, np.cumsum(lengths)[:-1]):
        expected += inference.super_resolve(model, iter(shot))
    np.testing.assert_array_equal(read(tmp_path / "b.mkv").frames, expected)
    mixed = list(inference.super_resolve(model, iter(frames)))  # what would come out if cuts were not minded
    assert any(np.abs(one.astype(int) - other).max() > 2 for one, other in zip(mixed, expected, strict=True))


def test_ten_bits_go_through_the_network_and_stay(tmp_path: Path, model: Mana) -> None:
    ramp = np.linspace(200, 40000, 64 * 96).reshape(64, 96)  # many more levels than 8 bits have
    frames = [np.stack([ramp, ramp, ramp], 2).astype(np.uint16) + 40 * number for number in range(4)]
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "gbrp10le"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame >> 6, format="gbrp10le")))
        container.mux(stream.encode(None))
    settings = Settings(codec="ffv1", device="cpu", threads=1, precision="fp32")
    run(path, tmp_path / "b.mkv", settings, network(model, settings, survey(str(path))))
    result = read(tmp_path / "b.mkv", "gbrp10le")
    assert result.format == "gbrp10le"
    assert len(np.unique(result.frames[0][..., 1])) > 256
    run(path, tmp_path / "c.mkv", Settings(codec="ffv1", bits=8))
    assert read(tmp_path / "c.mkv").format == "bgr0"
    ten = np.stack(frames) >> 6
    # The oracle: the same network on floating-point frames.
    images = torch.from_numpy((ten / 1023).astype(np.float32)).movedim(-1, 1)
    window = images[[2, 1, 0, 1, 2]]
    with torch.no_grad():
        expected = model(window[None])[0].clamp(0, 1).movedim(0, -1).numpy()
    difference = np.abs(result.frames[0] - expected * 1023)
    assert difference.mean() < 0.25  # rounding alone
    assert difference.max() < 2


@pytest.mark.parametrize("matrix", [1, 9])
def test_ten_bit_yuv_comes_out_as_it_went_in(tmp_path: Path, matrix: int) -> None:
    levels = np.arange(64, 941, 8, dtype=np.uint16)
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx265", rate=25, options={"x265-params": "lossless=1:log-level=none"})
        stream.width, stream.height, stream.pix_fmt = 128, 128, "yuv420p10le"
        context = stream.codec_context
        context.colorspace, context.color_primaries, context.color_trc, context.color_range = matrix, 9, 16, 1
        for _ in range(3):
            frame = av.VideoFrame(128, 128, "yuv420p10le")
            luma = np.zeros((128, frame.planes[0].line_size // 2), np.uint16)
            luma[:, :128] = np.pad(levels, (0, 128 - len(levels)), mode="edge")
            frame.planes[0].update(luma)
            for plane in frame.planes[1:]:
                plane.update(np.full(plane.buffer_size // 2, 512, np.uint16))
            frame.colorspace, frame.color_range = matrix, 1
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    run(path, tmp_path / "b.mp4", Settings(codec="hevc", crf=0))
    result = read(tmp_path / "b.mp4", "yuv420p10le")
    assert result.format == "yuv420p10le"
    assert result.colours == (matrix, 9, 16, 1)  # HDR (PQ) stays HDR
    luma = result.frames[1][:128].astype(int)
    assert np.abs(luma[32, : len(levels)] - levels).max() <= 3
    run(path, tmp_path / "c.mp4", Settings(codec="hevc", bits=8))
    assert read(tmp_path / "c.mp4").format == "yuv420p"


@pytest.mark.parametrize(("pixels", "range_"), [("yuvj420p", 2), ("yuv420p", 1), ("yuv422p", 1), ("yuv444p", 1)])
def test_range_of_the_source_is_kept(tmp_path: Path, pixels: str, range_: int) -> None:
    source = write_coded(tmp_path / "a.mp4", moving_frames(4), options={"crf": "5"}, pixels=pixels)
    run(source, tmp_path / "b.mp4", Settings(crf=5))
    assert read(tmp_path / "b.mp4").colours[3] == range_
    pairs = zip(reading.read_frames(str(source)), reading.read_frames(str(tmp_path / "b.mp4")), strict=True)
    assert max(np.abs(one.astype(int) - other).mean() for one, other in pairs) < 3


@pytest.mark.parametrize("name", ["a.264", "a.hevc", "a.avi", "a.ts", "a.webm", "a.mkv"])
def test_containers_without_an_exact_index_lose_no_frame(tmp_path: Path, name: str) -> None:
    codec = {"a.hevc": "libx265", "a.webm": "libvpx-vp9", "a.avi": "mpeg4"}.get(name, "libx264")
    source = write_coded(tmp_path / name, moving_frames(40, 64, 96), codec, options={"g": "8"})
    before = list(reading.read_frames(str(source)))
    summary = run(source, tmp_path / "b.mkv", Settings(codec="ffv1", segment=8))
    assert summary.stopped == ""
    np.testing.assert_array_equal(read(tmp_path / "b.mkv").frames, before)


def test_interlaced_frames_are_made_progressive_alike_in_all_segments(tmp_path: Path) -> None:
    source = write_coded(
        tmp_path / "a.mp4", moving_frames(40, 64, 96), options={"g": "8", "flags": "+ilme+ildct", "x264opts": "tff"}
    )
    before = list(reading.read_frames(str(source)))
    run(source, tmp_path / "b.mkv", Settings(codec="ffv1", segment=8))
    np.testing.assert_array_equal(read(tmp_path / "b.mkv").frames, before)
    surveyed = survey(str(source))
    segments = segments_of(surveyed, SAME.frames, 8)
    settings = Settings(codec="ffv1", segment=8)
    for segment in segments:
        upscale_segments(surveyed, [segment], SAME, settings, str(tmp_path / "apart"))
    join(surveyed, segments, str(tmp_path / "apart"), str(tmp_path / "c.mkv"), settings)
    np.testing.assert_array_equal(read(tmp_path / "c.mkv").frames, before)


def test_all_values_of_16_bits_survive_the_way_in_and_out() -> None:
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256, 1).repeat(3, axis=2)
    np.testing.assert_array_equal(inference.to_frame(inference.to_tensor(values)[None], np.uint16), values)


@pytest.mark.parametrize(("free", "tiled"), [(2**40, False), (2**28, True)])
def test_automatic_tiles_come_where_memory_is_short(
    tmp_path: Path, model: Mana, monkeypatch: pytest.MonkeyPatch, free: int, tiled: bool
) -> None:
    monkeypatch.setattr("mana_dist.upscale.frame_memory.free_bytes", lambda _: free)
    looked_at = survey(str(write_coded(tmp_path / "a.mp4", moving_frames(2, 64, 96))))
    large = dataclasses.replace(looked_at, height=1080, width=1920)
    assert (network(model, Settings(device="cpu"), large).tiling is not None) == tiled
    assert network(model, Settings(device="cpu"), looked_at).tiling is None
    assert network(model, Settings(device="cpu", memory=None), large).tiling is None
    assert network(model, Settings(device="cpu", memory=1), looked_at).tiling is not None


def test_the_network_reads_only_a_few_frames_more_than_it_must(tmp_path: Path) -> None:
    source = synthesise(tmp_path / "a.mp4", LONG, keyframes=8)
    read_by_network: list[int] = []

    def counting(frames, wanted):  # type: ignore[no-untyped-def]
        def seen():  # type: ignore[no-untyped-def]
            for number, frame in enumerate(frames):
                read_by_network.append(number)
                yield frame

        return SAME.upscale(seen(), wanted)  # type: ignore[no-untyped-call]

    surveyed = survey(str(source))
    segments = segments_of(surveyed, 5, 8)
    upscale_segments(surveyed, segments[2:3], Network(5, counting), Settings(), str(tmp_path / "work"))
    assert len(read_by_network) <= 8 + 2 * 12
