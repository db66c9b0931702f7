import os
import shutil
import subprocess
from pathlib import Path

import pytest

import mana_dist
from mana_dist.config import Config, DataConfig, RunConfig
from mana_dist.data.manifest import load_manifest
from mana_dist.data.mixture import Dataset
from mana_dist.train.tracking import run_page
from tests.train.datasets import make_dataset


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=n", "-c", "user.email=e"]
    return subprocess.run(
        ["git", "-C", str(folder), *identity, *arguments], capture_output=True, text=True, check=True
    ).stdout.strip()


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_the_commit_and_changes_since_are_those_of_the_packages_own_repository(tmp_path: Path) -> None:
    package, installed = tmp_path / "package", tmp_path / "venv" / "package"
    for folder in (package, installed):
        folder.mkdir(parents=True)
        (folder / "__init__.py").write_text("a = 1\n")
    assert run_page.git_tags(str(package)) == {}  # no repository
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "package/__init__.py")
    git(tmp_path, "commit", "-q", "-m", "first")
    commit = git(tmp_path, "rev-parse", "HEAD")
    clean = {"mlflow.source.git.commit": commit, "mana_dist.git_dirty": "false"}
    assert run_page.git_tags(str(package)) == clean
    (package / "__init__.py").write_text("a = 2\n")
    assert run_page.git_tags(str(package)) == {**clean, "mana_dist.git_dirty": "true"}
    assert run_page.git_tags(str(installed)) == {}  # an environment inside somebody's repository


def test_a_page_names_version_and_data(tmp_path: Path) -> None:
    for name in ("samples", "held-out"):
        make_dataset(str(tmp_path / name), 4)
    data = DataConfig(path=str(tmp_path / "samples"), validation_path=f"{tmp_path}/held-out/")
    config = Config(data=data, run=RunConfig(name="mine", storage=str(tmp_path)))
    page = run_page.describe(config, (Dataset(str(data.path), load_manifest(str(data.path))),))
    assert page.tags["mana_dist.version"] == mana_dist.__version__
    assert f"{tmp_path}{os.sep}mine" in page.tags["mlflow.note.content"]
    named = [(given.dataset.name, [tag.value for tag in given.tags]) for given in page.inputs]
    assert named == [("samples", ["training"]), ("held-out", ["validation"])]
    first, second = (given.dataset for given in page.inputs)
    assert str(tmp_path / "samples") in first.source
    assert '"samples": 4' in first.profile
    assert len(first.digest) == 36
    assert first.digest == second.digest  # the same samples
