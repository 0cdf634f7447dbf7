"""A sentence is a template and its values, here, on the wire and in another language."""

from __future__ import annotations

import pickle
from pathlib import Path

import msgspec
import numpy as np
from motionbooth_protocol.errors import Conflict, ErrorReport, InvalidInput, MotionBoothError, OutOfSpace
from motionbooth_protocol.text import Text, fields


def test_values_are_filled_in_by_name_and_formatted_by_the_template() -> None:
    text = Text.of(
        "{share:.0%} of {path}: {count:,} files, {seconds:.1f} s", share=0.5, path="/a", count=1200, seconds=2
    )
    assert str(text) == "50% of /a: 1,200 files, 2.0 s"


def test_braces_that_are_no_field_and_fields_without_a_value_are_left_as_they_are() -> None:
    assert str(Text.of('{"a.jpg": {}} {x.__class__} {missing} {path:>9999999}', x="x", path="/a")) == (
        '{"a.jpg": {}} {x.__class__} {missing} {path:>9999999}'
    )


def test_a_value_is_not_a_template() -> None:
    assert str(Text.of('No subject "{name}" in {path}', name="{path}", path="/a")) == 'No subject "{path}" in /a'


def test_a_format_for_numbers_leaves_text_alone() -> None:
    assert str(Text.of("{seconds:.1f}", seconds="long")) == "long"


def test_no_text_from_the_network_fails_to_be_shown() -> None:
    assert str(Text("{steps:.1} {size:e}", {"steps": 5, "size": 10**400})) == "{steps:.1} {size:e}"
    deep = Text("end")
    for _ in range(2000):
        deep = Text("{part}", {"part": deep})
    assert str(deep) == "{part}"


def test_the_name_of_a_file_that_is_not_text_can_be_sent() -> None:
    text = Text.of("There is no file {path}.", path=Path("a\udcff.png"))
    assert msgspec.json.decode(msgspec.json.encode(text), type=Text).values == {"path": "a?.png"}


def test_numbers_of_numpy_paths_and_errors_become_plain_values() -> None:
    full = OutOfSpace("The disk of {path} is full.", path=Path("a"))
    text = Text.of("", whole=np.int64(3), part=np.float32(0.5), path=Path("a"), error=full, system=OSError("gone"))
    assert text.values == {"whole": 3, "part": 0.5, "path": "a", "error": full.text, "system": "gone"}
    assert [type(text.values[name]) for name in ("whole", "part")] == [int, float]


def test_a_text_crosses_the_wire_with_the_texts_in_it() -> None:
    text = Text.of("Not sent: {why}", why=Text.of("{count} of {size:.1f} GB", count=2, size=1.5))
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(text), type=Text) == text
    assert str(text) == "Not sent: 2 of 1.5 GB"


def test_fields_of_a_template() -> None:
    assert fields('{path} has {size:.1f} GB {"no": 1}') == {"path", "size"}


def test_an_error_is_a_code_a_template_and_its_values() -> None:
    error = InvalidInput("There is no take {number}.", code="no_take", number=3)
    assert (str(error), error.code, error.retryable) == ("There is no take 3.", "invalid_input.no_take", False)
    assert error.text == Text("There is no take {number}.", {"number": 3})
    assert Conflict("Taken.").code == "conflict"


def test_an_error_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(InvalidInput("There is no take {number}.", code="no_take", number=3)))
    assert (str(error), error.code) == ("There is no take 3.", "invalid_input.no_take")


def test_an_error_comes_out_of_its_report_as_it_went_in() -> None:
    before = InvalidInput("There is no take {number}.", code="no_take", number=3)
    report = msgspec.json.decode(msgspec.json.encode(before.report), type=ErrorReport)
    after = report.error()
    assert type(after) is InvalidInput
    assert (after.text, after.code, report.kind) == (before.text, "invalid_input.no_take", "invalid_input")
    assert type(ErrorReport("New.", code="of_a_later_version").error()) is MotionBoothError


def test_a_report_among_the_values_of_a_text_is_its_sentence() -> None:
    report = InvalidInput("There is no take {number}.", number=3).report
    text = Text.of('"{job}" failed: {reason}', job="Imp", reason=report)
    assert msgspec.json.decode(msgspec.json.encode(text), type=Text) == text
    assert str(text) == '"Imp" failed: There is no take 3.'
