"""The parts `tests` and `control`, which need a checkout: the wheel has neither tests nor laboratory."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import torch

from motionbooth.bench.gpu.card import seconds_on
from motionbooth.bench.gpu.part import Finding, PartSkipped, attempted
from motionbooth.bench.measures import Measure
from motionbooth.bench.real_size import random_training_data
from motionbooth.finetuning.trainable import set_trainable
from motionbooth.finetuning.trainer import Trainer
from motionbooth.models.registry import load_base
from motionbooth.models.sources import source_named

MARKED = "gpu and not slow and not desktop and not install"
TEST_SECONDS = 300.0
CONTROL_SECONDS = 80.0
"""For each bundled model; the whole bench is to take ten minutes."""

CLIPS_OF_A_SUBJECT = 16
"""Its four paths with the controls, without them and untrained, and two clips of the base's kinds before and after."""

FEWEST_KINDS = 2


def checkout() -> Path:
    """The checkout's folder. Raises PartSkipped in an installation without one."""
    found = find_spec("motionbooth_lab")
    folder = Path(found.origin).parents[2] if found is not None and found.origin else None
    if folder is None or not (folder / "tests").is_dir():
        raise PartSkipped("This part needs a checkout of the repository: the wheel has no tests and no laboratory.")
    return folder


# Tests


def bench_tests(device: torch.device, files: Sequence[Path] = ()) -> Iterator[Finding]:
    """The tests marked `gpu` in these files, by default in all that have any, in a process of their own."""
    folder = checkout()
    if find_spec("pytest") is None:
        raise PartSkipped("This part needs pytest: pip install -e '.[dev]' in the checkout.")
    found = (path for path in sorted((folder / "tests").rglob("test_*.py")) if "mark.gpu" in path.read_text("utf-8"))
    with tempfile.TemporaryDirectory(prefix="motionbooth-bench-") as scratch:
        report = Path(scratch) / "report.xml"
        options = ["-c", "pyproject.toml", "-m", MARKED, "-q", "-p", "no:cacheprovider", f"--junitxml={report}"]
        command = [sys.executable, "-m", "pytest", *options, *map(str, files or found)]
        try:
            ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=TEST_SECONDS)
        except subprocess.TimeoutExpired:
            yield f"The tests were ended after {TEST_SECONDS:g} s."
            return
        if ran.returncode not in (0, 1):  # not even run
            yield f"pytest ended with status {ran.returncode}: {(ran.stdout + ran.stderr).strip()[-200:]}"
            return
        cases = list(ElementTree.parse(report).iter("testcase"))
    bad = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
    skipped = sum(case.find("skipped") is not None for case in cases)
    for outcome, count in {"passed": len(cases) - len(bad) - skipped, "failed": len(bad), "skipped": skipped}.items():
        yield Measure(f"tests_{outcome}", count, "tests marked gpu")
    for case in bad:
        yield f"{case.get('classname')}::{case.get('name')} failed".lstrip(":")


# Control


def bench_control_on(device: torch.device, models: Sequence[str] = ("toybox", "wantoy")) -> Iterator[Finding]:
    """`bench control`, with as many of its kinds and subjects as an estimate says that there is time for."""
    checkout()
    for name in models:
        yield from attempted(name, device, lambda name=name: control_measures(name, device))  # type: ignore[misc]


def control_measures(name: str, device: torch.device, seconds: float = CONTROL_SECONDS) -> Iterator[Finding]:
    from motionbooth_lab.bench.bundled import Model
    from motionbooth_lab.bench.control import UNSEEN, bench_control, run_kind

    model = Model(name)
    began = time.monotonic()
    run_kind(0, model)  # loads the model and trains the classifier
    setup = time.monotonic() - began
    kind = seconds_on(device, lambda: run_kind(0, model))
    subject = training_seconds(name, device) + CLIPS_OF_A_SUBJECT * kind / 2
    kinds, subjects, whole = extent(setup, kind, subject, seconds)
    prefix = f"control_{name}"
    yield Measure(f"{prefix}_whole_seconds", whole, f"s, an estimate of 32 kinds and {UNSEEN} subjects")
    yield Measure(f"{prefix}_kinds", kinds, "of 32, by the estimate")
    yield Measure(f"{prefix}_subjects", subjects, f"of {UNSEEN}, by the estimate")
    for measure in bench_control(model, unseen=subjects, kinds=kinds).measures:
        yield msgspec.structs.replace(measure, name=f"{prefix}_{measure.name}")


def extent(setup: float, kind: float, subject: float, available: float) -> tuple[int, int, float]:
    """How many kinds and subjects there is time for, kinds first, and the seconds that all of them would take.

    All in seconds: `setup` once, and `kind` and `subject` each. As if they ran one after the other; two at a time is at
    most twice as fast.
    """
    from motionbooth_lab.bench.cases import BASE_CASES
    from motionbooth_lab.bench.control import UNSEEN

    left = available - setup
    kinds = min(max(int(left / kind), FEWEST_KINDS), BASE_CASES)
    subjects = min(max(int((left - kinds * kind) / subject), 0), UNSEEN)
    return kinds, subjects, setup + BASE_CASES * kind + UNSEEN * subject


def training_seconds(name: str, device: torch.device) -> float:
    """The optimizer steps of a training with the model's own settings, from three of them on noise."""
    base = load_base(source_named(name), device.type, training=True)
    settings = getattr(base.settings, base.settings.method)
    set_trainable(base, settings, base.settings.method, seed=0)
    plain = msgspec.structs.replace(settings, paste=None)
    trainer = Trainer(base, plain, random_training_data(base, base.embed(["a dog"]), (2,)), seed=0)
    trainer.take_step()
    return settings.steps * seconds_on(device, lambda: [trainer.take_step() for _ in range(3)]) / 3
