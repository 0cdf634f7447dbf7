from __future__ import annotations

from itertools import islice

import pytest
from motionbooth_lab.rig.foreign import foreign_messages
from motionbooth_lab.rig.fuzz import bench_fuzz, fuzz_decoder


def test_the_decoder_rejects_malformed_messages() -> None:
    sent, accepted, _ = fuzz_decoder(5000, seconds=30, seed=1)
    assert sent.value == 5000
    assert 0 < accepted.value < 2500


@pytest.mark.slow
def test_malformed_messages_are_rejected_and_harm_no_session() -> None:
    result = bench_fuzz(5000, seconds=30, seed=1)
    assert result.value("decoder_messages") == 5000
    assert 0 < result.value("decoder_accepted") < 2500
    assert result.value("session_messages") > 1000
    assert result.value("session_answers") > 500


def test_the_same_seed_gives_the_same_messages() -> None:
    assert list(islice(foreign_messages(3), 200)) == list(islice(foreign_messages(3), 200))
