"""The images' recipe: a linter reads it, and what it runs is run. For the images themselves: `make test-image`."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from cluster.image.requirements import requirements
from tests.k8s.manifests import OVERLAYS, REPOSITORY, containers

DOCKERFILE = (REPOSITORY / "Dockerfile").read_text(encoding="utf-8")
_HADOLINT = str(Path(sys.executable).with_name("hadolint"))


def lint(text: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([_HADOLINT, "-"], input=text, capture_output=True, text=True, check=False)


def test_hadolint_finds_nothing() -> None:
    done = lint(DOCKERFILE)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("WORKDIR /opt/mana", "WORKDIR opt/mana"),
        ("apt-get install --yes", "apt-get install"),
        ("COPY mana_dist mana_dist", "COPPY mana_dist mana_dist"),
        ("COPY --from=compiled", "COPY --from=compile"),
    ],
)
def test_hadolint_finds_a_mistake(old: str, new: str) -> None:
    assert old in DOCKERFILE
    assert lint(DOCKERFILE.replace(old, new)).returncode != 0


def test_everything_that_is_copied_is_there_and_not_ignored() -> None:
    lines = (REPOSITORY / ".dockerignore").read_text(encoding="utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    kept = [Path(line[1:]) for line in rules if line.startswith("!")]
    sources = [
        source
        for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE)
        for source in line.split()[:-1]
    ]
    assert sources
    for source in sources:
        assert (REPOSITORY / source).exists(), source
        assert any(Path(source).match(str(pattern)) for pattern in kept), source


def test_the_images_are_those_of_the_manifests_and_run_as_nobody_special() -> None:
    for stage in ("ray", "mlflow"):
        text = part(stage)
        assert "USER 1000" in text.splitlines()
        assert "gcc" not in text
    assert "gcc" in part("compiled")
    assert "pip wheel" in part("compiled")
    assert "wheels/*.whl" in part("ray")
    ours = {box["image"].split("/")[-1] for overlay in OVERLAYS for _, box in containers(overlay)}
    assert {"mana-dist:0.1.0", "mana-mlflow:0.1.0"} <= ours
    assert all(f"-t {name} ." in DOCKERFILE for name in ("mana-dist:0.1.0", "mana-mlflow:0.1.0"))


def part(stage: str) -> str:
    """A stage of the recipe."""
    return re.split(rf"^FROM \S+ AS {stage}$", DOCKERFILE, flags=re.MULTILINE)[1].split("\nFROM ")[0]


def test_the_cluster_launcher_can_use_the_image() -> None:
    """What Ray runs inside the container: rsync for its files, and on the head SSH and the cloud's client."""
    text = part("ray")
    (line,) = re.findall(r"apt-get install .*?$", text, re.MULTILINE)
    assert {"rsync", "openssh-client"} <= set(line.split())
    # Ray asks Docker for HOME to mount the token below it: the user's, who must be able to read it.
    (user,) = re.findall(r"useradd --uid 1000 --create-home (\w+)$", text, re.MULTILINE)
    assert re.search(rf"^ENV (?:.*\\\n)*? *HOME=/home/{user}\b", text, re.MULTILINE)
    (extras,) = re.findall(r"python requirements\.py (.*)> requirements.txt", part("packages"))
    pyproject = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    names = {Requirement(line).name for line in requirements(pyproject, extras.split(), only=False)}
    assert {"google-api-python-client", "google-auth-httplib2", "ray", "deepspeed", "mlflow", "torch"} <= names


def test_requirements_are_pyprojects_and_all_pinned() -> None:
    text = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    project = tomllib.loads(text)["project"]
    assert set(project["dependencies"]) < set(requirements(text, ["serve"], only=False))
    assert requirements(text, ["no such extra"], only=True) == []
    server = requirements(text, ["server"], only=True)
    assert {Requirement(line).name for line in server} >= {"mlflow", "psycopg2-binary", "boto3"}
    pins = (REPOSITORY / "constraints.txt").read_text(encoding="utf-8").lower().replace("_", "-").splitlines()
    everything = requirements(text, ["all"], only=True)
    assert {extra for line in everything if Requirement(line).name == "ray" for extra in Requirement(line).extras} == {
        *("default", "data", "train", "tune", "serve"),
    }
    for line in [*project["dependencies"], *everything, *server, *requirements(text, ["gcp"], only=True)]:
        assert any(pin.startswith(f"{Requirement(line).name.lower()}==") for pin in pins), line


@pytest.mark.skipif(not (all(map(shutil.which, ("gcc", "nm", "objdump")))), reason="needs a C compiler")
def test_tritons_bridge_is_made_without_a_gpu_and_found_without_a_compiler(tmp_path: Path) -> None:
    driver, cache = tmp_path / "driver", tmp_path / "cache"
    driver.mkdir()
    environment = {**os.environ, "TRITON_LIBCUDA_PATH": str(driver), "TRITON_CACHE_DIR": str(cache)}
    script = str(REPOSITORY / "cluster" / "image" / "warm_triton.py")
    done = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert list(driver.iterdir()) == []
    made = list(cache.rglob("cuda_utils*.so"))
    assert len(made) == 2
    for library in made:
        needed = subprocess.run(["objdump", "-p", str(library)], capture_output=True, text=True, check=True).stdout
        assert re.search(r"NEEDED +libcuda\.so\.1", needed)

    # What Triton does at its first use on a GPU, with the library that comes with the driver in place.
    (driver / "libcuda.so.1").touch()
    use = (
        "from triton.backends.nvidia import driver\nfrom triton.runtime import build\n"
        "build._load_module_from_path = lambda name, path: print(path) or exit(0)\n"
        "driver.CudaUtils()\n"
    )
    found = {
        subprocess.run([sys.executable, "-c", use], env=bare, capture_output=True, text=True, check=True).stdout.strip()
        for bare in (environment | {"CC": "no-compiler"}, environment | {"CC": "no-compiler", "PATH": str(tmp_path)})
    }
    assert found <= {str(library) for library in made}
