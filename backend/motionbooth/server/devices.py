"""The devices of this machine: one worker for each GPU, or workers on the CPU. Does not import torch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import pynvml
from motionbooth_protocol.errors import InvalidInput

from motionbooth.server.executor import Device


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
    """All GPUs of the machine, as NVIDIA's driver lists them; empty without the driver."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    try:
        handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
        return [(str(index), pynvml.nvmlDeviceGetUUID(gpu), _title(gpu)) for index, gpu in enumerate(handles)]
    except pynvml.NVMLError:
        return []
    finally:
        pynvml.nvmlShutdown()


def _title(gpu: Any) -> str:
    """Name and memory. GPUs that share the machine's memory report none of their own."""
    name = pynvml.nvmlDeviceGetName(gpu)
    try:
        return f"{name}, {pynvml.nvmlDeviceGetMemoryInfo(gpu).total / 2**30:.0f} GB"
    except pynvml.NVMLError:
        return name


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
