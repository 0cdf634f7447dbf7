"""Decoding errors in plain words, and the valid tokens and classes of a subject."""

from __future__ import annotations

import re
from collections.abc import Mapping

from .text import Text

_AT = re.compile(r"(?P<fault>.*?) - at `(?:key in )?(?P<path>\$?[^`]*)`", re.DOTALL)
_KINDS = {
    "str": "text", "int": "a whole number", "float": "a number", "array": "a list", "object": "a group of named values",
    "bool": "true or false", "null": "nothing", "bytes": "bytes",
}  # fmt: skip
_BOUNDS = {">=": "at least", "<=": "at most", ">": "more than", "<": "less than"}
_CLASS = re.compile(r"[\w'’-]+(?: +[\w'’-]+)*")
_LONGEST = 64  # characters: the prompt has to hold them


def in_words(error: Exception, names: Mapping[str, str] | None = None) -> str:
    """A decoding error without its notation and type names: "--class is empty", "bbox[0][1] has to have 4 entries".

    `names`: the names of fields for people; other fields keep their own.
    """
    if isinstance(error, OSError):
        return error.strerror or str(error)
    if isinstance(error, UnicodeDecodeError):
        return "it is not text in UTF-8"
    text = str(error)
    found = _AT.fullmatch(text)
    fault, path = (found["fault"], found["path"]) if found else (text, "")
    place = path.removeprefix("$").removeprefix(".").replace("[...]", "")
    last = re.sub(r"\[.*", "", place.rpartition(".")[2])
    place = (names or {}).get(last, place)
    said = _fault(fault)
    if said is None:
        return f"{place}: {fault}" if place else fault
    return f"{place or 'it'} {said}"


def _fault(fault: str) -> str | None:
    """The predicate of the sentence; None if the error is a sentence already."""
    if match := re.fullmatch(r"Expected `(\w+)` of length (>=|<=) (\d+)", fault):
        kind, sign, count = match.groups()
        if (sign, count) == (">=", "1"):
            return "is empty"
        return f"has to have {_BOUNDS[sign]} {count} {'characters' if kind == 'str' else 'entries'}"
    if match := re.fullmatch(r"Expected `\w+` (>=|<=|>|<) (\S+)", fault):
        return f"has to be {_BOUNDS[match[1]]} {float(match[2]):g}"
    if match := re.fullmatch(r"Expected `array` of (?:at least )?length (\d+)(?:(?: to \d+)|, got (\d+))?.*", fault):
        return f"has to have {match[1]} entries" + (f" and has {match[2]}" if match[2] else "")
    if match := re.fullmatch(r"Expected `([^`]+)`, got `([^`]+)`", fault):
        return f"has to be {_kinds(match[1])} and is {_kinds(match[2])}"
    if match := re.fullmatch(r"Object missing required field `(\w+)`", fault):
        return f'lacks "{match[1]}"'
    if match := re.fullmatch(r"Object contains unknown field `(.+)`", fault):
        return f'has an entry "{match[1]}" that nobody knows'
    if re.fullmatch(r"Expected `str` matching regex .*", fault):
        return "is not written as it has to be"
    if fault == "Input data was truncated":
        return "is not complete JSON"
    if fault.startswith("JSON is malformed: "):
        return f"is not JSON ({fault.removeprefix('JSON is malformed: ')})"
    return None


def _kinds(names: str) -> str:
    return " or ".join(_KINDS.get(name, name) for name in re.split(r" \| ", names))


def token_fault(token: str) -> Text | None:
    """The end of a sentence that says why this cannot be a token; None if it can."""
    if not re.search(r"\w", token) or token.split() != [token] or not token.isprintable() or len(token) > _LONGEST:
        return Text.of("is one rare word without spaces, such as sks, and not {found}.", found=_quoted(token))
    return None


def class_fault(class_word: str) -> Text | None:
    """The same for a class."""
    letters = any(letter.isalpha() for letter in class_word)
    if not letters or not _CLASS.fullmatch(class_word.strip(" ")) or len(class_word) > _LONGEST:
        return Text.of(
            "is the ordinary word for the subject, such as dog or toy car, and not {found}.", found=_quoted(class_word)
        )
    return None


def _quoted(text: str) -> str | Text:
    if not text.strip():
        return Text("empty")
    shown = "".join(sign if sign.isprintable() else "?" for sign in text[:_LONGEST])
    return f'"{shown}"' if len(text) <= _LONGEST else f'"{shown}..."'
