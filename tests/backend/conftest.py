"""The tiny pipeline on which the golden values were recorded, and the values themselves."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from motionbooth.models.base import Base
from motionbooth.models.post_processing import INTERPOLATOR, UPSCALER
from motionbooth.models.registry import load_base
from motionbooth.models.sources import Source
from tiny_wan import save_wan

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture(autouse=True)
def same_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a command of the product leaves in the environment ends with its test, as it does with its process."""
    for name in (INTERPOLATOR, UPSCALER):
        monkeypatch.setenv(name, "")  # so that the variable is absent again afterward
        monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def golden() -> Callable[[str], tuple[dict[str, np.ndarray], Any]]:
    """Arrays and JSON recorded under a name."""

    def read(name: str) -> tuple[dict[str, np.ndarray], Any]:
        with np.load(GOLDEN / f"{name}.npz") as arrays:
            return dict(arrays), json.loads((GOLDEN / f"{name}.json").read_text())

    return read


@pytest.fixture(scope="session")
def tiny_source() -> Source:
    folder = GOLDEN / "tiny_pipeline"
    return Source("tiny", folder, folder / "motionbooth.json")


@pytest.fixture
def tiny(tiny_source: Source) -> Base:
    """The tiny base in float64, as the golden values were recorded; its own for every test."""
    return load_base(tiny_source, device="cpu", dtype=torch.float64)


@pytest.fixture
def tiny_single(tiny_source: Source) -> Base:
    """The tiny base in float32, as the product runs it on a CPU."""
    return load_base(tiny_source, device="cpu")


@pytest.fixture(scope="session")
def wan_source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    """A tiny Wan with random weights."""
    return save_wan(tmp_path_factory.mktemp("wan") / "model")


@pytest.fixture(scope="session")
def wan22_source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    """With two experts, and UniPC as published."""
    return save_wan(tmp_path_factory.mktemp("wan22") / "model", "unipc", experts=2)


@pytest.fixture
def wan(wan_source: Source) -> Base:
    return load_base(wan_source, device="cpu")


@pytest.fixture(scope="session")
def ray_address() -> Iterator[str]:
    """A Ray cluster on this machine, with room for two workers at least."""
    pytest.importorskip("ray", reason="Ray is not installed: pip install motionbooth[ray]")
    from ray.cluster_utils import Cluster

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cluster = Cluster(
            initialize_head=True,
            head_node_args={"num_cpus": 4, "include_dashboard": False, "object_store_memory": 80_000_000},
        )
    yield cluster.address
    cluster.shutdown()


@pytest.fixture
def tiny_model(tmp_path: Path, tiny_source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny base, in the models folder."""
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "tiny").symlink_to(tiny_source.folder)
    monkeypatch.setenv("MOTIONBOOTH_MODELS", str(tmp_path / "models"))
