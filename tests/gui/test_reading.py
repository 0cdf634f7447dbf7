from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytestmark = pytest.mark.desktop


def test_readings_finish_while_the_window_stays_responsive(act: Callable[[str], dict[str, Any]]) -> None:
    """Blender's own updates after a slice do not count as changes, which would start the reading over."""
    seen = act("reading.py")
    assert (seen["long"]["last"], seen["long"]["again"]) == (4000, 0)
    assert seen["unplayed"]["incomplete"]
    assert seen["unplayed"]["again"] == 0
    assert not seen["played"]["incomplete"]
    assert seen["played"]["falls"] > 0.2
    assert seen["played"]["again"] == 0
    assert seen["frame"] == 9
