"""The devices of this machine: one worker for each GPU, or workers on the CPU. Does not import torch."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping

from motionbooth_protocol.errors import InvalidInput

from motionbooth.server.executor import Device

_NVIDIA = ["nvidia-smi", "--query-gpu=index,uuid,name,memory.total", "--format=csv,noheader,nounits"]
_SECONDS = 20.0  # waking the driver may take a while


def local_devices(workers: int | None = None, environment: Mapping[str, str] = os.environ) -> list[Device]:
    """The GPUs that this process may use (CUDA_VISIBLE_DEVICES), at most `workers`; without a GPU, the CPU in `workers`
    shares, by default one.

    Raises InvalidInput if there are fewer GPUs than `workers`.
    """
    gpus = visible(nvidia_gpus(), environment.get("CUDA_VISIBLE_DEVICES"))
    if not gpus:
        return cpu_devices(workers or 1)
    if workers is not None and workers > len(gpus):
        raise InvalidInput(
            "{workers} workers were requested, but this machine has {gpus} GPU(s), and two workers on one GPU would "
            "run out of memory. Use --workers {gpus} or fewer, or leave it out for one worker per GPU.",
            workers=workers,
            gpus=len(gpus),
        )
    return [
        Device(f"gpu-{index}", f"GPU {index}: {title}", {"CUDA_VISIBLE_DEVICES": uuid})
        for index, uuid, title in gpus[:workers]
    ]


def cpu_devices(workers: int) -> list[Device]:
    """The CPU, its cores shared among so many workers."""
    cores = os.cpu_count() or 1
    threads = max(1, cores // workers)
    share = {"OMP_NUM_THREADS": str(threads)} if workers > 1 else {}
    return [Device(f"cpu-{index}", f"CPU, {threads} of {cores} cores", share) for index in range(1, workers + 1)]


Gpu = tuple[str, str, str]  # index, uuid, name and memory


def nvidia_gpus() -> list[Gpu]:
    """All GPUs of the machine; empty without NVIDIA's driver."""
    if shutil.which(_NVIDIA[0]) is None:
        return []
    try:
        found = subprocess.run(_NVIDIA, capture_output=True, text=True, timeout=_SECONDS, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    rows = [[word.strip() for word in line.split(",")] for line in found.splitlines() if line.count(",") == 3]
    return [(index, uuid, _title(name, memory)) for index, uuid, name, memory in rows]


def _title(name: str, mebibytes: str) -> str:
    """Name and memory. GPUs that share the machine's memory report none of their own."""
    return f"{name}, {int(mebibytes) / 1024:.0f} GB" if mebibytes.isdigit() else name


def visible(gpus: list[Gpu], choice: str | None) -> list[Gpu]:
    """The GPUs that CUDA_VISIBLE_DEVICES names by index or UUID, in its order; as in CUDA, up to the first unknown."""
    if choice is None:
        return gpus
    chosen: list[Gpu] = []
    for word in choice.split(","):
        word = word.strip()
        match = [gpu for gpu in gpus if word and (word == gpu[0] or gpu[1].startswith(word))]
        if len(match) != 1:
            break
        chosen += match
    return chosen
