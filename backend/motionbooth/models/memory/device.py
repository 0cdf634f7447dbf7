"""The device that computes, by torch's own names: cuda (also for ROCm), xpu, mps or cpu."""

from __future__ import annotations

from typing import Any

import torch


def found_device() -> str:
    """The accelerator that torch finds, otherwise the CPU."""
    if not torch.accelerator.is_available():
        return "cpu"
    found = torch.accelerator.current_accelerator()
    return "cpu" if found is None else found.type


def default_device() -> str:
    """The accelerator if there is one, otherwise the CPU. A Mac's MPS only computes if it is asked to (`--device mps`):
    nothing has been measured on it.
    """
    found = found_device()
    return "cpu" if found == "mps" else found


def free_bytes(device: str) -> int | None:
    """Free memory of an accelerator; None for the CPU. Memory that torch keeps for reuse is returned to it first."""
    kind = device.partition(":")[0]
    if kind == "cpu":
        return None
    backend: Any = getattr(torch, kind)
    backend.empty_cache()
    if kind == "mps":
        return int(backend.recommended_max_memory() - backend.driver_allocated_memory())
    return int(backend.mem_get_info()[0])


def forget_peak(device: str) -> None:
    """Start a new measurement of `peak_bytes`."""
    backend: Any = getattr(torch, device.partition(":")[0])
    if hasattr(backend, "reset_peak_memory_stats"):
        backend.reset_peak_memory_stats()


def peak_bytes(device: str) -> int | None:
    """The most memory that torch has had in use on an accelerator; None where torch does not count it (CPU, MPS)."""
    backend: Any = getattr(torch, device.partition(":")[0])
    return int(backend.max_memory_allocated()) if hasattr(backend, "max_memory_allocated") else None


def free_unused() -> None:
    """Give memory that no tensor needs back to the system."""
    free_bytes(found_device())
