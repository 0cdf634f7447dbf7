"""Every shown text has a German translation, and every translation belongs to a text.

That Blender shows them is tested in a window (tests/gui): the bpy module is built without languages.
"""

from __future__ import annotations

from typing import Any

import pytest
import ui_texts
from motionbooth.models import model_task
from motionbooth.pictures import mask_doubts
from motionbooth.progress import stages

bpy = pytest.importorskip("bpy", reason="needs the bpy module, which exists for Python 3.11 and 3.13")

from motionbooth_addon import registration  # noqa: E402
from motionbooth_addon.capture import shot_warnings  # noqa: E402
from motionbooth_addon.i18n import german, translation  # noqa: E402
from motionbooth_protocol.text import Text, fields  # noqa: E402

KNOWN = {("Operator", text) for text in german.OPERATORS} | {("*", text) for text in german.TEXTS}
BLENDERS = {"Generate", "Overlay", "Custom", "None", "Fine", "Pan"}  # which have German words in Blender itself
BACKEND_STAGES = {name for constant, name in vars(stages).items() if constant.isupper() and isinstance(name, str)}
SAME = {
    "MotionBooth",
    "Backend",
    "Takes",
    "Token",
    "Prompt",
    "Seed",
    "Master",
    "Master: {name}",
    "ProRes 422 HQ",
    "ProRes 4444 XQ",
    "DNxHR HQX",
    "FFV1",
    "ATI",
    "Wan-Move",
    "ComfyUI",
    "VACE",
    "LTX IC-LoRA",
    "CameraCtrl",
    "ReCamMaster",
}  # in every language


# What no request of the extension and no job can cause, by its beginning.
FOR_THE_BACKENDS_OWNER = (
    "{doubts}. Look at", "{request} has no payload", "A file is named by its sha256", "Another backend is running on",
    "Each worker needs {each:g} GPUs", "No Ray cluster answers at", "Only admins can list the jobs", "The Ray executor",
    "{folder} has no {", "{folder} has {hub}", "{folder} lacks {path}", "{out} already exists",
    "The spatial layers of this checkpoint", "The job store {path}",
    "Several users have a job",
)  # fmt: skip


def test_every_shown_text_has_a_translation(registered: Any) -> None:
    shown = {*ui_texts.of_blender(registration.CLASSES), *ui_texts.of_sources()}
    missing = {(context, text) for context, text in shown - KNOWN if text not in SAME | BLENDERS and _has_words(text)}
    assert missing == set()


def test_every_error_of_a_backend_that_blender_may_show_has_a_translation(registered: Any) -> None:
    assert len(ui_texts.of_backend()) > 80
    missing = {text for text in ui_texts.of_backend() - german.TEXTS.keys() if _has_words(text)}
    assert {text for text in missing if not text.startswith(FOR_THE_BACKENDS_OWNER)} == set()


def _has_words(text: str) -> bool:
    return any(letter.isalpha() for letter in Text(text, dict.fromkeys(fields(text), "")).filled(text, str))


def test_every_translation_belongs_to_a_text(registered: Any) -> None:
    reports = BACKEND_STAGES | {"starting the worker"} | set(model_task.STAGES)
    reports |= ui_texts.of_backend() | {"its mask", "its alpha", "the subject found in it"}
    states = {state.capitalize() for state in ("waiting", "sending", "queued", "running", "done", "failed", "canceled")}
    shown = {text for _, text in ui_texts.of_blender(registration.CLASSES)}
    assert {text for _, text in KNOWN} - shown - ui_texts.all_of_sources() - reports - states == set()


def test_every_stage_of_a_backends_job_is_translated() -> None:
    assert len(BACKEND_STAGES) > 9
    assert german.TEXTS.keys() >= BACKEND_STAGES | set(model_task.STAGES)


@pytest.mark.parametrize("words", [german.OPERATORS, german.TEXTS])
def test_a_translation_has_the_fields_of_its_text(words: dict[str, str]) -> None:
    assert [text for text, translation in words.items() if fields(text) != fields(translation)] == []
    assert not [text for text, translation in words.items() if not translation.strip()]


@pytest.fixture
def in_german(monkeypatch: pytest.MonkeyPatch) -> None:
    """The look-up alone is replaced: the bpy module is built without languages."""
    monkeypatch.setattr(translation, "_look_up", lambda template: german.TEXTS.get(template, template))


def test_values_are_filled_into_the_translation(in_german: None) -> None:
    text = Text.of(
        'The scene no longer has the subject "{subject}". Choose it from the trained subjects.', subject="{}"
    )
    assert translation.translate(text) == german.TEXTS[text.template].replace("{subject}", "{}")
    assert translation.translate("Frame {frame}", frame=7) == "Bild 7"


def test_texts_among_the_values_are_translated(in_german: None) -> None:
    (found,) = shot_warnings.subject_warnings("Imp", [None, None], [True, True], [1.0, 9.0])
    assert translation.translate(found.sentence).startswith("„Imp“ ist von Bild 1 bis 9 hinter der Kamera")


def test_every_reason_to_doubt_a_mask_is_translated(in_german: None) -> None:
    picture = Text.of("picture {number} of {count} ({name})", number=2, count=3, name="a.jpg")
    reasons = [value for value in vars(mask_doubts).values() if isinstance(value, Text)]
    assert len(reasons) == 5
    for reason in reasons:
        text = Text.of("The mask of {picture} may be wrong: {reason}.", picture=picture, reason=reason)
        said = translation.translate(text)
        assert said.startswith("Die Maske von Bild 2 von 3 (a.jpg) ")
        assert reason.template not in said


def test_an_unknown_text_and_another_language_are_left_as_they_are(registered: Any, in_german: None) -> None:
    assert translation.translate("Nobody knows {this}.", this="it") == "Nobody knows it."


def test_english_stays_as_it_is(registered: Any) -> None:
    assert translation.translate("Frame {frame}", frame=7) == "Frame 7"
