from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.desktop


def test_a_first_clip_is_generated_with_keys_and_mouse(act: Callable[[str], dict[str, Any]]) -> None:
    seen = act("first_clip.py")
    assert seen["boxes"] == ["Subject Box"]
    assert seen["camera view"] == "CAMERA"
    assert seen["boxes after undo"] == 0
    assert seen["keyed"]
    assert seen["jobs"] == 1
    assert seen["strips"] == ["Scene take 1"]
    assert seen["strips after undo"] == [], "one Ctrl+Z takes a clip away again"
    assert seen["strips after redo"] == ["Scene take 1"]


def test_a_new_user_starts_the_local_backend_and_generates_a_clip(act: Callable[[str], dict[str, Any]]) -> None:
    """With nothing but the zip, Blender's search, keys, and the model that comes with the backend."""
    seen = act("start.py")
    assert (seen["link before"], seen["link at once"]) == ("NONE", "STARTING")
    assert seen["keyed"]
    assert seen["takes"] == ["Scene take 1"]


def test_without_a_backend_the_installation_is_confirmed_and_can_be_canceled(
    act: Callable[[str], dict[str, Any]],
) -> None:
    seen = act("installing.py")
    assert seen["stage before it is agreed to"] == "", "nothing is installed before it was agreed to"
    assert "creating an environment" in seen["stages"]
    assert seen["longest hold"] < 2, "the window stays alive: making the environment alone takes several seconds"
    assert "canceled" in seen["notice"]


def test_a_subject_is_trained_on_images_and_on_a_training_object(
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


def test_the_scene_guides_and_is_rendered_again_only_after_a_change(act: Callable[[str], dict[str, Any]]) -> None:
    seen = act("guide.py")
    first, idle, moved, again = seen["guides"]
    assert idle == first, "an idle window forgets nothing, and reading the shot is no change"
    assert len({first, moved, again}) == 3
    assert all(files == ["guide.png", "masks.png", "preview.png"] for files in seen["files"])


def test_styles_are_listed_each_with_its_strength(act: Callable[[str], dict[str, Any]], tmp_path: Path) -> None:
    seen = act("styles.py")
    assert seen["styles"] == [["style 1.safetensors", 1], ["style 2.safetensors", -0.5]]
    none, two = (
        np.asarray(Image.open(tmp_path / f"{name}.png").convert("RGB")) for name in ("no_styles", "two_styles")
    )
    assert (none != two)[PANEL].any(axis=-1).sum() > 2000, "four more rows"


def test_takes_are_starred_switched_and_compared_by_clicks_and_each_step_is_undone(
    act: Callable[[str], dict[str, Any]],
) -> None:
    seen = act("takes.py")
    assert seen["states while generating"]
    assert seen["mutes"] == [True, True, False]
    assert seen["channels"] == [1, 2, 3]
    generated = {"starred": [False] * 3, "muted": [True, True, False], "cropped": [0] * 3}
    starred = {**generated, "starred": [False, True, False]}
    swapped = {**starred, "muted": [False, True, True]}
    assert seen["star"] == starred
    assert seen["swap"] == swapped
    assert seen["compare"] == {**swapped, "muted": [False, True, False], "cropped": [0, 0, 48]}
    assert (seen["compare undone"], seen["swap undone"], seen["star undone"]) == (swapped, starred, generated)
    assert seen["pictures"] == [["MOVIE", True, 48], ["IMAGE", False, 48]]
    assert seen["camera"] == [True, 1]


def test_the_interface_is_german_in_a_german_blender(act: Callable[[str], dict[str, Any]]) -> None:
    """All texts, with values and in errors; no translation is left after the extension is disabled."""
    seen = act("in_german.py")
    assert seen["wrong"] == []
    assert seen["warning"] == "„Rex“ ist von Bild 1 bis 9 hinter der Kamera und nicht zu sehen."
    assert "zuerst eine Klasse" in seen["refusal"]
    assert seen["left"] == []


def test_the_window_shows_what_happens(act: Callable[[str], dict[str, Any]], tmp_path: Path) -> None:
    """Clicks on Start never stop the backend; words are readable on white; a new job, a large preview and a backend
    that died are on the screen.
    """
    seen = act("desk.py")
    assert seen["link after a click"] in {"STARTING", "CONNECTING", "CONNECTED"}
    assert (seen["link after more clicks"], seen["link after Esc"]) == ("CONNECTED", "CONNECTED")
    pictures = {name: np.asarray(Image.open(tmp_path / f"{name}.png").convert("RGB"), dtype=int) for name in PICTURES}
    assert pictures["light"].mean() > 100, "a light picture"
    x, y = map(round, seen["label"])
    under = pictures["light"][y - 14 : y + 4, x - 2 : x + 30].reshape(-1, 3)
    assert under.min() < 110 and under.max() > 220, "white words on a dark backing"  # noqa: PT018
    assert seen["jobs at once"][0][1] in {"sending", "queued", "running"}
    assert seen["chosen"] == 0
    assert (pictures["after_generate"] != pictures["before_generate"])[PANEL].any(axis=-1).sum() > 2000
    for name, least in (("preview", 20_000), ("preview_large", 100_000)):
        assert green(pictures[name]) > least, f"{name}: {green(pictures[name])} pixels"
    assert set(seen["stages when dead"]) == {""}


PICTURES = ("light", "before_generate", "after_generate", "preview", "preview_large", "dead")
PANEL = (slice(80, 800), slice(1040, 1300))  # where the sidebar is in the window, rows and columns


def green(picture: np.ndarray) -> int:
    """Pixels of the middle frame of the drawing backend's previews."""
    red, greens, blue = (picture[..., channel] for channel in range(3))
    return int(((greens > 120) & (red < 90) & (blue < 90)).sum())
