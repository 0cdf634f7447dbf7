from __future__ import annotations

from collections.abc import Iterator

import pytest
from running_backend import Proxy, RunningBackend


@pytest.fixture
def proxy(backend: RunningBackend) -> Iterator[Proxy]:
    """A network between a started backend and its clients."""
    proxy = Proxy(backend.start().connection.address)
    yield proxy
    proxy.close()
