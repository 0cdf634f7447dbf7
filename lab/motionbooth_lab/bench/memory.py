"""Peak memory of a function in this process, as counted by torch's CPU allocator."""

import os
from collections.abc import Callable
from typing import Any

from torch.profiler import ProfilerActivity, profile


def peak_bytes(work: Callable[[], Any]) -> int:
    """Peak size of the tensors that `work` allocates; tensors that existed before are not counted."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # or the profiler logs when it starts and stops
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        work()
    level = peak = 0
    assert profiler.profiler is not None
    for event in profiler.profiler.kineto_results.events():
        if event.name() == "[memory]":
            level += event.nbytes()
            peak = max(peak, level)
    return peak
