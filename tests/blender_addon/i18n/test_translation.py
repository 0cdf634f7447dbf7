"""The German texts belong to texts that there are, and all that a person sees has one.

That Blender shows them is tested in a window (tests/gui): the bpy module is built without languages.
"""

from __future__ import annotations

from typing import Any

import pytest
import ui_texts
from motionbooth.pictures.mask_doubts import REASONS
from motionbooth.progress import stages

bpy = pytest.importorskip("bpy", reason="needs the bpy module, which exists for Python 3.11 and 3.13")

from motionbooth_addon import registration  # noqa: E402
from motionbooth_addon.capture import shot_warnings  # noqa: E402
from motionbooth_addon.i18n import german, translation  # noqa: E402

KNOWN = {("Operator", text) for text in german.OPERATORS} | {("*", text) for text in german.TEXTS | german.PHRASES}
BLENDERS = {"Generate", "Overlay", "Custom", "Fine", "Pan"}  # which have German words in Blender itself
BACKEND_STAGES = {name for constant, name in vars(stages).items() if constant.isupper() and isinstance(name, str)}
SAME = {"MotionBooth", "Backend", "Takes", "Token", "Prompt", "Seed"}  # in every language


def test_every_shown_text_has_a_translation(registered: Any) -> None:
    shown = {*ui_texts.of_blender(registration.CLASSES), *ui_texts.of_sources()}
    missing = {(context, text) for context, text in shown - KNOWN if text not in SAME | BLENDERS and _has_words(text)}
    assert missing == set()


def _has_words(text: str) -> bool:
    return any(letter.isalpha() for letter in text.replace("{}", ""))


def test_every_translation_belongs_to_a_text(registered: Any) -> None:
    reports = BACKEND_STAGES | {"starting the worker"}
    reports |= {f"The mask of {{}} may be wrong: {reason}." for reason in REASONS} | {"picture {} of {} ({})"}
    states = {state.capitalize() for state in ("waiting", "sending", "queued", "running", "done", "failed", "canceled")}
    shown = {text for _, text in ui_texts.of_blender(registration.CLASSES)}
    assert {text for _, text in KNOWN} - shown - ui_texts.all_of_sources() - reports - states == set()


def test_every_stage_of_a_backends_job_is_translated() -> None:
    assert len(BACKEND_STAGES) > 9
    assert german.TEXTS.keys() >= BACKEND_STAGES


@pytest.mark.parametrize("words", [german.OPERATORS, german.TEXTS, german.PHRASES])
def test_a_translation_fills_in_as_much_as_its_text(words: dict[str, str]) -> None:
    assert [text for text, said in words.items() if text.count("{}") != said.count("{}")] == []
    assert not [text for text, said in words.items() if not said.strip()]


def test_a_sentence_keeps_what_was_filled_in() -> None:
    sentence = 'The scene has no subject "Film {}" any more; choose it from the trained subjects.'
    text, parts = translation._match(sentence, tuple(german.TEXTS))
    assert parts == ("Film {}",)
    said = german.TEXTS[text].format(*parts)
    assert said == "Die Szene hat kein Motiv „Film {}“ mehr; es aus den gelernten Motiven wählen."


def test_warnings_are_found_with_their_frames() -> None:
    (found,) = shot_warnings.track_concerns("Imp", [None, None], [True, True], [1.0, 9.0])
    text, parts = translation._match(found.sentence, tuple(german.TEXTS))
    assert parts == ("Imp", "from frame 1 to 9")
    assert translation._match(parts[1], tuple(german.PHRASES)) == ("from frame {} to {}", ("1", "9"))
    assert "hinter der Kamera" in german.TEXTS[text]


def test_an_unknown_sentence_and_another_language_are_left_as_they_are(registered: Any) -> None:
    assert translation.told("Nobody knows this.") == "Nobody knows this."
    assert translation.told("Not connected") == "Not connected"
    assert translation._told("Nobody knows this.", "de_DE") == "Nobody knows this."


def test_all_doubts_that_a_backend_has_about_a_mask_are_translated() -> None:
    for reason in REASONS:
        text, parts = translation._match(
            f"The mask of picture 2 of 3 (a.jpg) may be wrong: {reason}.", tuple(german.TEXTS)
        )
        assert reason in text
        assert translation._match(parts[0], tuple(german.PHRASES)) == ("picture {} of {} ({})", ("2", "3", "a.jpg"))
