"""wantoy's tokenizer: UMT5's kind (unigram, with an end and no start), built from toybox's word list.

Every word of the list is one token. Other words are split into letters, so any prompt can be tokenized.
"""

import string

from transformers import T5Tokenizer

from motionbooth_lab.toybox.tokenizer import all_words

MAX_TOKENS = 24
"""Length of a prompt including its end and the padding."""

_SPACE = "\u2581"
_WORD, _LETTER = -1.0, -10.0
"""Log probabilities. A word of the list always beats its letters."""


def build_tokenizer() -> T5Tokenizer:
    """The tokenizer. The same word list gives the same ids."""
    letters = [_SPACE, *string.ascii_letters, *string.digits, *string.punctuation]
    words = [_SPACE + word for word in all_words()]
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -20.0), *((letter, _LETTER) for letter in letters)]
    pieces += [(word, _WORD) for word in words]
    return T5Tokenizer(vocab=pieces, extra_ids=0, additional_special_tokens=[], model_max_length=MAX_TOKENS)
