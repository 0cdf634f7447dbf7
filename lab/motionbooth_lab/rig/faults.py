"""The twenty faults that a backend must survive: how many it does, by the tests that inject them."""

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
    """How many of the faults pass all of their tests; None, and said so, where this is no checkout with tests."""
    checkout = Path(motionbooth.__path__[0]).parents[1]
    if not (checkout / _TESTS).is_dir():
        Console(stderr=True).print("The faults are injected by the tests, which are in a checkout only: left out.")
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
    """Whether all tests of a fault, named test_fault_NN_..., passed; one that was skipped proves nothing."""
    found: defaultdict[int, list[bool]] = defaultdict(list)
    for case in xml.parse(report).iter("testcase"):
        if numbered := re.match(r"test_fault_(\d\d)_", case.get("name", "")):
            found[int(numbered[1])].append(all(case.find(bad) is None for bad in ("failure", "error", "skipped")))
    return {fault: all(outcomes) for fault, outcomes in found.items()}
