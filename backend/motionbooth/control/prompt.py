"""The token positions of a prompt's phrases."""

from __future__ import annotations

from dataclasses import dataclass

from motionbooth_protocol.errors import InvalidInput
from motionbooth_protocol.phrases import Span, phrase_spans
from transformers import CLIPTokenizer


@dataclass(frozen=True)
class PromptTokens:
    """Token positions in one prompt; BOS is position 0."""

    length: int
    """Number of tokens, padding included."""
    content: range
    """The prompt's own tokens, without BOS, EOS and padding."""
    subjects: tuple[tuple[int, ...], ...] = ()
    """For each subject, the tokens of its phrase ("sks dog": both words)."""
    background: tuple[int, ...] = ()
    """The tokens of the background phrase; empty for none."""


def prompt_tokens(
    tokenizer: CLIPTokenizer, prompt: str, phrases: list[str], background_phrase: str = ""
) -> PromptTokens:
    """Find each subject's phrase, and the background's, among the prompt's tokens.

    A phrase that occurs several times is found at every occurrence, except inside a longer phrase of another subject:
    "dog" does not match the dog of "sks dog" if there is a second dog. If several subjects have the same phrase and it
    occurs once for each ("a dog and a dog"), each subject gets one occurrence, in order; otherwise they share all.

    Raises InvalidInput if a phrase is missing from the prompt or beyond the tokenizer's maximum length.
    """
    offsets = _token_offsets(tokenizer, prompt)
    room = tokenizer.model_max_length - 2  # BOS and EOS
    everywhere = [phrase_spans(prompt, phrase) for phrase in phrases]
    spans = _own_mentions([_outside_longer(own, everywhere) for own in everywhere])
    positions = [_positions(offsets, prompt, phrase, own, room) for phrase, own in zip(phrases, spans, strict=True)]
    background: tuple[int, ...] = ()
    if background_phrase:
        background = _positions(offsets, prompt, background_phrase, phrase_spans(prompt, background_phrase), room)
    return PromptTokens(
        length=tokenizer.model_max_length,
        content=range(1, 1 + min(len(offsets), room)),
        subjects=tuple(positions),
        background=background,
    )


def _token_offsets(tokenizer: CLIPTokenizer, prompt: str) -> list[Span]:
    """Start and end character of each token of the whole prompt, without BOS, EOS or truncation."""
    encoded = tokenizer(prompt, return_offsets_mapping=True, add_special_tokens=False, truncation=False, verbose=False)
    return encoded["offset_mapping"]


def _positions(offsets: list[Span], prompt: str, phrase: str, spans: list[Span], room: int) -> tuple[int, ...]:
    if not spans:
        raise InvalidInput(
            'The prompt does not contain "{phrase}". Add exactly these words to the prompt, which is "{prompt}".',
            phrase=phrase,
            prompt=prompt,
        )
    places = [
        tuple(i for i, (start, end) in enumerate(offsets) if start < stop and end > begin) for begin, stop in spans
    ]
    kept = [place for place in places if place and place[-1] < room]
    if not kept:
        raise InvalidInput(
            '"{phrase}" is too late in the prompt: the model reads only its first {room} tokens. '
            "Move it to the front or shorten the prompt.",
            phrase=phrase,
            room=room,
        )
    return tuple(sorted({1 + i for place in kept for i in place}))  # 1: BOS comes first


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
