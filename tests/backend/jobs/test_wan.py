"""A worker's jobs on a base of the other family: nothing but the model's name differs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import platformdirs
import pytest
from motionbooth.evaluation.report import MotionReport
from motionbooth.generation.video import read_clip
from motionbooth.jobs.model_cache import ModelCache
from motionbooth.jobs.runner import run_job
from motionbooth.progress.time_left import Stage
from motionbooth_protocol.jobs import GenerateSpec, Picture, SubjectSpec, TrainSpec
from motionbooth_protocol.motion import Box, CameraPath, Shot, SubjectTrack
from motionbooth_protocol.text import Text
from PIL import Image
from tiny_wan import save_wan


class Log:
    """A reporter that remembers."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def plan(self, stages: Sequence[Stage]) -> None:
        self.planned = stages

    def progress(self, stage: str, step: int, steps: int, note: Text | None = None) -> None:
        self.seen.append(stage)


@pytest.fixture
def tinywan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_wan(tmp_path / "models" / "tinywan", "unipc")
    monkeypatch.setenv("MOTIONBOOTH_MODELS", str(tmp_path / "models"))


@pytest.mark.usefixtures("tinywan")
def test_a_shot_becomes_a_clip_with_previews_and_a_report(tmp_path: Path) -> None:
    track = SubjectTrack("dog", "dog", [Box(0.1 + 0.05 * f, 0.2, 0.5 + 0.05 * f, 0.7) for f in range(9)], token="red")
    shot = Shot("s", 1, 14, 24, 64, 48, CameraPath.straight(0.5, 0, 9), [track])
    spec = GenerateSpec(shot, "a red dog on the grass", model="tinywan", num_inference_steps=3)
    log, shown, cache = Log(), [], ModelCache()
    results = run_job(spec, Path, tmp_path, log, cache, lambda *picture: shown.append(picture))
    frames, fps = read_clip(results["clip"])
    assert (frames.shape, fps) == ((14, 48, 64, 3), 24)
    report = msgspec.json.decode(results["report"].read_bytes(), type=MotionReport)
    assert len(report.camera) == 8
    assert {"sampling", "decoding"} <= {stage.lower() for stage in log.seen}
    assert shown
    first = results["clip"].read_bytes()
    assert run_job(spec, Path, tmp_path, log, cache)["clip"].read_bytes() == first, "of the same, warm model"


@pytest.mark.usefixtures("tinywan")
def test_a_subject_is_trained_and_generated_in_its_box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platformdirs, "user_cache_path", lambda name: tmp_path / "cache" / name)
    Image.effect_noise((64, 48), 90).convert("RGB").save(tmp_path / ("0" * 64), "PNG")
    Image.linear_gradient("L").resize((64, 48)).save(tmp_path / ("1" * 64), "PNG")
    subject = SubjectSpec("Rex", "sks", "dog", [Picture("0" * 64, "1" * 64)])
    training = TrainSpec(subject, model="tinywan", steps=2, learning_rate=0.05)
    weights = run_job(training, tmp_path.joinpath, tmp_path, Log())["subject"].rename(tmp_path / ("2" * 64))
    assert weights.stat().st_size > 0

    def clip(weights: str | None) -> bytes:
        track = SubjectTrack("dog", "dog", [Box(0.1, 0.2, 0.6, 0.8)] * 9, token="sks", weights=weights)
        shot = Shot("s", 1, 9, 16, 64, 48, CameraPath.still(9), [track])
        spec = GenerateSpec(shot, "a sks dog on the grass", model="tinywan", num_inference_steps=2)
        return run_job(spec, tmp_path.joinpath, tmp_path, Log())["clip"].read_bytes()

    assert clip("2" * 64) != clip(None)
