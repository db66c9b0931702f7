"""What is in the images, and what is not."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.image.asking import OVERLAY
from tests.image.containers import Image, Pod
from tests.k8s.manifests import pod_specs
from tests.video.videos import moving_frames, write_video

# Of Debian's base system and its openssh-client. In the pods they can nothing: none may gain rights.
SETUID = {"chage", "chfn", "chsh", "expiry", "gpasswd", "mount", "newgrp", "passwd", "su", "umount", "unix_chkpwd"}
SETUID |= {"ssh-agent", "ssh-keysign"}
COMPILERS = {"c++", "c89", "c99", "cc", "clang", "g++", "gcc", "tcc"}
# Of users, package managers and builds.
SECRETS = {
    ".aws",
    ".docker",
    ".git",
    ".git-credentials",
    ".kube",
    ".netrc",
    ".pypirc",
    "id_ed25519",
    "id_rsa",
    "pip.conf",
}


@pytest.fixture(scope="module", params=["ray", "mlflow"])
def image(request: pytest.FixtureRequest) -> Image:
    found: Image = request.getfixturevalue(f"{request.param}_image")
    return found


def test_it_runs_as_a_user_without_rights(image: Image) -> None:
    assert image.config["User"] == "1000"
    passwords = (image.root / "etc" / "shadow").read_text().splitlines()
    assert all(line.split(":")[1] in ("*", "!", "!*") for line in passwords)


def test_it_has_no_compiler_no_secret_and_no_program_with_rights_but_debians(image: Image) -> None:
    files = list(everything(image.root))
    assert len(files) > 10_000
    risen = {path.name for path, mode in files if stat.S_ISREG(mode) and mode & (stat.S_ISUID | stat.S_ISGID)}
    assert risen <= SETUID
    assert not {path for path, mode in files if path.name in COMPILERS and mode & 0o111 and "bin" in path.parts}
    assert not {path for path, _ in files if path.name in SECRETS and path.stat(follow_symlinks=False).st_size}
    # What was mounted to build it is not there.
    assert (image.root / "etc" / "ssl" / "certs" / "ca-certificates.crt").read_text().count("BEGIN") > 100
    variables = " ".join(set(image.environment) - {"GPG_KEY"}).upper()  # of Docker's Python: who signed its sources
    assert not [word for word in ("KEY", "PASSWORD", "PROXY", "SECRET", "TOKEN") if word in variables]


def test_nothing_of_the_code_is_the_users(image: Image) -> None:
    """Whoever gets into a container cannot change what it runs, even where the root file system is writable."""
    own = {path.relative_to(image.root) for path, mode in everything(image.root) if belongs(path, mode)}
    kept = ("home", "opt/mana/cache", "tmp", "var/tmp", "run/lock")
    assert [path for path in own if not any(path.is_relative_to(place) for place in kept)] == []


def belongs(path: Path, mode: int) -> bool:
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        return False
    return path.stat(follow_symlinks=False).st_uid == 1000 or bool(mode & stat.S_IWOTH)


def everything(folder: Path) -> Iterator[tuple[Path, int]]:
    """All files and folders below a folder, with their modes."""
    for place, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            path = Path(place, name)
            yield path, path.stat(follow_symlinks=False).st_mode


def test_the_model_in_the_package_upscales_without_any_server(ray_image: Image, folder: Path) -> None:
    spec = dict(pod_specs(OVERLAY))["RayCluster/mana head"]
    data: dict[str, dict[str, str]] = {name: {} for name in ("mana-settings", "mana-s3", "mana-mlflow")}
    with Pod("alone", spec, ray_image, data, folder / "alone") as pod:
        pod.run_first()
        pod.start("ray-head", ["sleep", "1000"])
        pod.wait("ray-head", lambda: pod.run("ray-head", "true").returncode == 0)
        assert "Read-only file system" in pod.run("ray-head", "touch", "/opt/mana/x").stderr
        shown = pod.run("ray-head", "bash", "-lc", "mana --help")
        assert shown.returncode == 0, shown.stderr
        assert all(word in shown.stdout for word in ("ingest", "train", "sweep", "evaluate", "upscale", "serve"))
        write_video(folder / "alone" / "volume-tmp" / "clip.mp4", moving_frames(5, 36, 64, step=2))
        done = pod.run("ray-head", "mana", "upscale", "/tmp/clip.mp4", "/tmp/large.mp4")
        assert done.returncode == 0, done.stderr
        size = "import av; v = av.open('/tmp/large.mp4').streams.video[0]; print(v.width, v.height, v.frames)"
        assert pod.run("ray-head", "python", "-c", size).stdout.split() == ["256", "144", "5"]
        # Compiled with the image, for this processor.
        loaded = "from mana_dist.ops import compiled; print(compiled.library())"
        assert "/_fused_cpu" in pod.run("ray-head", "python", "-c", loaded).stdout
