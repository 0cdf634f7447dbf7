from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
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


def test_a_new_user_starts_the_local_backend_and_films(act: Callable[[str], dict[str, Any]]) -> None:
    """With nothing but the zip, Blender's search, keys, and the model that comes with the backend."""
    seen = act("start.py")
    assert (seen["link before"], seen["link at once"]) == ("NONE", "STARTING")
    assert seen["keyed"]
    assert seen["takes"] == ["Scene take 1"]


def test_a_subject_is_trained_on_pictures_from_the_file_browser_and_on_a_3d_object(
    act: Callable[[str], dict[str, Any]],
) -> None:
    seen = act("subjects.py")
    assert not seen["may train before"], "there is nothing to learn it from yet"
    assert seen["display"] == "THUMBNAIL"
    assert Path(seen["pictures"]).name == "toys"
    assert seen["pictures after undo"] == ""
    assert seen["jobs"] == [["Rex", "done"]]
    assert seen["trained"] == [["Rex", True]], "listed with its picture"
    assert seen["states"] == ["done", "done"]


def test_takes_are_starred_swapped_and_compared_by_clicks_and_each_is_undone(
    act: Callable[[str], dict[str, Any]],
) -> None:
    seen = act("takes.py")
    assert seen["states while filming"]
    assert seen["mutes"] == [True, True, False]
    assert seen["channels"] == [1, 2, 3]
    filmed = {"starred": [False] * 3, "muted": [True, True, False], "cropped": [0] * 3}
    starred = {**filmed, "starred": [False, True, False]}
    swapped = {**starred, "muted": [False, True, True]}
    assert seen["star"] == starred
    assert seen["swap"] == swapped
    assert seen["compare"] == {**swapped, "muted": [False, True, False], "cropped": [0, 0, 48]}
    assert (seen["compare undone"], seen["swap undone"], seen["star undone"]) == (swapped, starred, filmed)
    assert seen["pictures"] == [["MOVIE", True, 48], ["IMAGE", False, 48]]
    assert seen["camera"] == [True, 1]


def test_the_extension_speaks_german_as_blender_does(act: Callable[[str], dict[str, Any]]) -> None:
    """Every text of the dictionary, what is filled in, errors; and nothing is left when it is disabled."""
    seen = act("in_german.py")
    assert seen["wrong"] == []
    assert seen["warning"] == "„Rex“ ist von Bild 1 bis 9 hinter der Kamera; dort ist es nicht zu sehen."
    assert "erst eine Klasse geben" in seen["refusal"]
    assert seen["left"] == []
