from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from running_backend import RunningBackend

# Programs that the tests start must hear Ctrl+C, also where the suite runs in the background and does not.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def backend(tmp_path: Path) -> Iterator[RunningBackend]:
    """A server of the test's own, not started yet."""
    backend = RunningBackend(tmp_path / "home")
    yield backend
    backend.end()


@pytest.fixture(scope="module")
def shared_backend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningBackend]:
    """One running server for all tests of a file that do not harm it."""
    backend = RunningBackend(tmp_path_factory.mktemp("shared") / "home").start()
    yield backend
    backend.end()


@pytest.fixture
def gpu() -> str:
    """Torch's name of the accelerator: cuda (also for ROCm), xpu or mps. For tests marked `gpu`."""
    import torch

    found = torch.accelerator.current_accelerator()
    assert found is not None
    return found.type


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tests marked `gpu` where there is none."""
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if not marked:
        return
    import torch

    if not torch.accelerator.is_available():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="needs a GPU"))
