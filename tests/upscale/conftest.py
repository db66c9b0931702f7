"""Fixtures of the tests of upscaling."""

from pathlib import Path

import pytest
from pyarrow import fs

from mana_dist import storage


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder behind ``mock://``, which is remote to the code."""
    folder = tmp_path / "bucket"
    folder.mkdir()
    store = fs.SubTreeFileSystem(str(folder), fs.LocalFileSystem())
    local = storage.filesystem
    monkeypatch.setattr(
        "mana_dist.storage.filesystems.filesystem",
        lambda uri: (store, uri.removeprefix("mock://")) if storage.is_remote(uri) else local(uri),
    )
    return folder
