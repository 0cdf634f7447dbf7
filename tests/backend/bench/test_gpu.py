"""bench gpu: parts that are done are kept, failures cost no other figure, and a machine without a GPU is told so."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from motionbooth.bench.gpu.card import card_of
from motionbooth.bench.gpu.part import Finding, Part, PartSkipped, reason_of
from motionbooth.bench.gpu.report import COLUMNS, GpuReport, table_heading
from motionbooth.bench.gpu.run import PARTS, bench_gpu, publish_report
from motionbooth.bench.measures import BenchResult, Measure, write_json
from motionbooth.cli.app import app
from motionbooth.server.model_version import PROGRAM_VERSION
from motionbooth_protocol.errors import InvalidInput
from refused import refused
from typer.testing import CliRunner

CPU = torch.device("cpu")


class Counted:
    """Parts that count how often they are run."""

    def __init__(self) -> None:
        self.runs: list[str] = []

    def works(self, device: torch.device) -> Iterator[Finding]:
        self.runs.append("works")
        yield Measure("zeroscope_step_seconds", torch.ones(2, device=device).sum().item(), "s")

    def fails(self, device: torch.device) -> Iterator[Finding]:
        self.runs.append("fails")
        yield Measure("wan_1_3b_step_seconds", 3.0, "s")
        yield Measure("never", float(torch.empty(1 << 60).numel()), "")

    def is_interrupted(self, device: torch.device) -> Iterator[Finding]:
        yield Measure("half", 1.0, "")
        raise KeyboardInterrupt

    def is_skipped(self, device: torch.device) -> Iterator[Finding]:
        if device.type == "cpu":
            raise PartSkipped("This part needs a checkout.")
        yield Measure("never", 1.0, "")

    @property
    def parts(self) -> dict[str, Part]:
        return {
            "works": Part(self.works, "float32"),
            "fails": Part(self.fails, "float16"),
            "skipped": Part(self.is_skipped, "-"),
        }


@pytest.fixture
def counted() -> Counted:
    return Counted()


def run(counted: Counted, file: Path | None, *chosen: str, fresh: bool = False, **more: Any) -> GpuReport:
    return bench_gpu(chosen, file, fresh, CPU, {**counted.parts, **more})


def test_a_part_that_is_done_is_not_repeated_and_one_that_failed_is(counted: Counted, tmp_path: Path) -> None:
    file = tmp_path / "new" / "gpu.json"
    run(counted, file, "works")
    assert set(run(counted, file).parts) == {"works", "fails", "skipped"}
    assert counted.runs == ["works", "fails"]
    run(counted, file)
    assert counted.runs == ["works", "fails", "fails"]
    run(counted, file, "works", "works", fresh=True)
    assert counted.runs == ["works", "fails", "fails", "works"]
    assert set(msgspec.json.decode(file.read_bytes(), type=GpuReport).parts) == {"works", "fails", "skipped"}


def test_running_out_of_memory_costs_no_other_figure(counted: Counted, tmp_path: Path) -> None:
    failed = run(counted, tmp_path / "gpu.json").parts["fails"]
    assert failed.state == "failed"
    assert [measure.name for measure in failed.measures] == ["wan_1_3b_step_seconds"]
    (reason,) = failed.reasons
    assert reason.startswith("fails: out of memory (")
    stored = json.loads((tmp_path / "gpu.json").read_text())
    assert stored["parts"]["works"]["measures"] == [{"name": "zeroscope_step_seconds", "value": 2.0, "unit": "s"}]
    assert stored["parts"]["skipped"]["state"] == "skipped"
    assert stored["parts"]["skipped"]["reasons"] == ["This part needs a checkout."]


def test_mps_which_has_no_error_of_its_own_is_understood() -> None:
    words = "MPS backend out of memory (MPS allocated: 18.00 GiB, max allowed: 18.13 GiB)"
    assert reason_of(RuntimeError(words)) == f"out of memory ({words})"


def test_an_interrupted_part_leaves_the_earlier_ones_and_is_run_again(counted: Counted, tmp_path: Path) -> None:
    file = tmp_path / "gpu.json"
    with pytest.raises(KeyboardInterrupt):
        run(counted, file, "works", "fails", "stops", stops=Part(counted.is_interrupted, ""))
    assert set(json.loads(file.read_text())["parts"]) == {"works", "fails"}
    assert list(tmp_path.iterdir()) == [file]
    stops = Part(lambda device: iter([Measure("whole", 1.0, "")]), "")
    assert run(counted, file, "works", "stops", stops=stops).parts["stops"].state == "done"
    assert counted.runs == ["works", "fails"]


def test_the_json_has_the_card_its_driver_torch_the_version_the_dtype_and_the_date(
    counted: Counted, tmp_path: Path
) -> None:
    run(counted, tmp_path / "gpu.json", "works")
    stored = json.loads((tmp_path / "gpu.json").read_text())
    card = stored["card"]
    assert card["torch"] == torch.__version__
    assert card["name"]
    assert card["driver"]
    assert re.fullmatch(rf"{re.escape(PROGRAM_VERSION)} \([0-9a-f]{{8}}\)", card["version"])
    assert stored["parts"]["works"]["dtype"] == "float32"
    assert datetime.fromisoformat(stored["parts"]["works"]["date"]).utcoffset() == timedelta()


@pytest.mark.parametrize("changed", [{"name": "Another"}, {"torch": "1.0"}, {"version": "0.0.1 (00000000)"}])
def test_figures_of_another_card_or_version_are_not_mixed_nor_overwritten(
    counted: Counted, tmp_path: Path, changed: dict[str, str]
) -> None:
    file = tmp_path / "gpu.json"
    other = GpuReport(msgspec.structs.replace(card_of(CPU), **changed))
    write_json(other, file)
    before = file.read_bytes()
    with refused(InvalidInput, path=str(file), other=..., this=...):
        run(counted, file)
    assert file.read_bytes() == before
    assert counted.runs == []
    assert run(counted, file, "works", fresh=True).card == card_of(CPU)


@pytest.mark.parametrize("text", ["", "{", '{"bench": "gpu", "measures": []}'])
def test_a_file_that_is_no_report_is_left_alone(counted: Counted, tmp_path: Path, text: str) -> None:
    (tmp_path / "notes.json").write_text(text)
    with refused(InvalidInput, path=str(tmp_path / "notes.json")):
        run(counted, tmp_path / "notes.json")
    assert (tmp_path / "notes.json").read_text() == text


def test_a_file_that_cannot_be_written_costs_no_time(counted: Counted, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        run(counted, tmp_path / "file" / "gpu.json")
    assert counted.runs == []


def test_the_table_and_the_row_have_the_figures(counted: Counted, capsys: pytest.CaptureFixture[str]) -> None:
    report = run(counted, None)
    publish_report(report)
    printed = " ".join(capsys.readouterr().out.split())
    for words in ("zeroscope_step_seconds", "fails: out of memory", "needs a checkout"):
        assert words in printed
    assert re.search(r"works: done in \d+ s \(float32\)", printed)
    publish_report(report, markdown=True)
    row = [cell.strip() for cell in capsys.readouterr().out.strip().strip("|").split("|")]
    heading = [cell.strip() for cell in table_heading().strip("|").split("|")]
    assert len(row) == len(heading) == 3 + len(COLUMNS)
    assert row[heading.index("Zeroscope: step, s")] == "2"
    assert row[heading.index("Wan 1.3B: step, s")] == "3"
    assert row[-1] == "-"


def test_an_unknown_part_and_a_missing_gpu_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with refused(InvalidInput, part="speed"):
        bench_gpu(["speed"])
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    result = CliRunner().invoke(app, ["bench", "gpu"])
    assert result.exit_code == 2
    assert result.output.count(".") == 1, "one sentence"
    assert "needs a GPU (CUDA, ROCm, MPS or XPU)" in result.output


@pytest.mark.parametrize(("part", "status"), [("works", 0), ("fails", 1), ("skipped", 0)])
def test_the_exit_status_says_whether_a_part_failed(
    counted: Counted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str, status: int
) -> None:
    monkeypatch.setattr("motionbooth.bench.gpu.run.bench_gpu", partial(bench_gpu, device=CPU, parts=counted.parts))
    result = CliRunner().invoke(app, ["bench", "gpu", "--part", part, "--json", str(tmp_path / "gpu.json")])
    assert result.exit_code == status


def test_a_result_can_be_written_to_a_device() -> None:
    write_json(BenchResult("gpu", []), Path("/dev/null"))
    assert not Path("/dev/null.part").exists()


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("part", PARTS)
def test_each_part_runs_on_a_gpu(part: str) -> None:
    (result,) = bench_gpu([part]).parts.values()
    assert result.state == "done", result.reasons
    assert len(result.measures) > 1
    assert all(np.isfinite(measure.value) for measure in result.measures)
