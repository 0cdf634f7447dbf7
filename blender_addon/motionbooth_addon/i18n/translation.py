"""The extension in other languages. Blender looks up plain labels itself; `translate` is for text with values in it."""

from __future__ import annotations

import bpy

from .. import __package__ as base_package
from .._protocol.text import Text
from . import german

# By Blender's names of the languages, of which the second came with later versions.
LANGUAGES = {"de_DE": german, "de": german}


def register() -> None:
    texts = {
        language: {
            **{("Operator", text): translation for text, translation in words.OPERATORS.items()},
            **{("*", text): translation for text, translation in words.TEXTS.items()},
        }
        for language, words in LANGUAGES.items()
    }
    bpy.app.translations.register(base_package, texts)


def unregister() -> None:
    bpy.app.translations.unregister(base_package)


def translate(text: str | Text, /, **values: object) -> str:
    """`text` in the user's language, with the translations of the texts among its values; English if it has none.

    translate("Frame {frame}", frame=1) is short for translate(Text.of("Frame {frame}", frame=1)).
    """
    if isinstance(text, str):
        text = Text.of(text, **values)
    return text.filled(_look_up(text.template), translate)


def _look_up(template: str) -> str:
    if bpy.app.translations.locale not in LANGUAGES or not bpy.context.preferences.view.use_translate_interface:
        return template
    return bpy.app.translations.pgettext_rpt(template)
