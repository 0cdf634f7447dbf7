from __future__ import annotations

from itertools import islice

from motionbooth_lab.rig.foreign import foreign_messages
from motionbooth_lab.rig.fuzz import bench_fuzz


def test_malformed_messages_are_rejected_and_harm_no_session() -> None:
    result = bench_fuzz(5000, seconds=30, seed=1)
    assert result.value("decoder_messages") == 5000
    assert 0 < result.value("decoder_accepted") < 2500
    assert result.value("session_messages") > 1000
    assert result.value("session_answers") > 500


def test_the_same_seed_gives_the_same_messages() -> None:
    assert list(islice(foreign_messages(3), 200)) == list(islice(foreign_messages(3), 200))
