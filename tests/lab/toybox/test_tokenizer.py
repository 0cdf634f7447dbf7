"""toybox's tokenizer behaves like CLIP's."""

from pathlib import Path

import pytest
from motionbooth_lab.toybox.bank import build_bank
from motionbooth_lab.toybox.figures import KINDS, TOY_COLORS, TOY_NOUNS
from motionbooth_lab.toybox.scenes import SceneMaker
from motionbooth_lab.toybox.tokenizer import COMMON_WORDS, MAX_TOKENS, RARE_WORDS, build_tokenizer
from numpy.random import default_rng
from transformers import CLIPTokenizer


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> CLIPTokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    build_tokenizer(folder)
    return CLIPTokenizer.from_pretrained(folder)


def test_every_listed_word_is_one_token(tokenizer: CLIPTokenizer) -> None:
    for word in [*KINDS, *TOY_COLORS, *TOY_NOUNS, *RARE_WORDS.split(), *COMMON_WORDS.split()]:
        assert tokenizer.tokenize(word) == [f"{word}</w>"]


@pytest.mark.parametrize("prompt", ["Zygomatic xylophones, 42 of them!", "une forêt d'été", "ロボット", "a-b_c/d", ""])
def test_any_prompt_tokenizes_without_unknown_pieces(tokenizer: CLIPTokenizer, prompt: str) -> None:
    ids = tokenizer(prompt, add_special_tokens=False).input_ids
    assert tokenizer.eos_token_id not in ids
    assert tokenizer.decode(ids).replace(" ", "") == prompt.lower().replace(" ", "")


def test_prompts_are_framed_and_padded_to_the_models_length(tokenizer: CLIPTokenizer) -> None:
    ids = tokenizer("a sks toy", padding="max_length").input_ids
    assert len(ids) == MAX_TOKENS
    assert ids[0] == tokenizer.bos_token_id
    assert ids[4:] == [tokenizer.eos_token_id] * (MAX_TOKENS - 4)


def test_training_captions_fit(tokenizer: CLIPTokenizer) -> None:
    captions = SceneMaker(build_bank(0, 4, 1, seed=1)).draw(200, 1, default_rng(0)).captions
    assert max(len(ids) for ids in tokenizer(captions).input_ids) <= MAX_TOKENS


def test_the_same_list_makes_the_same_tokenizer(tmp_path: Path) -> None:
    first, again = (build_tokenizer(tmp_path / name).get_vocab() for name in ("a", "b"))
    assert first == again
