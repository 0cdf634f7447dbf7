from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytestmark = pytest.mark.desktop


def test_a_first_clip_is_made_with_keys_and_mouse(act: Callable[[str], dict[str, Any]]) -> None:
    seen = act("first_clip.py")
    assert seen["boxes"] == ["Subject Box"]
    assert seen["camera view"] == "CAMERA"
    assert seen["boxes after undo"] == 0
    assert seen["keyed"]
    assert seen["jobs"] == 1
    assert seen["strips"] == ["Scene take 1"]
    assert seen["strips after undo"] == [], "one Ctrl+Z takes a clip away again"
    assert seen["strips after redo"] == ["Scene take 1"]


def test_takes_are_filmed_and_swapped_in_the_sequencer(act: Callable[[str], dict[str, Any]]) -> None:
    seen = act("takes.py")
    assert seen["states while filming"]
    assert seen["mutes"] == [True, True, False]
    assert seen["mutes after swap"] == [False, True, True]
    assert seen["channels"] == [1, 2, 3]
    assert seen["stars"] == [False, True, False]
