from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytestmark = pytest.mark.desktop


def test_the_view_shows_what_the_framing_adds_and_cuts(act: Callable[[str], dict[str, Any]]) -> None:
    """A shot of 2.4:1 for a model of 3:2; the panels with the framing's sentence are drawn without a failure."""
    seen = act("framing.py")
    beyond = (2.4 / 1.5 - 1) / 2
    assert seen["FIT"]["frame"] == pytest.approx([0, -beyond, 1, 1 + beyond], abs=1e-6)
    inside = (1 - 1.5 / 2.4) / 2
    assert seen["CROP"]["frame"] == pytest.approx([inside, 0, 1 - inside, 1], abs=1e-6)
    assert seen["FIT"]["shaded"]
    assert seen["FIT"]["outlined"]
    assert seen["CROP"]["shaded"]
    assert seen["CROP"]["outlined"]
