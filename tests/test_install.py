"""The wheel holds all that the commands need, and the light install what upscaling and evaluating need."""

import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from mana_dist.cli import COMMANDS
from mana_dist.ops import compiled
from mana_dist.registry import model_folder
from tests.evaluate.footage import CONFIG, frames_of, write_folder
from tests.serve.models import tiny_model
from tests.test_api import write_video
from tests.train.trainings import environment

REPOSITORY = Path(__file__).parents[1]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
SWEEPS = [["sweep", "memory"], ["sweep", "window"], ["sweep", "alignment"]]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What git has, so that nothing else gets in."""
    folder = tmp_path_factory.mktemp("source")
    listed = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    for name in listed.splitlines():
        if not name.startswith("tests/") and (REPOSITORY / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPOSITORY / name, folder / name)
    return folder


def build(source: Path, folder: Path, **variables: str) -> Path:
    """Build the wheel, with further environment variables."""
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(source), **variables)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(source, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("installed")
    pip("install", "--no-deps", "--target", str(folder), str(wheel))
    return folder


@pytest.fixture(scope="module")
def light(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that has the package, and links to its base dependencies and theirs, and nothing else."""
    folder = tmp_path_factory.mktemp("light")
    shutil.copytree(installed / "mana_dist", folder / "mana_dist")
    for name in closure(PROJECT["dependencies"]):
        distribution = importlib.metadata.distribution(name)
        for top in {file.parts[0] for file in distribution.files or [] if file.parts[0] not in ("..", "__pycache__")}:
            link = folder / top
            if not link.exists():
                link.symlink_to(str(distribution.locate_file(top)))
    return folder


def pip(*arguments: str, **variables: str) -> None:
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, env=os.environ | variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def closure(requirements: list[str]) -> set[str]:
    """The names of all distributions that these requirements bring with them."""
    found: set[str] = set()
    seen: set[tuple[str, str]] = set()
    todo = [Requirement(text) for text in requirements]
    while todo:
        one = todo.pop()
        name = canonicalize_name(one.name)
        for extra in {"", *one.extras}:
            if (name, extra) in seen or (one.marker and not one.marker.evaluate({"extra": extra})):
                continue
            seen.add((name, extra))
            found.add(name)
            inner = [Requirement(text) for text in importlib.metadata.distribution(name).requires or []]
            todo += [
                Requirement(str(need).partition(";")[0])
                for need in inner
                if need.marker is None or need.marker.evaluate({"extra": extra})
            ]
    return found


def mana(packages: Path, folder: Path, *arguments: str, alone: bool = False) -> "subprocess.CompletedProcess[str]":
    """The command from ``packages``; ``alone``: without the packages of the environment that runs the tests."""
    command = [sys.executable, *(["-S"] if alone else []), "-W", "ignore", "-m", "mana_dist.cli", *arguments]
    env = environment() | {"PYTHONPATH": str(packages), "COLUMNS": "100", "TORCH_HOME": str(folder / "torch")}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)


def test_the_wheel_is_one_package_with_all_that_it_reads(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {name.partition("/")[0] for name in names if ".dist-info/" not in name} == {"mana_dist"}
    listed = subprocess.run(
        ["git", "ls-files", "mana_dist"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    read = ("ops/fused_cpu.c", "presets/tiny.yaml", "report_pages/report_page.js", "serve/web_page/web_page.html")
    assert {f"mana_dist/{name}" for name in read} <= {*listed}
    assert {f"mana_dist/pretrained/{name}" for name in ("card.md", "config.yaml", "model.safetensors")} <= names
    assert {name for name in listed if (REPOSITORY / name).is_file()} <= names
    (scripts,) = [name for name in names if name.endswith("entry_points.txt")]
    with zipfile.ZipFile(wheel) as archive:
        assert "mana = mana_dist.cli:main" in archive.read(scripts).decode()


# The one-hot attention of exact numbers by a literal loop, where no compiler can be found.
ATTEND = """
import sys, torch
from mana_dist.ops import compiled, fused_cpu, one_hot_attention

query, key, value = (torch.randint(-3, 4, shape).float() for shape in ((1, 4, 6, 20), *2 * [(1, 2, 4, 6, 20)]))
output = one_hot_attention(query, key, value, 3)
for t in range(2):
    for y in range(6):
        for x in range(20):
            near = [(j, i) for j in range(y - 1, y + 2) for i in range(x - 1, x + 2) if 0 <= j < 6 and 0 <= i < 20]
            score, j, i = max((float(query[0, :, y, x] @ key[0, t, :, j, i]), -j, -i) for j, i in near)
            assert torch.equal(output[0, t, :, y, x], score * value[0, t, :, -j, -i])
print(fused_cpu.__file__, fused_cpu.available() and compiled.loaded()._name)
"""


def attend(packages: Path, folder: Path, *paths: Path) -> "subprocess.CompletedProcess[str]":
    """Run ``ATTEND`` in ``folder`` with the package of ``packages``, found after those of ``paths``."""
    variables = {"PATH": str(folder), "CC": "", "PYTHONPATH": os.pathsep.join(map(str, [*paths, packages]))}
    command = [sys.executable, "-c", ATTEND]
    return subprocess.run(
        command, cwd=folder, env=environment() | variables, capture_output=True, text=True, check=False
    )


@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs a C compiler")
def test_the_wheel_brings_its_kernel_compiled(wheel: Path, installed: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        libraries = {Path(name).name.partition(".")[0] for name in archive.namelist() if name.endswith(".so")}
    assert libraries == (set(compiled.BUILDS) if platform.machine() == "x86_64" else {"_fused_cpu"})
    done = attend(installed, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert [Path(path).parent for path in done.stdout.split()] == 2 * [installed / "mana_dist" / "ops"]


@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs a C compiler")
def test_a_copy_without_a_kernel_takes_that_of_the_install(source: Path, installed: Path, tmp_path: Path) -> None:
    """Ray leaves out of a job's working folder what Git ignores."""
    shutil.copytree(source / "mana_dist", tmp_path / "copy" / "mana_dist")
    done = attend(installed, tmp_path, tmp_path / "copy")
    assert (done.returncode, done.stderr) == (0, "")
    assert [Path(path).parents[2] for path in done.stdout.split()] == [tmp_path / "copy", installed]


def test_a_wheel_that_was_built_without_a_compiler_works(source: Path, tmp_path: Path) -> None:
    shutil.copytree(source, tmp_path / "source", ignore=shutil.ignore_patterns("build", "*.egg-info"))
    built = build(tmp_path / "source", tmp_path / "wheel", CC="no-compiler", PATH=str(tmp_path))
    pip("install", "--no-deps", "--target", str(tmp_path / "installed"), str(built))
    done = attend(tmp_path / "installed", tmp_path)
    assert (done.returncode, done.stdout.split()[-1]) == (0, "False"), done.stderr
    (line,) = done.stderr.splitlines()
    assert "several times slower" in line
    assert "missing" in line


@pytest.mark.parametrize("words", [[], *([name] for name in COMMANDS), *SWEEPS], ids=" ".join)
def test_help_from_another_folder(installed: Path, tmp_path: Path, words: list[str]) -> None:
    done = mana(installed, tmp_path, *words, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"usage: {' '.join(['mana', *words])}")
    if not words:
        assert all(re.search(rf"^  {name} +\w", done.stdout, re.MULTILINE) for name in COMMANDS)


MISTAKES = [
    "trian",
    *(f"{' '.join(words)} --no-such-option 1" for words in [*([name] for name in COMMANDS), *SWEEPS]),
    *("train --config tiny --run.seed x", "train --config tiny --run.seed -1", "train --config none"),
    *("train --config tiny", "train --config tiny --data.path none", "train --config broken.yaml"),
    *("ingest --source none.mp4 --out new", "ingest --source clip --out new --stride x"),
    *("evaluate --data none.mp4 --method bicubic --out new", "evaluate --data clip --method bicubic --out new --lr x"),
    *("upscale none.mp4 new.mp4", "upscale clip new.mp4 --model none"),
    *("upscale clip new.mp4 --model none --crf x", "sweep memory --slots x --evaluate-on clip"),
    *("export none new.onnx", "export pretrained new.onnx --to no-format"),
    *("serve --model none", "serve --model none --max-batch x"),
]


@pytest.mark.parametrize(
    ("line", "code"),
    [*((" ".join([*words, "--help"]), 0) for words in [[], *([name] for name in COMMANDS), *SWEEPS])]
    + [(line, 2) for line in MISTAKES],
    ids=str,
)
def test_neither_help_nor_a_mistake_waits_for_torch(tmp_path: Path, line: str, code: int) -> None:
    (tmp_path / "clip").touch()
    (tmp_path / "broken.yaml").write_text("run: [")
    program = "import sys; from mana_dist.cli import main\ntry: main()\nfinally: print(*sys.modules)"
    command = [sys.executable, "-c", program, *line.split()]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False)
    modules = set(done.stdout.splitlines()[-1].split())
    assert done.returncode == code, done.stderr
    assert done.stderr.count("\n") == (1 if code else 0), done.stderr
    assert "mana_dist.cli" in modules
    assert not {"torch", "ray", "mlflow", "deepspeed", "scipy"} & modules


def test_the_light_install_upscales_and_evaluates(light: Path, tmp_path: Path) -> None:
    assert not {"ray", "mlflow", "deepspeed", "fastapi"} & {path.name for path in light.iterdir()}
    for seed, name in enumerate(("a", "b")):
        write_folder(tmp_path / "data" / name, frames_of(4, seed))
    write_video(tmp_path / "in.mp4", frames_of(4))
    model_folder.save(str(tmp_path / "model"), tiny_model().state_dict(), CONFIG)
    for model, first in (([], "model: pretrained ("), (["--model", "model", "--overwrite"], "precision: ")):
        done = mana(light, tmp_path, "upscale", "in.mp4", "out.mp4", *model, alone=True)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(first)
        assert "out.mp4: 4 frames" in done.stdout
    words = ["evaluate", "--data", "data", "--method", "bicubic", "pretrained", "model", "--out", "results"]
    done = mana(light, tmp_path, *words, alone=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "results" / "report.html").is_file()


@pytest.mark.parametrize("name", ["train", "ingest", "sweep"])
def test_the_light_install_explains_every_command(light: Path, tmp_path: Path, name: str) -> None:
    done = mana(light, tmp_path, name, "--help", alone=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("arguments", "library", "extra"),
    [
        (["ingest", "--source", "in.mp4", "--out", "samples"], "ray", "ray"),
        (["train", "--config", "tiny"], "ray", "train"),
        (["sweep", "memory", "--evaluate-on", "in.mp4"], "ray", "train"),
        (["serve", "--model", "model"], "ray", "serve"),
        (["evaluate", "--data", "in.mp4", "--method", "models:/x/1", "--out", "out"], "mlflow", "mlflow"),
        (["upscale", "in.mp4", "out.mp4", "--model", "models:/x/1"], "mlflow", "mlflow"),
        (["upscale", "--source", "in.mp4", "--out", "out", "--model", "model"], "ray", "ray"),
        (["stack", "status"], "psutil", "all"),
        (["export", "out.onnx"], "onnxruntime", "export"),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, list) else value,
)
def test_a_command_says_which_extra_it_lacks(
    light: Path, tmp_path: Path, arguments: list[str], library: str, extra: str
) -> None:
    write_video(tmp_path / "in.mp4", frames_of(4))
    (tmp_path / "mlflow.db").touch()
    model_folder.save(str(tmp_path / "model"), tiny_model().state_dict(), CONFIG)
    done = mana(light, tmp_path, *arguments, alone=True)
    command = arguments[0]
    expected = f"error: mana {command} needs {library} here, which is missing; pip install 'mana-dist[{extra}]'\n"
    assert (done.returncode, done.stderr) == (2, expected)
    assert extra in PROJECT["optional-dependencies"]
