from __future__ import annotations

from pathlib import Path

import pytest
from motionbooth_lab.bench import server
from motionbooth_lab.rig.faults import by_fault

REPORT = """<testsuites><testsuite>
<testcase name="test_fault_03_one"/><testcase name="test_fault_03_another[x]"><failure/></testcase>
<testcase name="test_fault_04_one"/><testcase name="test_fault_04_another[x]"/>
<testcase name="test_fault_05_one"><skipped/></testcase><testcase name="test_without_a_number"><failure/></testcase>
</testsuite></testsuites>"""


def test_a_fault_is_survived_only_if_all_of_its_tests_ran_and_passed(tmp_path: Path) -> None:
    (tmp_path / "report.xml").write_text(REPORT)
    assert by_fault(tmp_path / "report.xml") == {3: False, 4: True, 5: False}


@pytest.mark.slow
def test_each_part_reports_its_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = {"_CLIP_BYTES": 4_000_000, "_ROUNDS": 1, "_SUBMITS": 5, "_CLIENTS": 5, "_SECONDS": 1.0, "_JOBS": 100}
    for name, value in small.items():
        monkeypatch.setattr(server, name, value)
    monkeypatch.setattr(server, "_ATTACKERS_JOBS", 600)
    monkeypatch.setattr(server, "_HANG_UPS", {})
    measures = server.transfer(tmp_path / "1") + server.submitting(tmp_path / "2")
    measures += server.many_clients(tmp_path / "3") + server.many_jobs(tmp_path / "4")
    measures += server.attacks(tmp_path / "5")
    values = {measure.name: measure.value for measure in measures}
    assert values["transfer_ratio"] == pytest.approx(values["transfer_mb_s"] / values["bare_pair_mb_s"])
    assert values["submit_ms"] > 0
    assert 0 < values["ping_p99_ms"] < 5000
    assert 10 < values["reports_heard_a_second"] < 80
    assert abs(values["store_memory_mb"]) < 50
    assert values["hangup_aborts"] == 0
    assert 0 < values["others_ping_ms"] < 5000
    assert values["attack_memory_mb"] <= 100
