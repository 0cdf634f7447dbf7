"""What the README says of the built-in measure of identity."""

import pytest
from motionbooth_lab.bench.recognition import bench_identity


@pytest.mark.slow
def test_shuffled_pixels_lose_and_two_equal_subjects_are_found() -> None:
    result = bench_identity()
    assert result.value("identity_shuffled_gap") >= 0.3
    assert result.value("identity_shuffled_gap_worst") >= 0.2
    assert result.value("recognized_share") >= 0.95
    assert result.value("false_share") <= 0.05
    assert result.value("two_equal_subjects_iou") >= 0.8
