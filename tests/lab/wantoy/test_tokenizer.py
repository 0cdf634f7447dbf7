"""wantoy's tokenizer knows the words of the captions, and takes any prompt."""

from pathlib import Path

from motionbooth_lab.wantoy.tokenizer import MAX_TOKENS, build_tokenizer
from transformers import AutoTokenizer


def test_words_are_single_tokens_and_an_unknown_word_is_its_letters(tmp_path: Path) -> None:
    build_tokenizer().save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert len(tokenizer("a sks robot on the grass").input_ids) == 7
    assert tokenizer("a sks robot").tokens()[-1] == "</s>"
    strange = tokenizer("a zorblax, um 12!").tokens()
    assert strange[2:9] == list("zorblax")
    assert "<unk>" not in strange


def test_a_prompt_is_padded_with_zeros() -> None:
    padded = build_tokenizer()("a red ball", padding="max_length", max_length=MAX_TOKENS, truncation=True)
    assert padded.input_ids[3:] == [1] + [0] * (MAX_TOKENS - 4)
