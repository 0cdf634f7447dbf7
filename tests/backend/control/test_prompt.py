"""Phrases are found among a prompt's tokens, where the authors find them and where they do not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from motionbooth.control.prompt import prompt_tokens, without_phrases
from motionbooth_protocol.errors import InvalidInput
from refused import refused
from transformers import CLIPTokenizer

GOLDEN = Path(__file__).parents[2] / "golden"
# In the other cases the authors find only the first of several places, part of another word, or nothing.
AGREEING = ["", "multi-token words", "phrase first", "whole prompt", "punctuation, double blanks"]
CASES = [
    case
    for case in json.loads((GOLDEN / "phrase_indices.json").read_text())
    if case["note"] in AGREEING and case["phrases"]
]


@pytest.fixture(scope="module")
def tokenizer() -> CLIPTokenizer:
    return CLIPTokenizer.from_pretrained(GOLDEN / "tiny_pipeline" / "tokenizer")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["prompt"])
def test_positions_are_the_authors(tokenizer: CLIPTokenizer, case: dict) -> None:
    tokens = prompt_tokens(tokenizer, case["prompt"], case["phrases"])
    assert [list(positions) for positions in tokens.subjects] == case["pipeline_phrase_indices"]
    assert tokens.content == range(1, len(case["input_ids"]) - 1)
    assert tokens.length == 77


@pytest.mark.parametrize(
    ("prompt", "phrase", "positions"),
    [
        ("a dog and a dog in the park", "dog", (2, 5)),
        ("a Sks Dog on the beach", "sks dog", (2, 3, 4)),
        ("a sks   dog on the beach", "sks dog", (2, 3, 4)),
    ],
)
def test_repeats_letter_case_and_spaces_do_not_matter(
    tokenizer: CLIPTokenizer, prompt: str, phrase: str, positions: tuple[int, ...]
) -> None:
    assert prompt_tokens(tokenizer, prompt, [phrase]).subjects == (positions,)


@pytest.mark.parametrize(
    ("prompt", "phrase"), [("a cafe\u0301 racer", "caf\u00e9"), ("a caf\u00e9 racer", "cafe\u0301")]
)
def test_an_accent_may_be_written_in_one_character_or_in_two(
    tokenizer: CLIPTokenizer, prompt: str, phrase: str
) -> None:
    plain = prompt_tokens(tokenizer, "a caf\u00e9 racer", ["caf\u00e9"]).subjects
    assert prompt_tokens(tokenizer, prompt, [phrase]).subjects == plain


def test_a_word_inside_another_word_is_not_it(tokenizer: CLIPTokenizer) -> None:
    found = prompt_tokens(tokenizer, "a bobcat and a cat in the park", ["cat"]).subjects[0]
    ids = tokenizer("a bobcat and a cat in the park").input_ids
    assert [tokenizer.convert_ids_to_tokens(ids[i]) for i in found] == ["cat</w>"]
    with refused(InvalidInput, phrase="cat"):
        prompt_tokens(tokenizer, "a concatenated dog", ["cat"])


def test_a_plain_dog_is_not_the_dog_of_another_subjects_phrase(tokenizer: CLIPTokenizer) -> None:
    tokens = prompt_tokens(tokenizer, "a sks dog and a dog in the park", ["sks dog", "dog"])
    assert tokens.subjects == ((2, 3, 4), (7,))
    assert prompt_tokens(tokenizer, "a sks dog", ["sks dog", "dog"]).subjects == ((2, 3, 4), (4,))


def test_subjects_of_one_name_have_a_mention_each_in_order_or_share_what_there_is(tokenizer: CLIPTokenizer) -> None:
    prompt = "a dog and a dog in the park"
    assert prompt_tokens(tokenizer, prompt, ["dog", "dog"]).subjects == ((2,), (5,))
    assert prompt_tokens(tokenizer, prompt, ["Dog", "park", "dog"]).subjects[::2] == ((2,), (5,))
    assert prompt_tokens(tokenizer, prompt, ["dog", "dog", "dog"]).subjects == ((2, 5),) * 3
    assert prompt_tokens(tokenizer, "a dog", ["dog", "dog"]).subjects == ((2,), (2,))


def test_the_background_phrase_is_found_too(tokenizer: CLIPTokenizer) -> None:
    tokens = prompt_tokens(tokenizer, "a sks dog running on the grass", ["sks dog"], "the grass")
    assert tokens.background == (8, 9)


@pytest.mark.parametrize("phrases", [["zebra"], ["dog", "zebra"]])
def test_a_missing_phrase_is_named_with_what_to_do(tokenizer: CLIPTokenizer, phrases: list[str]) -> None:
    with refused(InvalidInput, phrase="zebra"):
        prompt_tokens(tokenizer, "a dog on the beach", phrases)


def test_a_phrase_beyond_the_last_token_is_refused(tokenizer: CLIPTokenizer) -> None:
    prompt = "a dog " * 50 + "on the sks beach"
    with refused(InvalidInput, phrase="sks beach", room=75):
        prompt_tokens(tokenizer, prompt, ["sks beach"])
    assert prompt_tokens(tokenizer, prompt, ["dog"]).subjects[0][-1] <= 75


@pytest.mark.parametrize(
    ("prompt", "phrases", "rest"),
    [
        ("a sks dog on the grass", ["sks dog"], "on the grass"),
        ("a dog and a dog on the grass", ["dog", "dog"], "and on the grass"),
        ("A sks dog and the dog on the grass", ["dog", "sks dog"], "and on the grass"),
        ("the big dog house at a lake", ["big dog", "dog house"], "at a lake"),
    ],
)
def test_a_prompt_without_its_subjects_keeps_every_other_word(prompt: str, phrases: list[str], rest: str) -> None:
    assert without_phrases(prompt, phrases) == rest
