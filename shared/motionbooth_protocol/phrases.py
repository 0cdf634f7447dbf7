"""How a phrase is found in a prompt: one rule for the extension, which checks before it submits, and the backend."""

from __future__ import annotations

import re
from unicodedata import normalize

Span = tuple[int, int]  # start and end character


def phrase_spans(prompt: str, phrase: str) -> list[Span]:
    """The places of the phrase as whole words, ignoring case, the amount of space and the composition of accents."""
    forms = [(normalize("NFC", word), normalize("NFD", word)) for word in phrase.split()]
    words = r"\s+".join(f"(?:{re.escape(composed)}|{re.escape(apart)})" for composed, apart in forms)
    pattern = rf"(?<!\w){words}(?!\w)"
    return [match.span() for match in re.finditer(pattern, prompt, re.IGNORECASE)] if words else []
