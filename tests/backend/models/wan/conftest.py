"""One tiny Wan model of each kind, saved once."""

from __future__ import annotations

import pytest
from motionbooth.models.base import Base
from motionbooth.models.registry import load_base
from motionbooth.models.sources import Source
from tiny_wan import save_wan


@pytest.fixture(scope="session")
def wan_source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    return save_wan(tmp_path_factory.mktemp("wan") / "model")


@pytest.fixture(scope="session")
def wan22_source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    """With two experts, and UniPC as published."""
    return save_wan(tmp_path_factory.mktemp("wan22") / "model", "unipc", experts=2)


@pytest.fixture
def wan(wan_source: Source) -> Base:
    return load_base(wan_source, device="cpu")
