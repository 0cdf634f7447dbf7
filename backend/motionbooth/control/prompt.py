"""The token positions of a prompt's phrases."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

from motionbooth_protocol.errors import InvalidInput
from motionbooth_protocol.phrases import Span, phrase_spans
from transformers import PreTrainedTokenizerBase

_CUT = "\0"  # in place of each character of a phrase
_WITH_ARTICLE = re.compile(rf"(\b(a|an|the)\s+)?{_CUT}+", re.IGNORECASE)


@dataclass(frozen=True)
class PromptTokens:
    """Token positions in one prompt; BOS, if there is one, is position 0."""

    length: int
    """Number of tokens, padding included."""
    content: range
    """The prompt's own tokens, without BOS, EOS and padding."""
    subjects: tuple[tuple[int, ...], ...] = ()
    """For each subject, the tokens of its phrase ("sks dog": both words)."""
    background: tuple[int, ...] = ()
    """The tokens of the background phrase; empty for none."""
    padding: int = 0
    """Padding tokens with one and the same key; 0 if each has its own, as CLIP's."""
    outside: range = range(0)
    """The tokens of the prompt for the cells outside all boxes, which follow the whole prompt's; empty for none."""


def without_phrases(prompt: str, phrases: Sequence[str]) -> str:
    """The prompt without these phrases and their articles: "on the grass" for "a sks dog on the grass"."""
    kept = list(prompt)
    for start, end in (span for phrase in phrases for span in phrase_spans(prompt, phrase)):  # which may overlap
        kept[start:end] = _CUT * (end - start)
    return " ".join(_WITH_ARTICLE.sub("", "".join(kept)).split())


def prompt_tokens(
    tokenizer: PreTrainedTokenizerBase,
    prompt: str,
    phrases: Sequence[str],
    background_phrase: str = "",
    length: int | None = None,
) -> PromptTokens:
    """Find each subject's phrase, and the background's, among the prompt's tokens.

    A phrase that occurs several times is found at every occurrence, except inside a longer phrase of another subject:
    "dog" does not match the dog of "sks dog" if there is a second dog. If several subjects have the same phrase and it
    occurs once for each ("a dog and a dog"), each subject gets one occurrence, in order; otherwise they share all.

    `length`: number of tokens with padding; the tokenizer's maximum by default. Raises InvalidInput if a phrase is
    missing from the prompt or beyond this length.
    """
    length = length or tokenizer.model_max_length
    encoded = tokenizer(
        prompt, return_offsets_mapping=True, return_special_tokens_mask=True, truncation=False, verbose=False
    )
    offsets, special = encoded["offset_mapping"], encoded["special_tokens_mask"]
    bos = len(list(takewhile(bool, special)))  # CLIP has one, T5 none
    readable = range(bos, bos + length - sum(special))
    everywhere = [phrase_spans(prompt, phrase) for phrase in phrases]
    spans = _own_mentions([_outside_longer(own, everywhere) for own in everywhere])
    positions = [_positions(offsets, prompt, *own, readable) for own in zip(phrases, spans, strict=True)]
    background: tuple[int, ...] = ()
    if background_phrase:
        own = phrase_spans(prompt, background_phrase)
        background = _positions(offsets, prompt, background_phrase, own, readable)
    return PromptTokens(
        length=length,
        content=readable[: len(offsets) - sum(special)],
        subjects=tuple(positions),
        background=background,
    )


def _positions(offsets: list[Span], prompt: str, phrase: str, spans: list[Span], readable: range) -> tuple[int, ...]:
    if not spans:
        raise InvalidInput(
            'The prompt does not contain "{phrase}". Add exactly these words to the prompt, which is "{prompt}".',
            phrase=phrase,
            prompt=prompt,
        )
    places = [
        tuple(i for i, (start, end) in enumerate(offsets) if start < stop and end > begin) for begin, stop in spans
    ]
    kept = [place for place in places if place and place[-1] < readable.stop]
    if not kept:
        raise InvalidInput(
            '"{phrase}" is too late in the prompt: the model reads only its first {room} tokens. '
            "Move it to the front or shorten the prompt.",
            phrase=phrase,
            room=len(readable),
        )
    return tuple(sorted({i for place in kept for i in place}))


def _outside_longer(own: list[Span], all_spans: list[list[Span]]) -> list[Span]:
    """The spans that are not inside another phrase's longer span; all of them if none would be left."""
    others = [other for spans in all_spans for other in spans]
    outside = [span for span in own if not any(o[0] <= span[0] and span[1] <= o[1] and o != span for o in others)]
    return outside or own


def _own_mentions(all_spans: list[list[Span]]) -> list[list[Span]]:
    """If n subjects have the same n spans, each gets one of them; any other number of spans is shared."""
    return [
        [spans[all_spans[:number].count(spans)]] if all_spans.count(spans) == len(spans) else spans
        for number, spans in enumerate(all_spans)
    ]
