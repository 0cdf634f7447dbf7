"""An expected error, by its class and values instead of its wording."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import EllipsisType

import pytest
from motionbooth_protocol.errors import MotionBoothError
from motionbooth_protocol.text import Text


@contextmanager
def refused(expected: type[MotionBoothError], /, **values: str | int | float | Text | EllipsisType) -> Iterator[None]:
    """The block raises this error, with at least these values; `...` stands for any value."""
    with pytest.raises(expected) as caught:
        yield
    found = caught.value.text.values
    known = {name: ... if value is ... else found.get(name) for name, value in values.items()}
    assert known == values, caught.value.text
    assert values.keys() <= found.keys(), caught.value.text
