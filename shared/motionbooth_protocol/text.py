"""Sentences for people: a template in English and the values that are filled into it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import reduce
from numbers import Integral, Real

from msgspec import Struct

from .printable import shown

# A field is {name}, or {name:spec} for a number: {count:,}, {share:.0%}, {seconds:.1f}. Any other brace is text.
_FIELD = re.compile(r"\{([a-z_]\w*)(?::(,?(?:\.\d)?[efg%]?))?\}")

_LONGEST_VALUE = 2000  # characters; a sentence must fit into a message


class Text(Struct, frozen=True):
    """A sentence or a part of one. `str()` gives the English; a translation looks the template up.

    Formatting never fails, not even for a text from the network: a field without a value that fits stays as it is, and
    what cannot be shown is replaced.
    """

    template: str
    values: dict[str, str | int | float | Text] = {}

    @classmethod
    def of(cls, template: str, /, **values: object) -> Text:
        """Numbers and texts are kept as they are, the text of an error as well; everything else becomes a string."""
        return cls(template, {name: _plain(value) for name, value in values.items()})

    def __str__(self) -> str:
        return self.filled(self.template, str)

    def filled(self, template: str, part: Callable[[Text], str]) -> str:
        """This text's values in another template, such as its translation; `part` shows the texts among them."""

        def field(match: re.Match[str]) -> str:
            name, spec = match.groups()
            value = self.values.get(name, match[0])
            try:
                if isinstance(value, Text):
                    return part(value)
                return format(value, spec) if spec and not isinstance(value, str) else str(value)
            except (ValueError, OverflowError, RecursionError):  # a format for another kind, a huge number, a deep text
                return match[0]

        return shown(_FIELD.sub(field, template))


def joined(texts: Sequence[Text], template: str) -> Text:
    """At least one text, or several as one by a template for two, such as "{one}; {other}"."""
    return reduce(lambda one, other: Text.of(template, one=one, other=other), texts)


def fields(template: str) -> set[str]:
    """The names of the values that a template has places for."""
    return {match[1] for match in _FIELD.finditer(template)}


def _plain(value: object) -> str | int | float | Text:
    if isinstance(value, Exception):
        value = getattr(value, "text", str(value))  # MotionBoothError has one
    if isinstance(value, Text):
        return Text(value.template, value.values)  # of an ErrorReport, the sentence
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value)
    text = str(value).encode(errors="replace").decode()  # paths can have bytes that are no UTF-8
    return text if len(text) <= _LONGEST_VALUE else text[:_LONGEST_VALUE] + "..."
