"""The cache of latents, which several workers share."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import platformdirs
import pytest
import torch
from file_sizes import limited_to
from motionbooth.finetuning import latent_cache
from motionbooth.server.worker import error_for_owner
from motionbooth_protocol.errors import OutOfSpace


def test_workers_with_the_same_process_id_write_the_same_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As those in sandboxes have; here they are threads."""
    monkeypatch.setattr(platformdirs, "user_cache_path", lambda name: tmp_path)
    latents = torch.arange(50_000.0).div(50_000).half()
    with ThreadPoolExecutor(8) as workers:
        for round in range(10):
            stored = [workers.submit(latent_cache.store, round, latents) for _ in range(8)]
            assert all(torch.equal(one.result(), latents) for one in stored)
            found = latent_cache.find(round)
            assert found is not None
            assert torch.equal(found, latents)
    assert len(list(tmp_path.rglob("*"))) == 1 + 10, "the folder and the files"


def test_a_full_disk_is_called_that_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platformdirs, "user_cache_path", lambda name: tmp_path)
    with limited_to(10_000), pytest.raises(OSError, match="File too large") as caught:
        latent_cache.store("key", torch.zeros(50_000))
    assert isinstance(error_for_owner(caught.value), OutOfSpace)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    assert latent_cache.find("key") is None
