"""bench ablation: its figures, its intervals, and how it continues after an interruption."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import msgspec
import numpy as np
import psutil
import pytest
from motionbooth.evaluation.box_adherence import SubjectFrame
from motionbooth.evaluation.report import CameraFrame, MotionReport, SubjectReport
from motionbooth.models.sources import source_named
from motionbooth_lab.bench.ablation import (
    UNTRAINED,
    Run,
    RunFigures,
    bench_ablation,
    likeness,
    read_results,
    recipe_measures,
    result_file,
    run_figures,
    with_seed,
    without_token,
)
from motionbooth_lab.bench.cases import subject_cases
from motionbooth_lab.bench.subjects import TrainingSet, unseen_subjects
from motionbooth_protocol.motion import Box

BOX = Box(0.25, 0.25, 0.75, 0.75)


def clip_of(subject: TrainingSet, number: int) -> np.ndarray:
    """Two frames with the subject, cut out of one of its pictures, in BOX."""
    rows, columns = np.nonzero(subject.masks[number])
    part = slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1)
    frame = np.full((64, 96, 3), 90, np.uint8)
    frame[16:48, 24:72] = cv2.resize(subject.pictures[number][part], (48, 32), interpolation=cv2.INTER_AREA)
    return np.stack([frame, frame])


def test_the_subject_itself_is_like_it_and_others_are_less() -> None:
    robot, duck = unseen_subjects()[:2]
    assert likeness(clip_of(robot, 1), [BOX] * 2, robot) > 0.95
    assert likeness(clip_of(duck, 1), [BOX] * 2, robot) < 0.5


def test_a_patch_of_its_mean_color_is_not_like_it() -> None:
    robot = unseen_subjects()[0]
    patch = np.zeros((2, 64, 96, 3), np.uint8) + robot.pictures[0][robot.masks[0] > 0].mean(0).astype(np.uint8)
    assert abs(likeness(patch, [BOX] * 2, robot)) < 0.05


def test_the_clip_without_the_token_is_otherwise_the_same() -> None:
    robot = unseen_subjects()[0]
    case = next(subject_cases(robot, "0" * 64))
    plain = without_token(case)
    assert plain.spec.prompt == case.spec.prompt.replace("sks robot", "robot")
    assert plain.spec.shot.subjects[0].phrase == "robot"
    assert (plain.spec.seed, plain.boxes) == (case.spec.seed, case.boxes)


def one_run(iou: float, drift: float) -> RunFigures:
    """The figures of a training whose only clip has this IoU."""
    frame = SubjectFrame(BOX, BOX, 0.0, iou)
    subject = SubjectReport("robot", iou, 0.0, 1.0, [frame])
    report = MotionReport(96, 64, [subject], 0.5, [CameraFrame((0.0, 0.0), (0.5, 0.0), 0.5, 0.5)])
    return run_figures([report], likeness=0.5, leak=0.1, drift=drift)


def test_intervals_are_over_subjects_and_not_over_their_seeds() -> None:
    figures_of = [[one_run(iou, 8.0) for iou in seeds] for seeds in ((0.5, 0.7), (0.6, 0.8), (0.9, 0.9), (0.4, 0.4))]
    figures = {measure.name: measure for measure in recipe_measures("no-region", figures_of)}
    iou = figures["iou_no_region"]
    means = [0.6, 0.7, 0.9, 0.4]
    half = 3.1824 * np.std(means, ddof=1) / 2  # Student's t for 3 degrees of freedom, from a table
    assert (iou.value, iou.low, iou.high) == pytest.approx((0.65, 0.65 - half, 0.65 + half), abs=1e-4)
    drift = figures["drift_no_region"]
    assert (drift.value, drift.low, drift.high) == pytest.approx((8, 8, 8))
    assert figures["flow_error_no_region"].value == pytest.approx(0.5)


def test_one_subject_has_an_interval_over_its_seeds_and_one_run_has_none() -> None:
    (iou, *_) = recipe_measures("motionbooth", [[one_run(0.5, 8.0), one_run(0.7, 8.0)]])
    assert iou.low is not None
    assert iou.low < 0.5 < iou.value < 0.7
    (iou, *_) = recipe_measures("motionbooth", [[one_run(0.5, 8.0)]])
    assert (iou.low, iou.high) == (None, None)


def test_other_seeds_have_the_same_boxes_and_never_each_others_noise() -> None:
    cases = list(subject_cases(unseen_subjects()[0], "0" * 64))
    assert [with_seed(case, 0) for case in cases] == cases
    others = [with_seed(case, seed) for case in cases for seed in range(3)]
    assert len({other.spec.seed for other in others}) == len(others)
    assert {tuple(other.boxes) for other in others} == {tuple(case.boxes) for case in cases}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder for this process and its children."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


def test_finished_runs_are_read_from_the_cache_and_nothing_is_trained_again(cache: Path) -> None:
    runs = [Run(recipe, 0, seed, 1) for recipe in (UNTRAINED, "no-region") for seed in range(2)]
    for number, run in enumerate(runs):
        file = result_file(run)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(msgspec.json.encode(RunFigures(number / 10, 1.0, 0.5, 0.1, 8.0, None)))
    result = bench_ablation(1, 1, ["no-region"], seeds=2)
    assert result.value("iou_untrained") == pytest.approx(0.05)
    assert result.value("iou_no_region") == pytest.approx(0.25)
    assert np.isnan(result.value("flow_error_no_region"))


@pytest.mark.parametrize(
    "change",
    [
        lambda run: replace(run, recipe="no-attention"),
        lambda run: replace(run, subject=1),
        lambda run: replace(run, seed=1),
        lambda run: replace(run, steps=2),
    ],
)
def test_a_result_belongs_to_its_recipe_subject_seed_and_steps(change: Callable[[Run], Run]) -> None:
    run = Run("no-region", 0, 0, 1)
    assert result_file(change(run)) != result_file(run)
    assert result_file(replace(run)) == result_file(run)


def test_a_result_belongs_to_the_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = result_file(Run("no-region", 0))
    shutil.copytree(source_named("toybox").folder, tmp_path / "toybox")
    monkeypatch.setenv("MOTIONBOOTH_MODELS", str(tmp_path))  # a model of this name there replaces the bundled one
    assert result_file(Run("no-region", 0)) == before
    weights = next((tmp_path / "toybox" / "unet").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    assert result_file(Run("no-region", 0)) != before


def test_a_damaged_result_is_computed_again(cache: Path) -> None:
    run = Run("no-region", 0, 0, 1)
    result_file(run).parent.mkdir(parents=True)
    result_file(run).write_bytes(b'{"iou": 0.')
    assert read_results([run]) == {}


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_killed_bench_leaves_no_process_and_continues_with_the_missing_runs(cache: Path) -> None:
    script = "if __name__ == '__main__':\n    from motionbooth_lab.bench.ablation import bench_ablation as bench\n"
    script += "    bench(2, 1, ['no-preservation'], seeds=2)\n"
    (cache / "bench.py").write_text(script)
    bench = subprocess.Popen([sys.executable, cache / "bench.py"], env=dict(os.environ))
    results = cache / "motionbooth" / "bench_ablation"
    until(lambda: any(results.glob("*.json")), 600)
    children = psutil.Process(bench.pid).children(recursive=True)
    bench.kill()
    bench.wait()
    _, alive = psutil.wait_procs(children, timeout=30)
    assert not alive
    finished = {file: file.stat().st_mtime_ns for file in results.glob("*.json")}
    assert 1 <= len(finished) < 8

    result = bench_ablation(2, 1, ["no-preservation"], seeds=2)
    assert len(list(results.glob("*.json"))) == 8
    assert finished == {file: file.stat().st_mtime_ns for file in finished}
    for figure in ("iou", "found", "likeness", "leak", "drift", "flow_error"):
        (measure,) = (each for each in result.measures if each.name == f"{figure}_no_preservation")
        assert measure.low is not None
        assert measure.high is not None
        assert measure.low <= measure.value <= measure.high


def until(holds: Callable[[], bool], seconds: float) -> None:
    """Wait for it. Raises TimeoutError."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.2)
