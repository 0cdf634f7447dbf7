from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from motionbooth.bench.measures import BenchResult, Measure, publish

pytestmark = pytest.mark.desktop


def test_overlay_and_cage(act: Callable[[str], dict[str, Any]]) -> None:
    """Drawn when on, gone when off, its cost published; the cage follows the mouse and is undone."""
    seen = act("overlay.py")
    publish_figure(seen["overlay_ms"])
    assert seen["subjects"] == 5
    assert (seen["handlers when off"], seen["handlers when on"]) == (0, 2)

    before, moved, scaled = (seen[name] for name in ("box", "moved", "scaled"))
    share = seen["share of 60 pixels"]
    assert moved[0] - before[0] == pytest.approx(share, abs=0.01)
    assert moved[2] - before[2] == pytest.approx(share, abs=0.01)
    assert moved[1] > before[1]
    assert scaled[:2] == pytest.approx(moved[:2], abs=1e-3)
    assert scaled[2] - moved[2] == pytest.approx(share, abs=0.01)
    assert seen["scaling undone"] == pytest.approx(moved, abs=1e-4)
    assert seen["all undone"] == pytest.approx(before, abs=1e-4)


def publish_figure(milliseconds: float) -> None:
    """As the benches do; into GUI_PICTURES, where that names a folder."""
    folder = os.environ.get("GUI_PICTURES")
    figures = BenchResult("overlay", [Measure("overlay_ms", milliseconds, "ms")])
    publish(figures, Path(folder) / "overlay.json" if folder else None)
