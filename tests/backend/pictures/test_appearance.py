"""A subject's appearance: from its pictures, to text and back."""

import base64
import tracemalloc
import zlib

import numpy as np
import pytest
from motionbooth.pictures.appearance import Appearance
from motionbooth_protocol.errors import InvalidInput
from refused import refused


def test_masks_without_a_pixel_are_refused_in_a_sentence() -> None:
    with refused(InvalidInput, count=1):
        Appearance.from_pictures([np.zeros((8, 8, 3), np.uint8)], [np.zeros((8, 8), np.uint8)])


def as_text(values: np.ndarray) -> str:
    return base64.b64encode(zlib.compress(values.astype("<f4").tobytes())).decode()


@pytest.mark.parametrize(
    "text",
    ["", "nonsense", as_text(np.ones(7)), as_text(np.zeros(13 * 28 * 28)), as_text(np.full(13 * 28 * 28, np.nan))],
)
def test_an_appearance_that_cannot_be_read_are_refused(text: str) -> None:
    with refused(InvalidInput, reason=...):
        Appearance.from_text(text)


def test_the_pixels_of_a_long_clip_are_looked_up_frame_by_frame() -> None:
    frames = np.zeros((200, 40, 60, 3), np.uint8)
    appearance = Appearance.from_pictures([frames[0]], [np.ones((40, 60))])
    tracemalloc.start()
    try:
        appearance.probabilities(frames)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # Of each pixel: a bin twice in 4 bytes, as it is stacked, or its copy in 8, and at last a probability in 8, twice.
    assert peak < 25 * frames[..., 0].size
