"""Fixtures: ``cloud``, an Azure of one test's own, and ``ground``, shared by the session."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cloud.cloud import Cloud, Ground


@pytest.fixture(scope="session")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    """A certificate authority and one Azurite for the whole session."""
    with Ground(tmp_path_factory.mktemp("authority")) as ground:
        yield ground


@pytest.fixture
def cloud(ground: Ground, tmp_path: Path) -> Iterator[Cloud]:
    """A fresh cloud; ``cloud.apply(monkeypatch)`` leads this process into it."""
    with Cloud(tmp_path / "cloud", ground) as cloud:
        yield cloud
