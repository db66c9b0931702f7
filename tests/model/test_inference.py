"""Streaming inference against the plain forward pass on explicitly gathered windows."""

import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from mana_dist.model import Mana, ModelConfig, Padding, window_indices
from mana_dist.model.inference import Frame, _Ring, super_resolve, super_resolve_window, to_frame, to_tensor

PADDINGS: tuple[Padding, ...] = ("reflection", "replicate", "reflection_circle", "circle")


def random_model(frames: int = 5, attention: str = "one_hot", scale: int = 4) -> Mana:
    """A tiny model whose attention projections are not zero, so that every frame of the window matters."""
    torch.manual_seed(0)
    small = ModelConfig(channels=8, encoder_blocks=1, decoder_blocks=1, window=3, memory_slots=4)
    model = Mana(dataclasses.replace(small, frames=frames, attention=attention, scale=scale))
    for parameter in model.attention.project.parameters():
        torch.nn.init.normal_(parameter)
    return model.eval()


def clip(length: int, height: int = 9, width: int = 7) -> Frame:
    return np.random.default_rng(length).integers(0, 256, (length, height, width, 3), dtype=np.uint8)


def plain(model: Mana, frames: Frame, padding: Padding) -> Iterator[torch.Tensor]:
    """The oracle: each window gathered by number and run through the whole network."""
    images = torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255
    for centre in range(len(frames)):
        with torch.no_grad():
            yield model(images[window_indices(centre, len(frames), model.config.frames, padding)][None])[0]


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("length", range(11))
def test_streaming_equals_plain_forward_for_every_length_and_padding(length: int, padding: Padding) -> None:
    model = random_model()
    frames = clip(length)
    streamed = list(super_resolve(model, iter(frames), padding=padding))
    assert len(streamed) == length
    for frame, expected in zip(streamed, plain(model, frames, padding), strict=True):
        assert frame.shape == (36, 28, 3)
        assert frame.dtype == np.uint8
        # Half a step of quantisation, and what rounding in another order may add.
        exact = expected.clamp(0, 1).permute(1, 2, 0).numpy() * 255
        assert np.abs(frame - exact).max() <= 0.5 + 255e-5


@pytest.mark.parametrize("attention", ["softmax_window", "dense"])
def test_streaming_equals_plain_forward_for_other_attentions(attention: str) -> None:
    model, frames = random_model(attention=attention), clip(8)
    for frame, expected in zip(super_resolve(model, frames), plain(model, frames, "reflection"), strict=True):
        assert np.abs(frame - expected.clamp(0, 1).permute(1, 2, 0).numpy() * 255).max() <= 0.5 + 255e-5


@pytest.mark.parametrize("scale", [2, 3])
def test_streaming_tiles_and_the_plain_forward_agree_at_other_scales(scale: int) -> None:
    # A one-hot winner may change by rounding; a softmax's mean does not.
    model, frames = random_model(scale=scale, attention="softmax_window"), clip(6, height=70, width=50)
    for memory in (None, 1):
        results = super_resolve(model, frames, memory=memory)
        for frame, expected in zip(results, plain(model, frames, "reflection"), strict=True):
            assert frame.shape == (scale * 70, scale * 50, 3)
            # Half a step of quantisation, and what rounding in another order adds to random weights' large numbers.
            assert np.abs(frame - expected.clamp(0, 1).permute(1, 2, 0).numpy() * 255).max() <= 0.5 + 255e-4


@pytest.mark.parametrize("attention", ["one_hot", "softmax_window", "dense"])
def test_a_small_memory_budget_gives_the_same_frames_in_tiles(attention: str) -> None:
    model = random_model(attention=attention)
    frames = clip(6, height=70, width=50)
    whole, tiled = list(super_resolve(model, iter(frames))), list(super_resolve(model, iter(frames), memory=1))
    for one, other in zip(whole, tiled, strict=True):
        assert np.abs(one.astype(int) - other.astype(int)).max() <= 1  # a value on the edge may round the other way


@pytest.mark.parametrize("attention", ["one_hot", "softmax_window", "dense"])
@pytest.mark.parametrize("memory", [None, 1])
def test_bf16_is_close_and_leaves_autocast_off(memory: int | None, attention: str) -> None:
    model = random_model(attention=attention)
    with torch.no_grad():
        model.upsampler.to_rgb.weight.mul_(0.1)  # a residual of the size that a trained network's has
    frames = clip(6, height=40, width=30)
    exact = list(super_resolve(model, iter(frames)))
    for one, other in zip(exact, super_resolve(model, iter(frames), memory=memory, precision="bf16"), strict=True):
        assert not torch.is_autocast_enabled("cpu")
        difference = np.abs(one.astype(int) - other.astype(int))
        assert difference.mean() < 0.5
        assert (difference > 2).mean() < 0.01  # where two scores are close, another position may win


def test_cached_embeddings_give_the_forward_pass_within_1e_5() -> None:
    model = random_model()
    images = torch.rand(1, 5, 3, 9, 7)
    with torch.no_grad():
        embedded = [model.embed(images[:, position]) for position in range(5)]
        key, value = (torch.stack([getattr(e, name) for e in embedded], 1) for name in ("key", "value"))
        cached = model.reconstruct(images[:, 2], embedded[2].feature, key, value)
        assert (cached - model(images)).abs().max() < 1e-5


@pytest.mark.parametrize("frames", [1, 3, 7])
def test_other_window_lengths(frames: int) -> None:
    model = random_model(frames)
    streamed = list(super_resolve(model, clip(8)))
    for frame, expected in zip(streamed, plain(model, clip(8), "reflection"), strict=True):
        assert np.abs(frame - expected.clamp(0, 1).permute(1, 2, 0).numpy() * 255).max() <= 0.5 + 255e-5


def test_window_equals_the_centre_of_the_stream() -> None:
    model = random_model()
    window = super_resolve_window(model, clip(5))
    np.testing.assert_array_equal(window, list(super_resolve(model, clip(5)))[2])


def test_each_frame_is_embedded_once_and_a_window_of_frames_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_model()
    calls = 0
    embed = model.embed

    def counted(frames: torch.Tensor) -> object:
        nonlocal calls
        calls += 1
        return embed(frames)

    monkeypatch.setattr(model, "embed", counted)
    yielded = 0
    for _ in super_resolve(model, iter(clip(20))):
        yielded += 1
        # T frames before the first output, then T//2 frames ahead of it: a video of any length streams.
        assert calls <= max(5, yielded + 2)
    assert (calls, yielded) == (20, 20)


def test_a_ring_gives_the_stacked_frames_of_any_window_it_holds() -> None:
    frames = torch.rand(20, 1, 4, 3, 5)
    ring = _Ring(5)
    for last in range(20):
        ring.put(last, frames[last])
        if last >= 4:
            for window in ([*range(last - 4, last + 1)], [last, last - 1, last, last - 1, last - 2]):
                assert torch.equal(ring.window(window), torch.stack([frames[number] for number in window], 1))
    view = ring.window([*range(15, 20)])
    assert view.untyped_storage().data_ptr() == ring.window([*range(15, 20)]).untyped_storage().data_ptr()
    assert view.stride(2) == 1


def test_the_callers_gradient_mode_is_not_touched_between_frames() -> None:
    stream = super_resolve(random_model(), clip(6))
    next(stream)
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()


def test_pixels_are_clamped_and_rounded_half_up() -> None:
    steps = torch.tensor([-1.0, 0.0, 0.49, 0.5, 1.5, 2.5, 254.49, 254.5, 300.0]) / 255
    frame = to_frame(steps.view(1, 1, 1, -1).expand(1, 3, 1, 9))
    assert frame[0, :, 0].tolist() == [0, 0, 0, 1, 2, 3, 254, 255, 255]


def test_all_256_values_survive_the_way_in_and_out() -> None:
    values = np.arange(256, dtype=np.uint8).reshape(1, 256, 1).repeat(3, axis=2)
    np.testing.assert_array_equal(to_frame(to_tensor(values)[None]), values)


def test_frames_of_two_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="frame 1 is uint8"):
        list(super_resolve(random_model(), [*clip(1), *clip(1, height=8)]))


@pytest.mark.parametrize("shape", [(4, 8, 8, 3), (5, 8, 8, 1), (8, 8, 3)])
def test_window_of_the_wrong_form_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="windows of 5 RGB frames"):
        super_resolve_window(random_model(), np.zeros(shape, np.uint8))


@pytest.mark.parametrize("length", [1, 3, 8])
def test_wanted_frames_alone_are_what_they_are_among_all(length: int) -> None:
    model = random_model()
    frames = clip(length)
    every = list(super_resolve(model, frames))
    for wanted in (range(length), range(length // 2, length // 2 + 1), range(1, length - 1), range(0)):
        chosen = list(super_resolve(model, frames, wanted=wanted))
        assert len(chosen) == len(wanted)
        for number, frame in zip(wanted, chosen, strict=True):
            np.testing.assert_array_equal(frame, every[number])
