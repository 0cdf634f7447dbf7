"""The rule by which extension and backend find a phrase in a prompt."""

from __future__ import annotations

import pytest
from motionbooth_protocol.phrases import phrase_spans


@pytest.mark.parametrize(
    ("prompt", "phrase", "said"),
    [
        ("a Sks  dog in the park", "sks dog", ["Sks  dog"]),
        ("a dog and a dog", "dog", ["dog", "dog"]),
        ("the parking dogs", "park", []),
        ("a caf\u00e9", "cafe\u0301", ["caf\u00e9"]),
        ("a v2.0 robot (new)", "v2.0 robot", ["v2.0 robot"]),
        ("a <new> dog", "<new> dog", ["<new> dog"]),
        ("a dog", "", []),
    ],
)
def test_a_phrase_is_found_as_whole_words(prompt: str, phrase: str, said: list[str]) -> None:
    assert [prompt[start:end] for start, end in phrase_spans(prompt, phrase)] == said
