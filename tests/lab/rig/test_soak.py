from __future__ import annotations

import pytest
from motionbooth_lab.rig.soak import soak
from rich.console import Console


@pytest.mark.slow
def test_a_minute_of_random_faults_loses_nothing_and_leaks_nothing() -> None:
    result = soak(1.0, seed=1, jobs_per_minute=0, console=Console(quiet=True))
    assert result.value("jobs_lost") == 0
    assert result.value("jobs_done") > 10
    assert result.value("faults") > 10
    assert result.value("memory_growth_mb") < 10
    assert abs(result.value("descriptor_growth")) < 10
    assert abs(result.value("thread_growth")) < 4
