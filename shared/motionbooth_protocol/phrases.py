"""Where a prompt says a phrase: the same rule for the extension, which asks before it sends, and for the backend."""

from __future__ import annotations

import re
from unicodedata import normalize

Span = tuple[int, int]  # start and end character


def phrase_spans(prompt: str, phrase: str) -> list[Span]:
    """Where the phrase stands as whole words; letter case, amount of space and composed accents aside."""
    forms = [(normalize("NFC", word), normalize("NFD", word)) for word in phrase.split()]
    words = r"\s+".join(f"(?:{re.escape(composed)}|{re.escape(apart)})" for composed, apart in forms)
    pattern = rf"(?<!\w){words}(?!\w)"
    return [match.span() for match in re.finditer(pattern, prompt, re.IGNORECASE)] if words else []
