"""The machine's accelerator by torch's own names: a CUDA, ROCm, MPS or XPU device, its clock and its memory."""

from __future__ import annotations

import gc
import hashlib
import platform
import subprocess
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import motionbooth_protocol
import pynvml
import torch
from motionbooth_protocol.errors import InvalidInput
from msgspec import Struct

import motionbooth
from motionbooth.models.memory.device import forget_peak, found_device, free_unused, peak_bytes


class Card(Struct, frozen=True):
    """What the figures of a run belong to. Figures of two runs are put together if all of this is equal."""

    name: str
    kind: str
    """cuda, rocm, mps or xpu."""
    driver: str
    memory_gb: float
    """Of the card, in units of 10^9 bytes; on MPS, what the system recommends as the most for the GPU."""
    torch: str
    version: str
    """Of MotionBooth: its release, and a hash of its code."""


def accelerator() -> torch.device:
    """The device that torch would use. Raises InvalidInput if there is none."""
    found = found_device()
    if found == "cpu":
        raise InvalidInput(
            "This bench needs a GPU (CUDA, ROCm, MPS or XPU) and torch finds none here; `motionbooth doctor` says more."
        )
    return torch.device(found)


def card_of(device: torch.device) -> Card:
    """Its first card, if it has several."""
    name, driver, memory = _DESCRIBED[device.type]()
    kind = "rocm" if device.type == "cuda" and torch.version.hip else device.type
    return Card(name, kind, driver, memory / 1e9, str(torch.__version__), f"{version('motionbooth')} ({code_hash()})")


def _cuda() -> tuple[str, str, int]:
    properties = torch.cuda.get_device_properties(0)
    return properties.name, _hip_driver() if torch.version.hip else _nvidia_driver(), properties.total_memory


def _nvidia_driver() -> str:
    try:
        pynvml.nvmlInit()
        driver = pynvml.nvmlSystemGetDriverVersion()
        pynvml.nvmlShutdown()
    except pynvml.NVMLError:  # torch works without NVML
        driver = "unknown"
    return f"{driver}, CUDA {torch.version.cuda}"


def _hip_driver() -> str:
    """The kernel module's version, which a module that came with the kernel does not have."""
    module = Path("/sys/module/amdgpu/version")
    return f"{module.read_text().strip() if module.exists() else platform.release()}, HIP {torch.version.hip}"


def _mps() -> tuple[str, str, int]:
    """The driver is a part of the system."""
    asked = ["sysctl", "-n", "machdep.cpu.brand_string"]
    name = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    return name, f"macOS {platform.mac_ver()[0]}", torch.mps.recommended_max_memory()


def _xpu() -> tuple[str, str, int]:
    properties = torch.xpu.get_device_properties(0)
    return properties.name, properties.driver_version, properties.total_memory


def _cpu() -> tuple[str, str, int]:
    """Only tests measure a CPU."""
    return platform.machine(), platform.release(), 0


_DESCRIBED: dict[str, Callable[[], tuple[str, str, int]]] = {"cuda": _cuda, "mps": _mps, "xpu": _xpu, "cpu": _cpu}


def code_hash() -> str:
    """Eight hexadecimal digits that change with the backend's or the protocol's code."""
    found = hashlib.sha256()
    for package in (motionbooth, motionbooth_protocol):
        folder = Path(package.__path__[0])
        for path in sorted(folder.rglob("*.py")):
            found.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return found.hexdigest()[:8]


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all that it was given."""
    if device.type != "cpu":
        torch.accelerator.synchronize()


def seconds_on(device: torch.device, work: Callable[[], Any]) -> float:
    synchronize(device)
    began = time.perf_counter()
    work()
    synchronize(device)
    return time.perf_counter() - began


def peak_gb(device: torch.device, work: Callable[[], Any]) -> float | None:
    """The most memory of tensors on the device during `work`, in units of 10^9 bytes; None on a CPU, which counts none.

    MPS counts no peak: there, what its allocator holds afterwards, which returns nothing before it is told to.
    """
    free_memory(device)
    if device.type == "cpu":
        work()
        return None
    forget_peak(device.type)
    work()
    peak = torch.mps.driver_allocated_memory() if device.type == "mps" else peak_bytes(device.type)
    return None if peak is None else peak / 1e9


def free_memory(device: torch.device) -> None:
    """Return what no tensor needs any more."""
    if device.type != "cpu":
        gc.collect()
        free_unused()
