"""The result of a benchmark as table and JSON."""

import json
from pathlib import Path

import pytest
from motionbooth.bench.measures import BenchResult, Measure, publish

RESULT = BenchResult("control", [Measure("iou", 0.61, "0..1"), Measure("flow_error", 0.4, "px a frame")])


def test_the_table_and_the_json_say_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    publish(RESULT, tmp_path / "new" / "control.json")
    assert json.loads((tmp_path / "new" / "control.json").read_text()) == {
        "bench": "control",
        "measures": [
            {"name": "iou", "value": 0.61, "unit": "0..1"},
            {"name": "flow_error", "value": 0.4, "unit": "px a frame"},
        ],
    }
    printed = capsys.readouterr().out
    assert "iou" in printed
    assert "0.61" in printed


def test_a_file_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):  # the command line says it in words
        publish(RESULT, tmp_path / "file" / "control.json")


def test_values_are_looked_up_by_name() -> None:
    assert RESULT.value("flow_error") == 0.4
    with pytest.raises(KeyError):
        RESULT.value("speed")
