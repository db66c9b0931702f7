"""One typed configuration: presets, files, command line, and errors that name the mend."""

import dataclasses
import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mana_dist.config import PRESETS, Config, flatten, load, parse, preset, resolved, to_mapping, to_yaml
from mana_dist.errors import UserError

# CONTRACT: every documented key with the paper's value.
PAPER = {
    "model.channels": 128,
    "model.encoder_blocks": 5,
    "model.decoder_blocks": 40,
    "model.frames": 7,
    "model.window": 9,
    "model.memory_slots": 256,
    "model.scale": 4,
    "model.attention": "one_hot",
    "schedule.stage1.steps": 90_000,
    "schedule.stage1.lr": 1e-4,
    "schedule.stage2.steps": 30_000,
    "schedule.stage2.lr": 1e-4,
    "schedule.stage3.steps": 30_000,
    "schedule.stage3.lr": 1e-5,
    **{f"schedule.stage{number}.decay": "constant" for number in (1, 2, 3)},
    **{f"schedule.stage{number}.warmup": 0 for number in (1, 2, 3)},
    "schedule.loss": "l1",
    "data.batch_size": 16,
    "data.reverse": False,
    "data.crop": 64,
    "run.zero_stage": 1,
    "run.precision": "bf16",
    "run.seed": 0,
    "run.ema": 0.0,
    "mlflow.experiment": "mana",
    "mlflow.registered_model": "mana-x4",
}


@pytest.mark.parametrize("arguments", [[], ["--config", "paper"]])
def test_defaults_and_the_paper_preset_are_the_papers(arguments: list[str]) -> None:
    flat = flatten(to_mapping(parse(arguments)))
    assert {key: flat[key] for key in PAPER} == PAPER


def test_a_models_default_name_in_the_registry_is_that_of_its_scale() -> None:
    assert parse(["--model.scale", "2"]).mlflow.registered_model == "mana-x2"
    assert parse(["--model.scale", "3", "--mlflow.registered_model", "mine"]).mlflow.registered_model == "mine"


def test_the_command_line_wins_over_the_file_and_the_file_over_defaults(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("model: {channels: 16}\nschedule: {stage1: {lr: 1e-3}}\ndata: {crop: 48}\n")
    config = parse(["--data.crop", "32", "--config", str(file), "--run.workers=2-4"])
    assert (config.model.channels, config.schedule.stage1.lr, config.data.crop) == (16, 1e-3, 32)
    assert config.schedule.stage1.steps == 90_000
    assert config.run.worker_range == (2, 4)


def test_yaml_gives_the_same_configuration_back() -> None:
    config = parse(["--config", "tiny", "--data.path", "s3://bucket/samples", "--run.name", "x"])
    assert load(to_yaml(config), "config.yaml") == config


def test_local_paths_become_absolute_and_uris_stay(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    config = parse(["--data.path", "samples", "--data.validation_path", "s3://bucket/val", "--data.disk_cache", "c"])
    assert config.data.path == str(tmp_path / "samples")
    assert config.data.disk_cache == str(tmp_path / "c")
    assert config.data.validation_path == "s3://bucket/val"
    assert config.run.storage == str(tmp_path / "runs")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model.chanels", "64"], "unknown key model.chanels; did you mean model.channels?"),
        (["--schedule.stage1.step=3"], "did you mean schedule.stage1.steps?"),
        (["--crop", "3"], "unknown key crop; did you mean data.crop?"),
        (["--model", "3"], "model is a group of keys"),
        (["--model.channels", "many"], "model.channels: expected int, got value: many"),
        (["--model.channels", "1.5"], "model.channels: expected int"),
        (["--run.precision", "fp8"], "run.precision: expected one of ['auto', 'bf16', 'fp32'], got value: fp8"),
        (["--config", "tiny", "--run.seed", "x"], "command line: run.seed: expected int, got value: x"),
        (["--config", "tiny", "--model.window", "8"], "tiny and command line: model.window must be odd"),
        (["--run.zero_stage", "4"], "run.zero_stage"),
        (["--model.window", "8"], "model.window must be odd and positive, got 8"),
        (["--model.frames", "6"], "model.frames must be odd"),
        (
            ["--model.attention", "softmax"],
            (
                "model.attention must be one of one_hot, softmax_window, dense, phases, none, got softmax; "
                "did you mean softmax_window?"
            ),
        ),
        (["--model.atention", "dense"], "unknown key model.atention; did you mean model.attention?"),
        (["--data.crop", "0"], "data.crop must be at least 1"),
        (["--data.readers", "0"], "data.readers must be at least 1"),
        (["--data.disk_cache", "s3://bucket/c"], "data.disk_cache must be a folder on a local disk, got s3://"),
        (["--schedule.stage1.lr", "-1"], r"schedule.*lr must be positive"),
        (["--schedule.stage1.steps", "-1"], r"schedule.*steps must not be negative"),
        (["--schedule.loss", "l2"], "schedule.loss: expected one of ['l1', 'charbonnier'], got value: l2"),
        (["--schedule.stage2.decay", "cosin"], "schedule.stage2.decay: expected one of ['constant', 'cosine'], got"),
        (["--schedule.stage1.warmup", "-1"], r"schedule.*warmup must not be negative"),
        (["--config", "tiny", "--schedule.stage1.warmup", "601"], r"warmup must not exceed the stage's steps \(600\)"),
        (["--run.workers", "4-2"], "MIN-MAX"),
        (["--run.workers", "few"], "run.workers must be a number or MIN-MAX"),
        (["--run.workers", "17"], r"must not exceed data.batch_size \(16\)"),
        (["--run.name", "../up"], "run.name may hold letters"),
        (["--run.name", "x" * 129], "run.name may have 128 characters, got 129"),
        (["--run.log_every", "0"], "run.log_every must be at least 1"),
        (["--run.micro_batch", "-1"], "run.micro_batch must be at least 0"),
        (["--run.clip_gradients", "-0.5"], "run.clip_gradients must be at least 0"),
        (["--run.ema", "1"], "run.ema must be at least 0 and less than 1, got 1.0"),
        (["--run.stall_timeout", "0"], "run.stall_timeout must be at least 1"),
        (["--config", "nowhere.yaml"], "--config nowhere.yaml: no such file, nor a preset (tiny, small,"),
        (["--config"], "--config needs a value"),
        (["--data.path"], "data.path"),
        (["stray"], "stray"),
    ],
)
def test_mistakes_on_the_command_line_are_named(arguments: list[str], message: str) -> None:
    with pytest.raises(UserError) as error:
        parse(arguments)
    assert re.search(message if ".*" in message or "\\" in message else re.escape(message), str(error.value))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: {chanels: 3}", "unknown key model.chanels; did you mean model.channels?"),
        ("model: [1]", "model is a group of keys"),
        ("- 1", "must hold keys and values, not a list"),
        ("model: {channels: three}", "model.channels"),
        ("a: b: c", "not valid YAML"),
    ],
)
def test_mistakes_in_a_file_are_named(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "broken.yaml"
    file.write_text(text)
    with pytest.raises(UserError) as error:
        parse(["--config", str(file)])
    assert message in str(error.value)
    assert str(error.value).startswith(f"{file}: ")
    with pytest.raises(UserError) as error:
        load(text, "broken.yaml")
    assert message in str(error.value)


def test_a_file_builds_on_the_preset_before_it(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("model: {memory_slots: 5}\nrun: {seed: 3}")
    built = parse(["--config", "tiny", "--config", str(file), "--run.seed", "4"])
    tiny = parse(["--config", "tiny"])
    assert built.model == dataclasses.replace(tiny.model, memory_slots=5)
    assert built.run == dataclasses.replace(tiny.run, seed=4)


def test_print_config_prints_a_configuration_that_reads_back(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(["--config", "tiny", "--run.seed", "4", "--print_config"])
    assert not ended.value.code
    printed = load(capsys.readouterr().out, "printed")
    assert printed.model == parse(["--config", "tiny"]).model
    assert printed.run.seed == 4


def test_an_empty_file_is_the_papers_configuration(tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").write_text("")
    assert parse(["--config", str(tmp_path / "empty.yaml")]).model == Config().model


def test_options_that_all_commands_have_set_the_keys_of_that_name() -> None:
    config = parse(
        [
            *["--device", "cpu", "--tracking-uri", "http://a", "--experiment=b"],
            *["--workers", "2-3", "--precision", "fp32"],
        ]
    )
    assert (config.run.device, config.run.workers, config.run.precision) == ("cpu", "2-3", "fp32")
    assert (config.mlflow.tracking_uri, config.mlflow.experiment) == ("http://a", "b")
    assert parse(["--device", "cpu", "--run.device", "cuda"]).run.device == "cuda"  # the last one wins
    with pytest.raises(UserError, match="run.device"):
        parse(["--device", "tpu"])


def test_presets_are_those_of_the_command_line() -> None:
    for name in PRESETS:
        assert resolved(preset(name)) == parse(["--config", name])
    with pytest.raises(UserError, match="there is no preset huge; there are tiny, small, paper, finetune"):
        preset("huge")


def test_a_configuration_crosses_processes_as_it_is() -> None:
    config = parse(["--config", "tiny", "--run.workers", "2-4"])
    assert pickle.loads(pickle.dumps(config)) == config


def test_a_configuration_does_not_wait_for_torch() -> None:
    program = "import sys, mana_dist.config as c; c.Config(); c.preset('tiny'); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
