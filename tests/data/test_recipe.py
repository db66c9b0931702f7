"""Recipes: what their operations do to pictures, and that their draws depend on seed, clip and frame alone."""

import io
import itertools
import math
from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import NamedTuple

import av
import cv2
import numpy as np
import pytest
from PIL import Image

from mana_dist.data.degradation import BI, REAL, Degradation, degrade, degrade_clip
from mana_dist.data.degradation.draws import Draws, key_of
from mana_dist.data.degradation.operations import Blur, Drawn, Jpeg, Noise, Operation, Resize, ResizeMethod, kernel_of
from mana_dist.data.degradation.recipe import Recipe
from mana_dist.data.degradation.video_compression import CODECS, VideoCompression
from mana_dist.video.colours import Colours, pixels_of, to_picture
from mana_dist.video.priority import no_real_time
from mana_dist.video.stream_tags import Shown
from tests.data.scenes import scene
from tests.video.videos import Frames, noise_frames

LR = Resize(methods=("imresize",))


class Hr(NamedTuple):
    number: int
    run: int
    hr: Frames


def recipe(*operations: Operation, segment: int = 32) -> Degradation:
    return Degradation.of_recipe(Recipe(name="test", operations=operations, segment=segment))


def lr_of(frames: Iterable[Hr], degradation: Degradation, clip: str = "clip") -> dict[int, Frames]:
    return {frame.number: lr for frame, lr in degrade_clip(frames, degradation, clip)}


def numbered(frames: Frames, run: int = 0) -> list[Hr]:
    return [Hr(number, run, frame) for number, frame in enumerate(frames)]


def drawn(degradation: Degradation, number: int = 0, clip: str = "clip") -> list[tuple[str, Drawn]]:
    assert degradation.recipe is not None
    return degradation.recipe.drawn(clip, number)


@pytest.mark.parametrize("place", range(12))
@pytest.mark.parametrize("kind", ["isotropic", "anisotropic", "motion"])
def test_kernels_sum_to_one_and_are_centred(kind: str, place: int) -> None:
    angle = place * math.pi / 12
    drawn: Drawn = {
        "kind": kind,
        "sigma": 0.2 + place / 4,
        "across": 0.5 + place / 8,
        "length": 1.3 * place,
        "angle": angle,
    }
    kernel = kernel_of(drawn).astype(float)
    assert kernel.shape[0] == kernel.shape[1]
    assert kernel.shape[0] % 2 == 1
    assert kernel.sum() == pytest.approx(1, abs=1e-6)
    assert kernel.min() >= 0
    radius = kernel.shape[0] // 2
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    assert [(kernel * x).sum(), (kernel * y).sum()] == pytest.approx([0, 0], abs=1e-6)


def test_kernels_have_the_spread_and_the_direction_that_was_drawn() -> None:
    y, x = np.mgrid[-9:10, -9:10]
    kernel = kernel_of({"kind": "anisotropic", "sigma": 3.0, "across": 1.0, "angle": math.pi / 6}).astype(float)
    spread = [[(kernel * x * x).sum(), (kernel * x * y).sum()], [(kernel * x * y).sum(), (kernel * y * y).sum()]]
    turn = np.array([[math.sqrt(3), -1], [1, math.sqrt(3)]]) / 2
    np.testing.assert_allclose(spread, turn @ np.diag([9, 1]) @ turn.T, atol=0.4)  # cut at three sigmas
    line = kernel_of({"kind": "motion", "length": 10.0, "angle": 0.0})
    assert (line[line.shape[0] // 2, 1:-1] > 0.05).sum() == 11
    assert line.sum(axis=1).argmax() == line.shape[0] // 2


def test_blur_is_the_drawn_kernel() -> None:
    frame = noise_frames(1, 40, 60)[0]
    for kind in ("isotropic", "anisotropic", "motion"):
        degradation = recipe(Blur(kinds=(kind,)), Resize(scale=(4, 4)), LR)
        (_, drawn_blur), *_ = drawn(degradation)
        padded = np.pad(frame.astype(float), ((20, 20), (20, 20), (0, 0)), "reflect")
        kernel = kernel_of(drawn_blur)
        radius = kernel.shape[0] // 2
        blurred = sum(
            kernel[dy, dx] * padded[20 - radius + dy :, 20 - radius + dx :][:40, :60]
            for dy, dx in itertools.product(range(len(kernel)), repeat=2)
        )
        wanted = degrade(np.clip(np.floor(blurred + 0.5), 0, 255).astype(np.uint8), BI)
        assert np.abs(lr_of([Hr(0, 0, frame)], degradation)[0].astype(int) - wanted).max() <= 1


def test_draws_depend_on_seed_clip_operation_and_name_alone() -> None:
    draws = Draws(key_of(0, "clip"), 1)
    values = [draws.once(name) for name in ("a", "b")]
    assert [draws.once(name) for name in ("b", "a")] == values[::-1]
    others = [Draws(key_of(1, "clip"), 1), Draws(key_of(0, "clap"), 1), Draws(key_of(0, "clip"), 2)]
    assert len({*values, *(other.once("a") for other in others)}) == 5
    many = [Draws(key_of(0, str(clip)), 0).once("a") for clip in range(2000)]
    assert np.mean(many) == pytest.approx(0.5, abs=0.03)
    assert np.var(many) == pytest.approx(1 / 12, abs=0.005)


def test_what_drifts_has_no_jumps_and_stays_in_its_range() -> None:
    draws = Draws(key_of(0, "clip"), 0, drift=20)
    values = [draws.value("sigma", (2.0, 5.0), number) for number in range(400)]
    assert 2 <= min(values) < 2.5
    assert 4.5 < max(values) <= 5
    assert np.abs(np.diff(values)).max() <= 1.5 * 3 / 20 + 1e-9  # the steepest of a smooth step of height 3
    assert [draws.value("sigma", (2.0, 5.0), number) for number in reversed(range(400))] == values[::-1]
    still = Draws(key_of(0, "clip"), 0)
    assert len({still.value("sigma", (2.0, 5.0), number) for number in range(50)}) == 1


def test_chance_is_the_share_of_clips() -> None:
    degradation = recipe(Blur(chance=0.3), LR)
    used = [len(drawn(degradation, clip=str(clip))) - 1 for clip in range(1000)]
    assert np.mean(used) == pytest.approx(0.3, abs=0.05)
    assert [name for name, _ in drawn(recipe(Blur(chance=0), Noise(), LR))] == ["noise", "resize"]


@pytest.mark.parametrize(("sigma", "grey"), [(5.0, 0.0), (12.0, 1.0)])
def test_gaussian_noise_has_the_variance_asked_for(sigma: float, grey: float) -> None:
    frames = np.full((2, 512, 512, 3), 128, np.uint8)
    noise = Noise(kinds=("gaussian",), sigma=(sigma, sigma), grey=grey)
    found = lr_of(numbered(frames), recipe(LR, noise))
    errors = np.stack([found[0], found[1]]).astype(float) - 128
    assert errors.mean() == pytest.approx(0, abs=0.15)
    assert errors.var() == pytest.approx(sigma**2 + 1 / 12, rel=0.03)  # and of rounding
    channels = np.corrcoef(errors.reshape(-1, 3).T)
    np.testing.assert_allclose(channels, np.ones((3, 3)) if grey else np.eye(3), atol=0.03)
    assert abs(np.corrcoef(errors[0].ravel(), errors[1].ravel())[0, 1]) < 0.02
    assert abs(np.corrcoef(errors[0, :, 1:].ravel(), errors[0, :, :-1].ravel())[0, 1]) < 0.02


@pytest.mark.parametrize("grey", [0.0, 1.0])
def test_poisson_noise_grows_with_the_light(grey: float) -> None:
    noise = Noise(kinds=("poisson",), scale=(0.8, 0.8), grey=grey)
    for value in (40, 160):
        frame = np.full((512, 512, 3), value, np.uint8)
        errors = lr_of([Hr(0, 0, frame)], recipe(LR, noise))[0].astype(float) - value
        assert errors.mean() == pytest.approx(0, abs=0.15)
        assert errors.var() == pytest.approx(0.64 * value + 0.64**2 / 18 + 1 / 12, rel=0.04)
        counts = np.random.default_rng(0).poisson(value / 0.64, 500_000) * 0.64 - value  # photons of 0.64 grey levels
        assert (errors**3).mean() == pytest.approx((counts**3).mean(), abs=0.6 * 0.64**2 * value)


def test_jpeg_is_pillows() -> None:
    frames = scene(3, 4)
    degradation = recipe(LR, Jpeg(quality=(20, 90), drift=2))
    qualities = []
    for number, lr in lr_of(numbered(frames), degradation).items():
        qualities.append(drawn(degradation, number)[-1][1]["quality"])
        file = io.BytesIO()
        Image.fromarray(degrade(frames[number], BI)).save(file, "JPEG", quality=qualities[-1])
        np.testing.assert_array_equal(lr, np.asarray(Image.open(file)))
    assert len(set(qualities)) > 2


OPTIONS = {
    "h264": {"crf": "{:g}", "preset": "veryfast", "mbtree": "0", "x264-params": "cpu-independent=1"},
    "hevc": {"crf": "{:g}", "preset": "ultrafast", "x265-params": "pools=none:frame-threads=1:log-level=none"},
    "mpeg4": {"qmin": "{:.0f}", "qmax": "{:.0f}"},
    "vp9": {"crf": "{:.0f}", "b": "0", "deadline": "realtime", "cpu-used": "6", "row-mt": "0"},
    "av1": {"crf": "{:.0f}", "preset": "10", "svtav1-params": "lp=1"},
}


def coded(frames: Frames, name: str, quality: float, segment: int) -> list[Frames]:
    """The frames, all sides even, through a file in memory."""
    file = io.BytesIO()
    options = {key: text.format(quality) for key, text in OPTIONS[name].items()}
    with av.open(file, "w", format="matroska") as container:
        stream = container.add_stream(CODECS[name].encoder, rate=25, options=options)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt, stream.gop_size, stream.codec_context.thread_count = "yuv420p", segment, 1
        with no_real_time():  # as root, SVT-AV1 would take the cores of all that runs after this test
            stream.codec_context.open()
        for number, frame in enumerate(frames):
            picture = to_picture(frame, "yuv420p", Colours(6, False, 2, 2))
            picture.pts, picture.time_base = number, Fraction(1, 25)
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    file.seek(0)
    with av.open(file) as container:
        found = []
        for picture in container.decode(video=0):
            picture.colorspace, picture.color_range = 6, 1
            found.append(pixels_of(picture, 8, Shown(chroma="left")))
        return found


@pytest.mark.parametrize("name", list(CODECS))
def test_video_is_what_the_codec_makes_of_each_segment(name: str) -> None:
    frames = scene(1, 20, step=4, height=320, width=320)
    degradation = recipe(LR, VideoCompression(codecs={name: (8, 25)}, drift=8), segment=8)
    low = degrade(frames, BI)
    found = lr_of(numbered(frames), degradation)
    qualities = []
    for begin in (0, 8, 16):
        ((_, _), (_, parameters)) = drawn(degradation, begin + 3)
        assert parameters["codec"] == name
        qualities.append(float(parameters["quality"]))
        expected = coded(low[begin : begin + 8], name, qualities[-1], 8)
        for number, frame in enumerate(expected, begin):
            np.testing.assert_array_equal(found[number], frame)
    assert len(found) == 20
    assert len(set(qualities)) == 3


def test_frames_are_the_same_in_any_order_of_reading() -> None:
    frames = numbered(noise_frames(9))
    degradation = recipe(Blur(drift=3), Resize(scale=(0.6, 3), drift=4), Noise(drift=5), Jpeg(), LR)
    whole = lr_of(frames, degradation)
    for number in (4, 0, 8):
        np.testing.assert_array_equal(lr_of([frames[number]], degradation)[number], whole[number])
    assert not np.array_equal(lr_of(frames[:1], degradation, "other")[0], whole[0])


def test_of_compressed_video_whole_segments_are_the_same_in_any_order() -> None:
    frames = numbered(scene(0, 22))
    assert REAL.recipe is not None
    degradation = recipe(*REAL.recipe.operations, segment=8)
    whole = lr_of(frames, degradation)
    for begin, end in ((16, 22), (8, 16), (0, 16)):
        for number, lr in lr_of(frames[begin:end], degradation).items():
            np.testing.assert_array_equal(lr, whole[number])


def test_a_gap_begins_another_segment() -> None:
    frames = scene(0, 16)
    degradation = recipe(LR, VideoCompression(), segment=16)
    broken = [Hr(number, int(number >= 6), frame) for number, frame in enumerate(frames) if number != 5]
    found = lr_of(broken, degradation)
    for part in (broken[:5], broken[5:]):
        for number, lr in lr_of(part, degradation).items():
            np.testing.assert_array_equal(found[number], lr)


def test_a_recipe_of_matlabs_imresize_alone_is_bi() -> None:
    frames = noise_frames(2, 68, 92)
    np.testing.assert_array_equal(list(lr_of(numbered(frames), recipe(LR)).values()), degrade(frames, BI))
    np.testing.assert_array_equal(degrade(frames, recipe(LR)), degrade(frames, BI))


def smooth(count: int, height: int, width: int) -> Frames:
    """A moving picture with detail that LR frames show, not more, and colours that are not all as strong."""
    frames = scene(5, count, step=2, height=height, width=width).astype(np.float32)
    frames = 0.3 * frames + 0.7 * frames.mean(axis=3, keepdims=True)
    blurred = np.stack([cv2.GaussianBlur(frame, (0, 0), 5) for frame in frames])
    middle = blurred.mean(axis=(0, 1, 2))
    return np.clip(127 + (blurred - middle) * 45 / blurred.std(axis=(0, 1, 2)), 0, 255).astype(np.uint8)


def shifts(lr: Sequence[Frames], hr: Frames) -> list[float]:
    """How far the channels of LR lie from BI's, rows and columns, LR pixels; by least squares on its gradients."""
    found = []
    for channel in range(3):
        low = degrade(hr, BI)[..., channel].astype(float)
        rows, columns = np.gradient(low, axis=1), np.gradient(low, axis=2)
        inner = (slice(None), slice(4, -4), slice(4, -4))
        slopes = np.stack([rows[inner].ravel(), columns[inner].ravel()], axis=1)
        error = (low - np.stack(lr)[..., channel])[inner].ravel()
        found += np.linalg.lstsq(slopes, error, rcond=None)[0].tolist()
    return found


ALIGNED: dict[str, tuple[Operation, ...]] = {
    **{method: (Resize(methods=(method,)),) for method in ("area", "bilinear", "bicubic", "imresize")},
    **{
        f"{method} up and down": (*(Resize(scale=(size, size), methods=(method,)) for size in (5.3, 1.7, 0.7)), LR)
        for method in ("area", "bilinear", "bicubic", "imresize")
    },
    **{kind: (Blur(kinds=(kind,), sigma=(2, 3), length=(9, 9)), LR) for kind in ("isotropic", "anisotropic", "motion")},
    **{name: (LR, VideoCompression(codecs={name: (2, 2)})) for name in CODECS},
    "jpeg": (LR, Jpeg(quality=(80, 80))),
    "noise": (LR, Noise(sigma=(5, 5), scale=(0.5, 0.5))),
}


@pytest.mark.parametrize("name", [*ALIGNED, "real"])
def test_lr_stays_where_hr_is(name: str) -> None:
    hr = smooth(4, 4 * 135, 4 * 241)  # odd sides of LR
    degradation = REAL if name == "real" else recipe(*ALIGNED[name])
    lr = list(lr_of(numbered(hr), degradation).values())
    assert {frame.shape for frame in lr} == {(135, 241, 3)}
    assert shifts(lr, hr) == pytest.approx([0] * 6, abs=0.05)
    moved = degrade(np.roll(hr, 1, axis=2), BI)  # that the measure sees a quarter of a pixel
    assert shifts(list(moved), hr)[1] == pytest.approx(0.25, abs=0.05)


def test_phase_correlation_finds_no_shift_either() -> None:
    hr = scene(5, 3, height=256, width=384)
    for method in ("area", "bilinear", "bicubic"):
        methods: tuple[ResizeMethod, ...] = (method,)
        lr = lr_of(numbered(hr), recipe(Resize(scale=(1.37, 1.37), methods=methods), Resize(methods=methods)))
        pair = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(np.float64) for frame in (lr[2], degrade(hr[2], BI))]
        shift, _ = cv2.phaseCorrelate(pair[0], pair[1], cv2.createHanningWindow(pair[0].shape[::-1], cv2.CV_64F))
        assert shift == pytest.approx((0, 0), abs=0.08)


def test_real_looks_like_the_scene() -> None:
    hr = smooth(8, 192, 256)
    low = degrade(hr, BI).astype(float)
    found = []
    for clip in range(12):
        lr = np.stack(list(lr_of(numbered(hr), REAL, str(clip)).values()))
        found.append(10 * np.log10(255**2 / np.mean((lr - low) ** 2)))
    assert min(found) > 22
    assert max(found) < 48
    assert np.std(found) > 1  # clips differ
