"""Text from a client can be shown anywhere: every text field of a request refuses what is unprintable."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from motionbooth_protocol.codec import decode_request, encode
from motionbooth_protocol.errors import InvalidInput, Malformed
from motionbooth_protocol.jobs import Box, Picture, SubjectSpec, TrainSpec, check_spec
from motionbooth_protocol.messages import Hello, Submit
from motionbooth_protocol.motion import SubjectTrack
from motionbooth_protocol.printable import on_one_line
from motionbooth_protocol.text import Text
from msgspec.structs import replace
from refused import refused
from running_backend import SHOT, small_job

_UNPRINTABLE = [
    "\0",
    "\t",
    "\n",
    "\r",
    "\x1b]0;owned\x07",
    "\x1b[2J",
    "\x7f",
    "\x9b2J",
    "\u202e",
    "\u2066",
    "\u200f",
    "\u2028",
]
_TRACK = SubjectTrack(name="toy", class_word="toy", token="sks", boxes=[Box(0, 0, 1, 1)] * 8, weights="0" * 64)
_REQUESTS = [
    Hello(id=1, version=1, client="addon"),
    Submit(id=1, job="job-00001", spec=replace(small_job("a sks toy"), shot=replace(SHOT, subjects=[_TRACK]))),
    Submit(id=1, job="job-00001", spec=TrainSpec(SubjectSpec("Toy", "sks", "toy", [Picture("0" * 64, name="a.png")]))),
]


def texts(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all texts in a message."""
    if isinstance(value, str):
        yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from texts(item, (*path, key))


@pytest.mark.parametrize("request_", _REQUESTS)
@pytest.mark.parametrize("mark", _UNPRINTABLE)
def test_no_text_of_a_request_may_have_it(request_: Any, mark: str) -> None:
    fields = msgspec.msgpack.decode(encode(request_)[0])
    for path in texts(fields):
        changed = copy.deepcopy(fields)
        place = changed
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] += mark
        with pytest.raises(Malformed):
            decode_request([msgspec.msgpack.encode(changed)])


def test_text_of_any_language_is_printable() -> None:
    check_spec(small_job("größe 👩‍👩‍👧 नमस्ते 犬 كلب"))


def test_the_animator_learns_what_to_remove() -> None:
    with refused(InvalidInput, field="the prompt"):
        check_spec(small_job("one\ntwo"))


def test_the_sentence_of_an_error_shows_no_control_character() -> None:
    assert str(Text.of("{name} failed.\n", name="\x1b[31mtoy")) == "\N{REPLACEMENT CHARACTER}[31mtoy failed.\n"


def test_a_text_on_one_line_keeps_what_it_said() -> None:
    assert on_one_line("a\n\x1b\u202eé") == "a\\n\\x1b\\u202eé"
