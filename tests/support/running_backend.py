"""The rig of the benches and the soak, under the name by which the tests know it."""

from motionbooth_lab.rig.backend import (
    SHOT,
    RunningBackend,
    free_port,
    is_running,
    large_job,
    small_job,
    stored,
    wait_until,
)
from motionbooth_lab.rig.proxy import Proxy

__all__ = [
    "SHOT",
    "Proxy",
    "RunningBackend",
    "free_port",
    "is_running",
    "large_job",
    "small_job",
    "stored",
    "wait_until",
]
