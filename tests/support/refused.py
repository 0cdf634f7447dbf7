"""An expected error, by its class and values instead of its wording."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from motionbooth_protocol.errors import MotionBoothError
from motionbooth_protocol.text import Text


@contextmanager
def refused(kind: type[MotionBoothError], **values: str | int | float | Text) -> Iterator[None]:
    """The block raises this error, with at least these values."""
    with pytest.raises(kind) as caught:
        yield
    assert caught.value.text.values | values == caught.value.text.values
