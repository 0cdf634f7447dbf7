"""One time left for the whole job: by a clock of the test's own, and in real jobs whose network costs what it gets."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import platformdirs
import pytest
import torch
from diffusers import AutoencoderKL, UNet3DConditionModel
from motionbooth.jobs.runner import run_job
from motionbooth.models.sources import Source
from motionbooth.progress.display import DisplayReporter, LogLines
from motionbooth.progress.stages import DECODED, PICTURES, TRAINING, train_stages
from motionbooth.progress.time_left import Paces, Stage, TimeLeft
from motionbooth_protocol.jobs import GenerateSpec, JobSpec, Picture, SubjectSpec, TrainSpec
from motionbooth_protocol.motion import Box, CameraPath, Shot, SubjectTrack
from motionbooth_protocol.text import Text
from PIL import Image, ImageDraw


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


PLAN = [Stage("loading", 1), Stage("sampling", 10, work=2.0), Stage("decoding", 5, work=4.0)]


def test_the_time_left_is_that_of_all_stages_and_unknown_before_a_step_is_measured() -> None:
    clock = Clock()
    left = TimeLeft(clock=clock)
    left.plan(PLAN)
    assert left.step("loading", 0, 1) is None
    clock.now += 7  # no measure for anything else
    assert left.step("loading", 1, 1) is None
    assert left.step("sampling", 0, 10) is None
    clock.now += 6  # 3 s for a unit
    assert left.step("sampling", 1, 10) == pytest.approx(9 * 6 + 5 * 4 * 3)


def test_a_stage_is_told_by_its_own_pace_as_soon_as_it_has_one_and_by_that_of_an_earlier_job() -> None:
    clock, paces = Clock(), Paces()
    for attempt in range(2):
        left = TimeLeft("generate", paces, clock)
        left.plan(PLAN)
        left.step("loading", 0, 1)
        clock.now += 7
        left.step("loading", 1, 1)
        left.step("sampling", 0, 10)
        clock.now += 6 * 10
        said = left.step("sampling", 10, 10)
        assert said == pytest.approx(5 * 1 if attempt else 5 * 4 * 3), "a frame takes 1 s and not 12"
        left.step("decoding", 0, 5)
        clock.now += 1
        assert left.step("decoding", 1, 5) == pytest.approx(4)
        clock.now += 4
        assert left.step("decoding", 5, 5) == pytest.approx(0)
    again = TimeLeft("generate", paces, clock)
    again.plan(PLAN)
    assert again.step("loading", 0, 1) == pytest.approx(7 + 60 + 5), "known from its first moment"
    other = TimeLeft("train", paces, clock)
    other.plan(PLAN)
    assert other.step("loading", 0, 1) is None, "of another kind"


def test_work_that_comes_every_few_steps_is_counted_before_it_comes() -> None:
    clock = Clock()
    left = TimeLeft(clock=clock)
    left.plan([Stage("training", 10, work=1.0, every=4, extra=5.0)])
    left.step("training", 0, 10)
    clock.now += 2
    assert left.step("training", 1, 10) == pytest.approx(2 * (9 + 3 * 5)), "after 4, 8 and the last"
    clock.now += 2 * (3 + 5)
    assert left.step("training", 4, 10) == pytest.approx(2 * (6 + 2 * 5))


def test_stages_that_take_turns_and_one_that_is_gone_on_with() -> None:
    clock = Clock()
    left = TimeLeft(clock=clock)
    left.plan([Stage("sampling", 20, work=1.0), Stage("decoding", 4, work=2.0)])
    left.step("sampling", 0, 20)
    clock.now += 10
    assert left.step("sampling", 10, 20) == pytest.approx(10 + 8)
    left.step("decoding", 0, 4)
    clock.now += 6  # 1.5 s a unit
    assert left.step("decoding", 2, 4) == pytest.approx(6 + 10)
    assert left.step("sampling", 10, 20) == pytest.approx(6 + 10)
    resumed = TimeLeft(clock=clock)
    resumed.plan([Stage("training", 100, work=1.0)])
    assert resumed.step("training", 91, 100) is None
    clock.now += 1
    assert resumed.step("training", 92, 100) == pytest.approx(8)


def test_a_stage_that_nobody_planned_is_told_alone() -> None:
    clock = Clock()
    left = TimeLeft(clock=clock)
    left.step("sending", 0, 4)
    clock.now += 1
    assert left.step("sending", 1, 4) == pytest.approx(3)


class Log:
    """Keeps what was said and when."""

    def __init__(self, clock: Clock) -> None:
        self.said: list[tuple[str, float, float | None]] = []
        self._clock = clock
        self._left = TimeLeft(clock=clock)

    def plan(self, stages: Sequence[Stage]) -> None:
        self._left.plan(stages)

    def progress(self, stage: str, step: int, steps: int, note: Text | None = None) -> None:
        self.said.append((stage, self._clock.now, self._left.step(stage, step, steps)))


@pytest.fixture
def clock(tiny_source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Advances by 1 s for each frame that passes through the network, 3 s where it is trained on."""
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "tiny").symlink_to(tiny_source.folder)
    monkeypatch.setenv("MOTIONBOOTH_MODELS", str(tmp_path / "models"))
    monkeypatch.setattr(platformdirs, "user_cache_path", lambda name: tmp_path / "cache" / name)
    clock = Clock()
    forward, decode = UNet3DConditionModel.forward, AutoencoderKL.decode

    def timed(unet: UNet3DConditionModel, sample: torch.Tensor, *args: Any, **more: Any) -> Any:
        clock.now += sample.shape[0] * sample.shape[2] * (3.0 if torch.is_grad_enabled() else 1.0)
        return forward(unet, sample, *args, **more)

    def timed_decode(vae: AutoencoderKL, latents: torch.Tensor, *args: Any, **more: Any) -> Any:
        clock.now += DECODED * len(latents)
        return decode(vae, latents, *args, **more)

    monkeypatch.setattr(UNet3DConditionModel, "forward", timed)
    monkeypatch.setattr(AutoencoderKL, "decode", timed_decode)
    return clock


def generate_spec(blobs: Path) -> GenerateSpec:
    track = SubjectTrack("Red", "dog", [Box(0.2, 0.2, 0.7, 0.8)] * 4)
    shot = Shot("shot", 1, 9, 24, 192, 128, CameraPath.still(4), [track])
    return GenerateSpec(shot, "a dog in the park", model="tiny", num_inference_steps=6)


def train_spec(blobs: Path) -> TrainSpec:
    picture = Image.new("RGBA", (100, 80))
    ImageDraw.Draw(picture).ellipse((20, 10, 70, 60), fill=(220, 40, 40, 255))
    picture.save(blobs / "new.png")
    sha256 = hashlib.sha256((blobs / "new.png").read_bytes()).hexdigest()
    (blobs / "new.png").rename(blobs / sha256)
    return TrainSpec(SubjectSpec("Red", "sks", "dog", [Picture(sha256)]), model="tiny", steps=12)


def test_the_pace_of_encoding_pictures_says_nothing_of_training(tiny_source: Source, tmp_path: Path) -> None:
    clock = Clock()
    left = TimeLeft(clock=clock)
    left.plan(train_stages(tiny_source.settings, tiny_source.settings.lora, train_spec(tmp_path)))
    left.step(PICTURES, 0, 100)
    clock.now += 0.1
    assert left.step(PICTURES, 100, 100) is None
    assert left.step(TRAINING, 0, 12) is None


@pytest.mark.parametrize("make", [generate_spec, train_spec])
def test_what_a_real_job_says_is_what_it_takes(make: Any, clock: Clock, tmp_path: Path) -> None:
    """The plan of a real job has the work that is done, prior-preservation clips included."""
    (tmp_path / "blobs").mkdir()
    spec: JobSpec = make(tmp_path / "blobs")
    log = Log(clock)
    run_job(spec, (tmp_path / "blobs").joinpath, tmp_path, log)
    said = [(stage, clock.now - at, left) for stage, at, left in log.said if left is not None and clock.now > at]
    stages = [stage for stage, _, _ in said]
    assert {"sampling", "decoding"} <= set(stages) or {"generating prior-preservation clips", "training"} <= set(stages)
    for stage, true, left in said:
        # What nobody steps through costs this clock nothing and the plan a little: writing and measuring the clip.
        assert left == pytest.approx(true, rel=0.05, abs=10), stage
    assert not [left for stage, _, left in log.said if stage == "loading the model" and left is not None]


def test_lines_of_a_log_have_the_time_the_share_and_one_time_left(capsys: pytest.CaptureFixture[str]) -> None:
    reporter = DisplayReporter(LogLines().show)
    reporter.plan([Stage("training", 50, work=1.0)])
    for step in range(51):
        reporter.progress("training", step, 50, Text(f"loss {step}"))
    first, last = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  training 0% \(0 of 50\), loss 0", first)
    assert re.fullmatch(r".*  training 100% \(50 of 50\), loss 50, about 0 s left", last)
