"""Exported models give what the network gives, in runtimes that know nothing of it."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from mana_dist.config import Config
from mana_dist.errors import UserError
from mana_dist.export import export
from mana_dist.export.compare import compare
from mana_dist.model import Mana, ModelConfig
from mana_dist.model.alignment import KINDS, AttentionKind
from mana_dist.ops.plain import OPERATORS
from mana_dist.registry import model_folder

SIZES = {"channels": 8, "encoder_blocks": 1, "decoder_blocks": 1, "frames": 3, "window": 3, "memory_slots": 4}


def network(attention: str, scale: int = 4) -> Mana:
    torch.manual_seed(0)
    model = Mana(ModelConfig(attention=attention, scale=scale, **SIZES)).eval()
    with torch.no_grad():  # zeros would hide the attentions
        if attention != "none":
            nn.init.normal_(model.attention.project.weight, std=0.05)
        assert model.memory is not None
        nn.init.normal_(model.memory.project.weight, std=0.05)
    return model


def undecided() -> Mana:
    """A network whose keys are all alike: rounding decides every search."""
    model = network("one_hot")
    with torch.no_grad():
        model.attention.to_query.weight.zero_()  # type: ignore[union-attr,operator]
        model.attention.to_query.bias.zero_()  # type: ignore[union-attr,operator]
    return model


def saved(folder: Path, model: Mana) -> str:
    model_folder.save(str(folder / "model"), model.state_dict(), Config(model=model.config))
    return str(folder / "model")


@pytest.mark.parametrize(
    "attention",
    [
        pytest.param("one_hot", marks=pytest.mark.slow(seconds=10)),
        pytest.param("phases", marks=pytest.mark.cluster(seconds=75)),  # of torch's exporter
    ],
)
def test_onnx(tmp_path: Path, attention: str) -> None:
    runtime = pytest.importorskip("onnxruntime", reason="needs the extra export")
    pytest.importorskip("onnxscript", reason="needs the extra export")
    model = network(attention)
    exported = export(saved(tmp_path, model), str(tmp_path / "out.onnx"))
    assert exported.difference < 1e-4
    session = runtime.InferenceSession(tmp_path / "out.onnx", providers=["CPUExecutionProvider"])
    for height, width in ((8, 21), (33, 18)):
        frames = torch.rand(1, 3, 3, height, width)
        (centre,) = session.run(["centre"], {"frames": frames.flatten(1, 2).numpy()})
        torch.testing.assert_close(torch.from_numpy(centre), model(frames).detach(), atol=1e-4, rtol=0)


@pytest.mark.parametrize(("attention", "scale"), [("dense", 4), ("softmax_window", 3), ("none", 2)])
def test_torch_export(tmp_path: Path, caplog: pytest.LogCaptureFixture, attention: str, scale: int) -> None:
    model = network(attention, scale)
    out = str(tmp_path / "out.pt2")
    with caplog.at_level("INFO", "mana_dist"):
        exported = export(saved(tmp_path, model), out, "torch-export")
    checked, written = caplog.messages
    assert checked == f"checked: the largest difference from the network is {exported.difference:.1e}"
    assert written.startswith(f"{out}: 3 frames to one, {scale} times per side")
    program = torch.export.load(out)
    assert not any("mana." in str(node.target) for node in program.graph.nodes)
    frames = torch.rand(1, 3, 3, 19, 10)
    centre = program.module()(frames.flatten(1, 2))
    torch.testing.assert_close(centre, model(frames), atol=1e-4, rtol=0)


def test_what_differs_from_the_network_is_seen() -> None:
    model = network("one_hot")

    def broken(window: Tensor) -> Tensor:
        centre = model(window.unflatten(1, (3, 3))).detach()
        centre[..., 5, 7] += 0.25
        return centre

    found = compare(model, broken)
    assert max(found.difference, found.elsewhere) == pytest.approx(0.25, abs=1e-5)


@pytest.mark.parametrize("wrong", [0.25, float("nan")])
def test_what_is_wrong_everywhere_is_no_matter_of_rounding(wrong: float) -> None:
    model = undecided()
    found = compare(model, lambda window: model(window.unflatten(1, (3, 3))).detach() + wrong)
    assert (found.undecided, found.is_equal) == (1.0, False)


def test_searches_that_rounding_decides_are_counted() -> None:
    model = undecided()
    found = compare(model, lambda window: model(window.unflatten(1, (3, 3))).detach())
    assert "searches have a runner-up less than 0.0001 behind, and the 100.0% of pixels" in str(found)
    assert (found.ties, found.undecided, found.is_equal) == (found.searches, 1.0, True)


@pytest.mark.parametrize(
    ("out", "to", "line"),
    [
        ("there.onnx", "onnx", "is there already; --overwrite replaces it"),
        ("new.pt2", "onnx", "the file's name must end with .onnx, for onnx"),
        ("new.onnx", "torch-export", "the file's name must end with .pt2, for torch-export"),
    ],
)
def test_mistakes(tmp_path: Path, out: str, to: str, line: str) -> None:
    (tmp_path / "there.onnx").touch()
    with pytest.raises(UserError, match=line):
        export("pretrained", str(tmp_path / out), to)
    assert [path.name for path in tmp_path.iterdir()] == ["there.onnx"]


def test_a_kind_whose_operator_has_no_plain_form_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(OPERATORS, "one_hot_attention")
    with pytest.raises(UserError, match=r"one_hot cannot be exported: its operator mana\.one_hot_attention"):
        export(saved(tmp_path, network("one_hot")), str(tmp_path / "out.pt2"), "torch-export")


def test_a_kind_that_torch_cannot_trace_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Asking(nn.Module):
        def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            return value if query.sum() > 0 else -value

    model = network("one_hot")
    kind = AttentionKind(name="one_hot", build=lambda _: Asking(), reach=lambda _: 0)
    monkeypatch.setitem(KINDS._kinds, "one_hot", kind)
    with pytest.raises(UserError, match="one_hot cannot be exported: .*data-dependent"):
        export(saved(tmp_path, model), str(tmp_path / "out.pt2"), "torch-export")
    assert not (tmp_path / "out.pt2").exists()
