"""The extension in other languages: by Blender's own translation where it looks texts up itself, and by `told` for
sentences that have something filled in.
"""

from __future__ import annotations

import re
from functools import lru_cache

import bpy

from .. import __package__ as base_package
from . import german

# By Blender's names of the languages, of which the second came with later versions.
LANGUAGES = {"de_DE": german, "de": german}


def register() -> None:
    texts = {
        language: {
            **{("Operator", text): said for text, said in words.OPERATORS.items()},
            **{("*", text): said for text, said in (words.TEXTS | words.PHRASES).items()},
        }
        for language, words in LANGUAGES.items()
    }
    bpy.app.translations.register(base_package, texts)


def unregister() -> None:
    bpy.app.translations.unregister(base_package)
    _told.cache_clear()


def told(sentence: str) -> str:
    """A sentence in the user's language, with all that is filled in; as it is where it is not known there."""
    view = bpy.context.preferences.view
    language = bpy.app.translations.locale
    return _told(sentence, language) if language in LANGUAGES and view.use_translate_interface else sentence


@lru_cache(maxsize=512)
def _told(sentence: str, language: str) -> str:
    words = LANGUAGES[language]
    if sentence in words.TEXTS:
        return bpy.app.translations.pgettext_rpt(sentence)
    found = _match(sentence, tuple(words.TEXTS))
    if found is None:
        return sentence
    text, parts = found
    return bpy.app.translations.pgettext_rpt(text).format(*(_phrase(part, language) for part in parts))


def _phrase(part: str, language: str) -> str:
    """What was filled in: names and numbers as they are."""
    found = _match(part, tuple(LANGUAGES[language].PHRASES))
    return part if found is None else bpy.app.translations.pgettext_rpt(found[0]).format(*found[1])


def _match(sentence: str, texts: tuple[str, ...]) -> tuple[str, tuple[str, ...]] | None:
    """The text that a sentence was made of, and what was filled in."""
    for pattern, text in _patterns(texts):
        if found := pattern.fullmatch(sentence):
            return text, found.groups()
    return None


@lru_cache
def _patterns(texts: tuple[str, ...]) -> list[tuple[re.Pattern[str], str]]:
    """Texts with something to fill in; those that say the most come first."""
    to_fill = sorted(
        (text for text in texts if "{}" in text), key=lambda text: len(text.replace("{}", "")), reverse=True
    )
    return [(re.compile(re.escape(text).replace(r"\{\}", "(.*?)"), re.DOTALL), text) for text in to_fill]
