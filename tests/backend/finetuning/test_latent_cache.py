"""The cache of latents, which several workers share."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import platformdirs
import pytest
import torch
from motionbooth.finetuning import latent_cache


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
