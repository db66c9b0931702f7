"""Storage that fails is not tried again in these tests, unless they set the patience themselves."""

import pytest

from mana_dist.storage.retry import persistently


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(persistently, "__kwdefaults__", {"patience": 0})
