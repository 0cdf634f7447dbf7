"""An expected error, by its class, code and values instead of its wording."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import EllipsisType
from typing import Any
from unittest.mock import patch

import msgspec
import pytest
from motionbooth.cli.app import ERRORS, app
from motionbooth_protocol.errors import ErrorReport, MotionBoothError
from motionbooth_protocol.text import Text
from typer.testing import CliRunner

Value = str | int | float | Text | EllipsisType


@contextmanager
def refused(expected: type[Exception], /, *, code: str = "", **values: Value) -> Iterator[None]:
    """The block raises this error, with at least these values; `...` stands for any value.

    `code` is the part after the class's: "damaged" of "not_found.damaged".
    """
    with pytest.raises(expected) as caught:
        yield
    error: Any = caught.value  # the backend's MotionBoothError, or the extension's
    assert not code or error.code == f"{type(error).code}.{code}"
    assert_says(error.text, **values)


def refused_by_command(command: Sequence[str], expected: type[MotionBoothError], /, **values: Value) -> None:
    """`motionbooth COMMAND` prints this error and exits with a status other than 0."""
    result = CliRunner(env={ERRORS: "json"}).invoke(app, command)
    assert result.exit_code != 0, result.output
    with refused(expected, **values):
        raise msgspec.json.decode(result.stderr.splitlines()[-1], type=ErrorReport).error()


@contextmanager
def refused_by_operator(expected: type[Exception], /, **values: Value) -> Iterator[None]:
    """The operator in the block shows this error, one of motionbooth_addon._protocol, and is canceled."""
    from motionbooth_addon.operators.base import ReportsErrors

    failed, fail = [], ReportsErrors.fail

    def noted(operator: ReportsErrors, error: Any) -> set[str]:
        failed.append(error)
        return fail(operator, error)

    with patch.object(ReportsErrors, "fail", noted), pytest.raises(RuntimeError) as shown:
        yield
    (error,) = failed
    assert str(error) in str(shown.value)
    with refused(expected, **values):
        raise error


def assert_says(text: Any, /, **values: Value) -> None:
    """A Text of the backend or of the extension has at least these values; those of the texts among them count."""
    found = all_values(text)
    known = {name: ... if value is ... else found.get(name) for name, value in values.items()}
    assert known == values, text
    assert values.keys() <= found.keys(), text


def all_values(text: Any) -> dict[str, Any]:
    parts = [value for value in text.values.values() if hasattr(value, "template")]
    return {name: value for part in parts for name, value in all_values(part).items()} | text.values
