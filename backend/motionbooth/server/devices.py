"""What this machine can compute on, and so how many workers it has. Loads no torch: the server asks, too."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping

from motionbooth_protocol.errors import InvalidInput

from motionbooth.server.local_executor import Place

_NVIDIA = ["nvidia-smi", "--query-gpu=index,uuid,name,memory.total", "--format=csv,noheader,nounits"]
_SECONDS = 20.0  # a driver that sleeps takes its time


def local_places(workers: int | None = None, environment: Mapping[str, str] = os.environ) -> list[Place]:
    """A place for each GPU that this process may use (CUDA_VISIBLE_DEVICES), at most `workers`; without a GPU,
    `workers` places on the CPU, by default one.

    Raises InvalidInput where more workers are asked for than there are GPUs.
    """
    gpus = visible(nvidia_gpus(), environment.get("CUDA_VISIBLE_DEVICES"))
    if not gpus:
        return cpu_places(workers or 1)
    if workers is not None and workers > len(gpus):
        raise InvalidInput(
            f"{workers} workers were asked for, and this machine has {len(gpus)} GPU(s) for them: two on one GPU would "
            f"run out of its memory. Use --workers {len(gpus)} or fewer, or none for one worker on each."
        )
    return [
        Place(f"gpu-{index}", f"GPU {index}: {title}", {"CUDA_VISIBLE_DEVICES": uuid})
        for index, uuid, title in gpus[:workers]
    ]


def cpu_places(workers: int) -> list[Place]:
    """Workers that share the machine's cores."""
    cores = os.cpu_count() or 1
    threads = max(1, cores // workers)
    share = {"OMP_NUM_THREADS": str(threads)} if workers > 1 else {}
    return [Place(f"cpu-{number}", f"CPU, {threads} of {cores} cores", share) for number in range(1, workers + 1)]


Gpu = tuple[str, str, str]  # index, uuid, name and memory


def nvidia_gpus() -> list[Gpu]:
    """All GPUs that the driver knows; none where there is no driver."""
    if shutil.which(_NVIDIA[0]) is None:
        return []
    try:
        found = subprocess.run(_NVIDIA, capture_output=True, text=True, timeout=_SECONDS, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    rows = [[word.strip() for word in line.split(",")] for line in found.splitlines() if line.count(",") == 3]
    return [(index, uuid, _title(name, memory)) for index, uuid, name, memory in rows]


def _title(name: str, mebibytes: str) -> str:
    """Some GPUs share the machine's memory and tell none of their own."""
    return f"{name}, {int(mebibytes) / 1024:.0f} GB" if mebibytes.isdigit() else name


def visible(gpus: list[Gpu], choice: str | None) -> list[Gpu]:
    """Those that CUDA_VISIBLE_DEVICES names, by index or by uuid, in its order; as in CUDA, up to the first unknown."""
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
