"""Decoding errors in plain words, and the valid tokens and classes of a subject."""

from __future__ import annotations

import re
from collections.abc import Mapping

from .printable import PRINTABLE
from .text import Text, joined

_AT = re.compile(r"(?P<fault>.*?) - at `(?:key in )?(?P<path>\$?[^`]*)`", re.DOTALL)
_KINDS = {
    "str": "text", "int": "a whole number", "float": "a number", "array": "a list", "object": "a group of named values",
    "bool": "true or false", "null": "nothing", "bytes": "bytes",
}  # fmt: skip
_BOUNDS = {
    ">=": "{field} must be at least {bound}", "<=": "{field} must be at most {bound}",
    ">": "{field} must be greater than {bound}", "<": "{field} must be less than {bound}",
}  # fmt: skip
_LENGTHS = {
    (True, ">="): "{field} must have at least {bound} characters",
    (True, "<="): "{field} must have at most {bound} characters",
    (False, ">="): "{field} must have at least {bound} entries",
    (False, "<="): "{field} must have at most {bound} entries",
}
_CLASS = re.compile(r"[\w'’-]+(?: +[\w'’-]+)*")
_LONGEST_FAULT = 2000  # characters
_LONGEST = 64  # characters: the prompt has to hold them


def in_words(error: Exception, names: Mapping[str, str] | None = None) -> Text:
    """A decoding error without its notation and type names: "--class is empty", "bbox[0][1] must have 4 entries".

    `names`: the names of fields for people; other fields keep their own.
    """
    if isinstance(error, OSError) or hasattr(error, "strerror"):  # PyAV's errors have one, too
        return Text.of("{reason}", reason=error.strerror or error)
    if isinstance(error, UnicodeDecodeError):
        return Text("it is not text in UTF-8")
    text = str(error)
    found = _AT.fullmatch(text)
    fault, path = (found["fault"], found["path"]) if found else (text, "")
    path = path.removeprefix("$").removeprefix(".").replace("[...]", "")
    last = re.sub(r"\[.*", "", path.rpartition(".")[2])
    field = (names or {}).get(last, path)
    known = _in_words(fault, field or Text("it"))
    if known is not None:
        return known
    reason = Text(fault[:_LONGEST_FAULT])  # a template, so that a sentence of ours is translated
    return Text.of("{field}: {reason}", field=field, reason=reason) if field else reason


def _in_words(fault: str, field: str | Text) -> Text | None:
    """msgspec's sentence about a field in our words; None for one that is not known here."""
    if match := re.fullmatch(r"Expected `(\w+)` of length (>=|<=) (\d+)", fault):
        kind, sign, bound = match.groups()
        if (sign, bound) == (">=", "1"):
            return Text.of("{field} is empty", field=field)
        return Text.of(_LENGTHS[kind == "str", sign], field=field, bound=int(bound))
    if match := re.fullmatch(r"Expected `\w+` (>=|<=|>|<) (\S+)", fault):
        bound = float(match[2])
        return Text.of(_BOUNDS[match[1]], field=field, bound=int(bound) if bound.is_integer() else bound)
    if match := re.fullmatch(r"Expected `array` of (?:at least )?length (\d+)(?:(?: to \d+)|, got (\d+))?.*", fault):
        template = "{field} must have {count} entries, not {found}" if match[2] else "{field} must have {count} entries"
        return Text.of(template, field=field, count=int(match[1]), found=match[2])
    if match := re.fullmatch(r"Expected `([^`]+)`, got `([^`]+)`", fault):
        return Text.of(
            "{field} must be {kind}, not {found}", field=field, kind=_kinds(match[1]), found=_kinds(match[2])
        )
    if match := re.fullmatch(r"Object missing required field `(\w+)`", fault):
        return Text.of('{field} has no "{name}"', field=field, name=match[1])
    if match := re.fullmatch(r"Object contains unknown field `(.+)`", fault):
        return Text.of('{field} has an unknown entry "{name}"', field=field, name=match[1])
    if fault == f"Expected `str` matching regex {PRINTABLE!r}":
        return Text.of("{field} has a line break or another control character; remove it", field=field)
    if re.fullmatch(r"Expected `str` matching regex .*", fault):
        return Text.of("{field} has the wrong format", field=field)
    if match := re.fullmatch(r"Invalid enum value (.+)", fault):
        return Text.of("{field} has the unknown value {value}", field=field, value=match[1])
    if fault == "Input data was truncated":
        return Text.of("{field} is not complete JSON", field=field)
    if fault.startswith("JSON is malformed: "):
        reason = fault.removeprefix("JSON is malformed: ")
        return Text.of("{field} is not JSON ({reason})", field=field, reason=reason)
    return None


def _kinds(names: str) -> Text:
    """The words for one or more of msgspec's type names: "int | null"."""
    return joined([Text(_KINDS.get(name, name)) for name in names.split(" | ")], "{one} or {other}")


def token_fault(token: str) -> Text | None:
    """The end of a sentence that says why this cannot be a token; None if it can."""
    if not re.search(r"\w", token) or token.split() != [token] or not token.isprintable() or len(token) > _LONGEST:
        return Text.of("must be one rare word without spaces, such as sks, not {found}.", found=_quoted(token))
    return None


def class_fault(class_word: str) -> Text | None:
    """The same for a class."""
    letters = any(letter.isalpha() for letter in class_word)
    if not letters or not _CLASS.fullmatch(class_word.strip(" ")) or len(class_word) > _LONGEST:
        return Text.of(
            "must be an ordinary word for the subject, such as dog or toy car, not {found}.", found=_quoted(class_word)
        )
    return None


def _quoted(text: str) -> str | Text:
    if not text.strip():
        return Text("empty")
    shown = "".join(sign if sign.isprintable() else "?" for sign in text[:_LONGEST])
    return f'"{shown}"' if len(text) <= _LONGEST else f'"{shown}..."'
