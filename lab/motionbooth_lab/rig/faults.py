"""Counts how many of the twenty injected faults the backend survives, by running their tests."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as xml
from collections import defaultdict
from pathlib import Path

import motionbooth
from rich.console import Console

FAULTS = range(1, 21)
_TESTS = Path("tests") / "backend" / "server" / "faults"


def faults_survived() -> int | None:
    """The number of faults whose tests all pass. None with a note if there are no tests."""
    checkout = Path(motionbooth.__path__[0]).parents[1]
    if not (checkout / _TESTS).is_dir():
        Console(stderr=True).print("Skipped the injected faults: their tests are only in a checkout.")
        return None
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", str(_TESTS)]
        subprocess.run(command, cwd=checkout, stdout=subprocess.DEVNULL)
        passed = by_fault(report)
    lost = [fault for fault in FAULTS if not passed.get(fault)]
    if lost:
        Console(stderr=True).print(f"Not survived: {', '.join(map(str, lost))}; run pytest {_TESTS} to see why.")
    return len(FAULTS) - len(lost)


def by_fault(report: Path) -> dict[int, bool]:
    """Whether all tests of each fault (test_fault_NN_...) passed. A skipped test counts as failed."""
    found: defaultdict[int, list[bool]] = defaultdict(list)
    for case in xml.parse(report).iter("testcase"):
        if numbered := re.match(r"test_fault_(\d\d)_", case.get("name", "")):
            found[int(numbered[1])].append(all(case.find(bad) is None for bad in ("failure", "error", "skipped")))
    return {fault: all(outcomes) for fault, outcomes in found.items()}
