"""A worker's two jobs from spec to file, on the tiny base."""

from __future__ import annotations

import hashlib
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path

import cv2
import msgspec
import numpy as np
import platformdirs
import pytest
import torch
from motionbooth.evaluation.report import MotionReport
from motionbooth.generation.sampling import generate_exactly
from motionbooth.generation.video import read_clip
from motionbooth.jobs.runner import run_job
from motionbooth.models.base import Base
from motionbooth.models.sources import Source
from motionbooth.models.subject_card import read_card
from motionbooth.progress.time_left import Stage
from motionbooth_protocol.errors import Canceled, InvalidInput
from motionbooth_protocol.jobs import GenerateSpec, Picture, SubjectSpec, TrainSpec
from motionbooth_protocol.masters import Master
from motionbooth_protocol.motion import Box, CameraPath, Shot, SubjectTrack
from motionbooth_protocol.text import Text
from PIL import Image, ImageDraw
from refused import refused
from safetensors.torch import save_file


class Log:
    """A reporter that remembers, and cancels at a given stage."""

    def __init__(self, cancel_at: tuple[str, int] | None = None) -> None:
        self.seen: list[tuple[str, int, int]] = []
        self._cancel_at = cancel_at

    def plan(self, stages: Sequence[Stage]) -> None:
        pass

    def progress(self, stage: str, step: int, steps: int, note: Text | None = None) -> None:
        self.seen.append((stage, step, steps))
        if (stage, step) == self._cancel_at:
            raise Canceled("The job was canceled.")

    @property
    def stages(self) -> list[str]:
        return list(dict.fromkeys(stage for stage, _, _ in self.seen))


@pytest.fixture
def blobs(tmp_path: Path) -> Path:
    folder = tmp_path / "blobs"
    folder.mkdir()
    return folder


@pytest.fixture(autouse=True)
def tiny_model(tiny_source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models = tmp_path / "models"
    models.mkdir()
    (models / "tiny").symlink_to(tiny_source.folder)
    monkeypatch.setenv("MOTIONBOOTH_MODELS", str(models))
    monkeypatch.setattr(platformdirs, "user_cache_path", lambda name: tmp_path / "cache" / name)


def keep(blobs: Path, content: bytes) -> str:
    sha256 = hashlib.sha256(content).hexdigest()
    (blobs / sha256).write_bytes(content)
    return sha256


def drawn_picture(blobs: Path, number: int) -> Picture:
    picture = Image.new("RGBA", (100, 80))
    ImageDraw.Draw(picture).ellipse((20 + number, 10, 70, 60), fill=(220, 40, 40, 255))
    path = blobs / "new.png"
    picture.save(path)
    return Picture(keep(blobs, path.read_bytes()))


def train_spec(blobs: Path) -> TrainSpec:
    pictures = [drawn_picture(blobs, number) for number in range(2)]
    return TrainSpec(SubjectSpec("Red", "sks", "dog", pictures), model="tiny", steps=2)


def generate_spec(weights: str | None = None) -> GenerateSpec:
    track = SubjectTrack("Red", "dog", [Box(0.2, 0.2, 0.7, 0.8)] * 4, token="sks", weights=weights)
    shot = Shot("shot", 1, 9, 24, 192, 128, CameraPath.straight(0.3, 0, 4), [track])
    return GenerateSpec(shot, "a sks dog in the park", model="tiny", num_inference_steps=2)


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_subject_is_trained_and_generated(tmp_path: Path, blobs: Path, method: str) -> None:
    spec = msgspec.structs.replace(train_spec(blobs), method=method, learning_rate=0.01)
    log = Log()
    subject = run_job(spec, blobs.joinpath, tmp_path, log)["subject"]
    assert log.stages == [
        "loading the model",
        "finding masks",
        "generating prior-preservation clips",
        "encoding pictures",
        "training",
    ]
    card = read_card(subject)
    assert (card.name, card.token, card.class_word, card.base, card.method) == ("Red", "sks", "dog", "tiny", method)

    log = Log()
    weights = keep(blobs, subject.read_bytes())
    results = run_job(generate_spec(weights), blobs.joinpath, tmp_path, log)
    clip = results["clip"]
    report = msgspec.json.decode(results["report"].read_bytes(), type=MotionReport)
    assert [subject.name for subject in report.subjects] == ["Red"]  # found by the looks in its own file
    assert len(report.camera) == 3
    assert log.stages == ["loading the model", "sampling", "decoding", "encoding", "measuring"]
    frames, fps = read_clip(clip)
    assert frames.shape == (9, 128, 192, 3)
    assert fps == 24
    of_the_base = run_job(generate_spec(), blobs.joinpath, tmp_path, Log())["clip"]
    assert not np.array_equal(read_clip(of_the_base)[0], frames)


def test_the_same_job_twice_gives_the_same_bytes(tmp_path: Path, blobs: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    spec = train_spec(blobs)
    first, second = (run_job(spec, blobs.joinpath, tmp_path / name, Log())["subject"].read_bytes() for name in "ab")
    assert first == second
    first, second = (
        run_job(generate_spec(), blobs.joinpath, tmp_path / name, Log())["clip"].read_bytes() for name in "ab"
    )
    assert first == second


def test_a_master_has_the_decoded_frames_and_leaves_the_clip_as_it_is(
    tmp_path: Path, blobs: Path, tiny_single: Base
) -> None:
    spec = msgspec.structs.replace(generate_spec(), master=Master.PNG)
    plain = run_job(generate_spec(), blobs.joinpath, tmp_path, Log())["clip"].read_bytes()
    log = Log()
    results = run_job(spec, blobs.joinpath, tmp_path, log)
    assert results["clip"].read_bytes() == plain
    assert log.stages == ["loading the model", "sampling", "decoding", "encoding", "writing the master", "measuring"]
    with zipfile.ZipFile(results["master"]) as packed:
        assert packed.namelist() == [f"000{frame}.png" for frame in range(1, 10)]
        last = cv2.imdecode(np.frombuffer(packed.read("0009.png"), np.uint8), cv2.IMREAD_UNCHANGED)[..., ::-1]
    exact = generate_exactly(tiny_single, generate_spec(), [0])[0, -1].numpy()
    assert np.array_equal(last, (exact.astype(np.float64) * 65535).round())
    assert len(np.unique(last)) > 256, "more than 8 bits"


def test_a_master_that_does_not_fit_is_refused_before_the_model_is_loaded(tmp_path: Path, blobs: Path) -> None:
    log = Log()
    with refused(InvalidInput, master="dnxhr", width=192, height=128):
        run_job(msgspec.structs.replace(generate_spec(), master=Master.DNXHR), blobs.joinpath, tmp_path, log)
    assert not log.seen


def test_a_job_is_canceled_while_its_master_is_written(tmp_path: Path, blobs: Path) -> None:
    spec = msgspec.structs.replace(generate_spec(), master=Master.EXR)
    with pytest.raises(Canceled):
        run_job(spec, blobs.joinpath, tmp_path, Log(cancel_at=("writing the master", 3)))


def test_prior_preservation_clips_are_generated_once(tmp_path: Path, blobs: Path) -> None:
    run_job(train_spec(blobs), blobs.joinpath, tmp_path, Log())
    log = Log()
    run_job(msgspec.structs.replace(train_spec(blobs), seed=1), blobs.joinpath, tmp_path, log)
    assert "generating prior-preservation clips" not in log.stages


@pytest.mark.parametrize("at", [("generating prior-preservation clips", 2), ("training", 1)])
def test_a_canceled_training_stops_and_can_begin_again(tmp_path: Path, blobs: Path, at: tuple[str, int]) -> None:
    with pytest.raises(Canceled):
        run_job(train_spec(blobs), blobs.joinpath, tmp_path, Log(cancel_at=at))
    assert run_job(train_spec(blobs), blobs.joinpath, tmp_path, Log())["subject"].is_file()


def test_two_subjects_are_generated_together(tmp_path: Path, blobs: Path, tiny_source: Source) -> None:
    weights = []
    for number, token in enumerate(["sks", "toy"]):
        subject = SubjectSpec(token, token, "dog", [drawn_picture(blobs, number)])
        spec = TrainSpec(subject, model="tiny", steps=1, seed=number, learning_rate=0.01)
        weights.append(keep(blobs, run_job(spec, blobs.joinpath, tmp_path, Log())["subject"].read_bytes()))
    tracks = [
        SubjectTrack("a", "dog", [Box(0.0, 0.2, 0.4, 0.8)] * 4, token="sks", weights=weights[0]),
        SubjectTrack("b", "dog", [Box(0.6, 0.2, 1.0, 0.8)] * 4, token="toy", weights=weights[1]),
    ]
    shot = Shot("shot", 1, 9, 24, 192, 128, CameraPath.still(4), tracks)
    spec = GenerateSpec(shot, "a sks dog and a toy dog", model="tiny", num_inference_steps=1)
    assert read_clip(run_job(spec, blobs.joinpath, tmp_path, Log())["clip"])[0].shape[0] == 9


def test_a_subject_of_another_base_is_refused(tmp_path: Path, blobs: Path, tiny_source: Source) -> None:
    subject = run_job(train_spec(blobs), blobs.joinpath, tmp_path, Log())["subject"]
    content = subject.read_bytes().replace(tiny_source.network_sha256.encode(), b"0" * 64)
    with refused(InvalidInput, base="tiny", model="tiny"):
        run_job(generate_spec(keep(blobs, content)), blobs.joinpath, tmp_path, Log())


def test_weights_that_are_not_a_subject_are_refused(tmp_path: Path, blobs: Path) -> None:
    with refused(InvalidInput, path=...):
        run_job(generate_spec(keep(blobs, b"nonsense")), blobs.joinpath, tmp_path, Log())


def test_a_picture_that_cannot_be_used_is_named(tmp_path: Path, blobs: Path) -> None:
    spec = train_spec(blobs)
    broken = [spec.subject.pictures[0], Picture(keep(blobs, b"no picture"))]
    spec = msgspec.structs.replace(spec, subject=msgspec.structs.replace(spec.subject, pictures=broken))
    second = Text.of("picture {number} of {count}", number=2, count=2, name="")
    with refused(InvalidInput, picture=second):
        run_job(spec, blobs.joinpath, tmp_path, Log())


def test_in_betweens_and_larger_frames_are_in_the_clip_and_its_master(
    tmp_path: Path, blobs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By networks whose answers are known: the mean of two frames, and each pixel four times."""
    plain = msgspec.structs.replace(generate_spec(), master=Master.FFV1)  # 4 frames of the model in a clip of 9

    def exact(spec: GenerateSpec, log: Log | None = None) -> np.ndarray:
        return read_clip(run_job(spec, blobs.joinpath, tmp_path, log or Log())["master"])[0].astype(float)

    held = exact(plain)
    with refused(InvalidInput, variable="MOTIONBOOTH_UPSCALER"):
        exact(msgspec.structs.replace(plain, upscale=True))

    monkeypatch.setenv("MOTIONBOOTH_INTERPOLATOR", str(mixing_network(tmp_path / "film.pt")))
    assert np.array_equal(exact(msgspec.structs.replace(plain, hold_frames=True)), held)
    log = Log()
    smooth = exact(plain, log)
    assert [step for stage, step, _ in log.seen if stage == "encoding"] == list(range(1, 10))
    own = held[[0, 3, 5, 8]]  # as 4 frames are spread over 9
    wanted = [own[0], own[0] + 3 / 8 * (own[1] - own[0]), own[1] + 1 / 8 * (own[2] - own[1]), own[3]]
    assert np.abs(smooth[[0, 1, 3, 8]] - wanted).max() <= 2, "rounded to 8 bits, before and after"

    pytest.importorskip("spandrel", reason="spandrel is not installed")
    monkeypatch.setenv("MOTIONBOOTH_UPSCALER", str(doubling_network(tmp_path / "x2.safetensors")))
    results = run_job(msgspec.structs.replace(plain, upscale=True), blobs.joinpath, tmp_path, Log())
    assert read_clip(results["clip"])[0].shape == (9, 256, 384, 3)
    large = read_clip(results["master"])[0].astype(float)
    assert np.abs(large - smooth.repeat(2, axis=1).repeat(2, axis=2)).max() <= 1
    report = msgspec.json.decode(results["report"].read_bytes(), type=MotionReport)
    assert (report.width, len(report.camera)) == (192, 3), "the model's own frames are measured"


def mixing_network(path: Path) -> Path:
    class Mix(torch.nn.Module):
        def forward(self, one: torch.Tensor, other: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
            return one + time[:, :, None, None] * (other - one)

    example = torch.zeros(1, 3, 64, 64), torch.ones(1, 3, 64, 64), torch.full((1, 1), 0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        torch.jit.trace(Mix(), example).save(str(path))
    return path


def doubling_network(path: Path) -> Path:
    """Of Real-ESRGAN's compact kind, which adds its answer to the enlarged frame; here zero."""
    from spandrel.architectures.Compact.__arch.SRVGG import SRVGGNetCompact

    network = SRVGGNetCompact(num_in_ch=3, num_out_ch=3, num_feat=8, num_conv=1, upscale=2)
    save_file({name: torch.zeros_like(value) for name, value in network.state_dict().items()}, path)
    return path
