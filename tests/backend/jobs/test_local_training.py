"""Training on this machine: the files that are written, resuming after a break, and the command."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
import platformdirs
import pytest
import torch
from diffusers import AutoencoderKL
from motionbooth.cli.app import app
from motionbooth.finetuning.finetune import CAPTIONS_NOT_USED, NO_PRIOR_CLIPS, TrainingOptions
from motionbooth.finetuning.recipes import RECIPES
from motionbooth.generation.video import read_clip
from motionbooth.jobs.local_training import train_locally
from motionbooth.jobs.runner import run_job
from motionbooth.models.sources import Source, source_named
from motionbooth.models.subject_card import read_card
from motionbooth.pictures.folder import read_folder
from motionbooth.progress.time_left import Stage
from motionbooth_lab.toybox.backgrounds import draw_texture
from motionbooth_protocol.errors import InvalidInput
from motionbooth_protocol.jobs import MaskDoubt, SubjectSpec, TrainSpec
from motionbooth_protocol.text import Text
from PIL import Image, ImageDraw
from refused import refused_by_command
from safetensors.torch import load_file
from typer.testing import CliRunner


class PowerCut(Exception):
    pass


class Log:
    def __init__(self, cut_at: int | None = None) -> None:
        self.notes: list[tuple[str, int, Text | None]] = []
        self._cut_at = cut_at

    def plan(self, stages: Sequence[Stage]) -> None:
        pass

    def progress(self, stage: str, step: int, steps: int, note: Text | None = None) -> None:
        self.notes.append((stage, step, note))
        if stage == "training" and step == self._cut_at:
            raise PowerCut

    @property
    def trained(self) -> list[int]:
        return [step for stage, step, _ in self.notes if stage == "training" and step]


@pytest.fixture(autouse=True)
def often_written_model(tiny_source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny base, with a checkpoint and a sample after every step."""
    folder = tmp_path / "models" / "tiny"
    folder.mkdir(parents=True)
    for part in tiny_source.folder.iterdir():
        (folder / part.name).symlink_to(part)
    settings = msgspec.json.decode((folder / "motionbooth.json").read_bytes())
    settings["lora"] |= {"steps": 3, "checkpoint_every": 1, "validate_every": 2, "validation_inference_steps": 1}
    (folder / "motionbooth.json").unlink()
    (folder / "motionbooth.json").write_bytes(msgspec.json.encode(settings))
    monkeypatch.setenv("MOTIONBOOTH_MODELS", str(tmp_path / "models"))
    monkeypatch.delenv("MOTIONBOOTH_SAM", raising=False)
    monkeypatch.setattr(platformdirs, "user_cache_path", lambda name: tmp_path / "cache" / name)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(2):
        picture = Image.new("RGBA", (100, 80))
        ImageDraw.Draw(picture).ellipse((20 + number, 10, 70, 60), fill=(220, 40, 40, 255))
        picture.save(folder / f"{number}.png")
    return folder


def inputs(pictures: Path, **changes: object) -> tuple[TrainSpec, dict[str, Path]]:
    found, files = read_folder(pictures, None)
    spec = TrainSpec(SubjectSpec("Red", "sks", "dog", found), model="tiny", learning_rate=1e-2)
    return msgspec.structs.replace(spec, **changes), files


def test_the_subject_and_what_shows_how_it_went_are_there(pictures: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="needs pip install 'motionbooth[tensorboard]'")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    spec, files = inputs(pictures)
    options = TrainingOptions(tensorboard=True, settings={"validation_prompts": ["a sks dog runs", "a cat"]})
    trained = train_locally(spec, files, options, tmp_path / "red.safetensors", Log())
    card = read_card(trained.file)
    assert (card.name, card.recipe, card.pictures) == ("Red", "motionbooth", [p.image for p in spec.subject.pictures])
    made = {path.name for path in trained.folder.iterdir()}
    assert made == {"masks.png", "losses.png", "samples.png", "samples", "tensorboard", "inputs.txt"}
    names = {f"{step:06}-{number}.{kind}" for step in (2, 3) for number in (1, 2) for kind in ("png", "mp4")}
    assert {path.name for path in (trained.folder / "samples").iterdir()} == names
    clips = {number: read_clip(trained.folder / "samples" / f"000003-{number}.mp4") for number in (1, 2)}
    base = source_named("tiny").settings
    assert all((len(frames), fps) == (base.frames, base.fps) for frames, fps in clips.values())
    assert not np.array_equal(clips[1][0], clips[2][0])
    events = EventAccumulator(str(trained.folder / "tensorboard")).Reload()
    tags = {f"sample {number}/{kind}" for number in (1, 2) for kind in ("frame", "clip")}
    assert set(events.Tags()["images"]) == tags
    shown = [Image.open(io.BytesIO(event.encoded_image_string)) for event in events.Images("sample 2/clip")]
    assert [(gif.format, gif.size, gif.n_frames) for gif in shown] == [
        ("GIF", clips[2][0].shape[2:0:-1], base.frames)
    ] * 2
    assert {"loss/total", "loss/region", "loss/attention", "loss/preservation"} == set(events.Tags()["scalars"])
    assert [event.step for event in events.Scalars("loss/total")] == [1, 2, 3]


def test_a_run_that_was_broken_off_continues_to_the_same_weights(pictures: Path, tmp_path: Path) -> None:
    spec, files = inputs(pictures)
    train_locally(spec, files, TrainingOptions(), tmp_path / "whole.safetensors", Log())
    with pytest.raises(PowerCut):
        train_locally(spec, files, TrainingOptions(), tmp_path / "red.safetensors", Log(cut_at=2))
    log = Log()
    train_locally(spec, files, TrainingOptions(), tmp_path / "red.safetensors", log)
    assert log.trained == [3]
    whole, resumed = (load_file(tmp_path / f"{name}.safetensors") for name in ("whole", "red"))
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())


@pytest.mark.parametrize("damage", [b"", b"\xff" * 999, None], ids=["empty", "foreign", "cut short"])
def test_a_damaged_checkpoint_is_put_aside_and_started_again(
    pictures: Path, tmp_path: Path, damage: bytes | None
) -> None:
    spec, files = inputs(pictures)
    with pytest.raises(PowerCut):
        train_locally(spec, files, TrainingOptions(), tmp_path / "red.safetensors", Log(cut_at=2))
    checkpoint = tmp_path / "red" / "training.pt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:50_000] if damage is None else damage)
    log = Log()
    train_locally(spec, files, TrainingOptions(), tmp_path / "red.safetensors", log)
    assert log.trained == [1, 2, 3]
    assert checkpoint.with_suffix(".damaged").exists()


def test_samples_on_the_way_change_nothing_that_is_trained(pictures: Path, tmp_path: Path) -> None:
    spec, files = inputs(pictures)
    watched = train_locally(spec, files, TrainingOptions(), tmp_path / "watched.safetensors", Log())
    settings_file = tmp_path / "models" / "tiny" / "motionbooth.json"
    settings_file.write_bytes(settings_file.read_bytes().replace(b'"validate_every":2', b'"validate_every":0'))
    alone = train_locally(spec, files, TrainingOptions(), tmp_path / "alone.safetensors", Log())
    assert not (alone.folder / "samples.png").exists()
    assert watched.file.read_bytes() == alone.file.read_bytes()


def test_a_small_plan_decodes_samples_in_tiles_and_encodes_pictures_exactly(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiled: dict[str, set[bool]] = {"encode": set(), "decode": set()}

    def noted(name: str) -> Callable[..., Any]:
        original = getattr(AutoencoderKL, name)

        def work(vae: AutoencoderKL, *args: Any, **more: Any) -> Any:
            tiled[name].add(vae.use_tiling)
            return original(vae, *args, **more)

        return work

    for name in tiled:
        monkeypatch.setattr(AutoencoderKL, name, noted(name))
    spec, files = inputs(pictures, steps=1, recipe="no-preservation")
    train_locally(spec, files, TrainingOptions(memory="checkpointed"), tmp_path / "red.safetensors", Log())
    assert tiled == {"encode": {False}, "decode": {True}}


def test_what_is_already_trained_is_left_and_another_order_starts_again(pictures: Path, tmp_path: Path) -> None:
    spec, files = inputs(pictures)
    out = tmp_path / "red.safetensors"
    train_locally(spec, files, TrainingOptions(), out, Log())
    log = Log()
    assert train_locally(spec, files, TrainingOptions(), out, log).existed
    assert log.notes == []
    changed, files = inputs(pictures, recipe="no-preservation", steps=1)
    log = Log()
    assert not train_locally(changed, files, TrainingOptions(), out, log).existed
    assert log.trained == [1]
    assert any(NO_PRIOR_CLIPS.template in str(note) for stage, _, note in log.notes if stage == "training")
    assert read_card(out).recipe == "no-preservation"


def test_a_model_that_was_fetched_again_with_other_weights_trains_again(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, files = inputs(pictures, steps=1)
    out = tmp_path / "red.safetensors"
    train_locally(spec, files, TrainingOptions(), out, Log())
    assert train_locally(spec, files, TrainingOptions(), out, Log()).existed
    monkeypatch.setattr(Source, "network_sha256", "0" * 64)
    assert not train_locally(spec, files, TrainingOptions(), out, Log()).existed


def test_an_older_subject_is_not_taken_for_one_whose_training_was_broken_off(pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "red.safetensors"
    spec, files = inputs(pictures)
    train_locally(spec, files, TrainingOptions(), out, Log())
    changed, files = inputs(pictures, recipe="no-preservation")
    with pytest.raises(PowerCut):
        train_locally(changed, files, TrainingOptions(), out, Log(cut_at=2))
    assert read_card(out).recipe == "motionbooth", "the older one stays until there is another"
    log = Log()
    assert not train_locally(changed, files, TrainingOptions(), out, log).existed
    assert log.trained == [3]
    assert read_card(out).recipe == "no-preservation"
    assert train_locally(changed, files, TrainingOptions(), out, Log()).existed


def test_other_clips_in_the_same_folder_are_another_inputs(pictures: Path, tmp_path: Path) -> None:
    for number in range(4):
        (tmp_path / "clips" / "walk").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (192, 128), (60 * number,) * 3).save(tmp_path / "clips" / "walk" / f"{number}.png")
    (tmp_path / "clips" / "walk.txt").write_text("a grey wall")
    spec, files = inputs(pictures, steps=1)
    options, out = TrainingOptions(clips=tmp_path / "clips"), tmp_path / "red.safetensors"
    assert not train_locally(spec, files, options, out, Log()).existed
    assert train_locally(spec, files, options, out, Log()).existed
    (tmp_path / "clips" / "walk.txt").write_text("a grey road")
    assert not train_locally(spec, files, options, out, Log()).existed


def test_the_file_has_its_suffix(pictures: Path, tmp_path: Path) -> None:
    spec, files = inputs(pictures)
    with pytest.raises(InvalidInput):
        train_locally(spec, files, TrainingOptions(), tmp_path / "red.pt", Log())


def test_plots_are_not_written_among_the_pictures(pictures: Path, tmp_path: Path) -> None:
    """The next training would take them for pictures of the subject."""
    before = sorted(pictures.iterdir())
    command = ["train", str(pictures), "--class", "dog", "--model", "tiny", "--out", f"{pictures}.safetensors"]
    refused_by_command(command, InvalidInput, folder=str(pictures))
    assert sorted(pictures.iterdir()) == before


def test_the_command_trains_and_says_where_to_look(pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "out" / "red.safetensors"
    words = ["train", str(pictures), "--class", "dog", "--out", str(out), "--model", "tiny", "--steps", "1"]
    result = CliRunner().invoke(app, [*words, "--recipe", "no-preservation"])
    assert result.exit_code == 0
    assert "no prior-preservation clips: the base will forget" in result.output
    assert f"{out} is trained" in result.output.replace("\n", "")
    assert read_card(out).token == "sks"


def test_a_run_file_is_written_beside_the_result_and_repeats_it(pictures: Path, tmp_path: Path) -> None:
    """Nothing but the file: the same weights in another folder, and nothing to do in the same one."""
    (tmp_path / "run.toml").write_text(
        'pictures = "pictures"\nclass = "dog"\nout = "red.safetensors"\nmodel = "tiny"\nsteps = 1\nrank = 2\n'
        'recipe = "no-preservation"\nlearning_rate = 1e-2\nvalidate_every = 0\n'
    )
    first = CliRunner().invoke(app, ["train", "--config", str(tmp_path / "run.toml")])
    assert first.exit_code == 0, first.output
    out, written = tmp_path / "red.safetensors", tmp_path / "red" / "run.toml"
    assert read_card(out).rank == 2
    values = tomllib.loads(written.read_text())
    assert (values["pictures"], values["rank"], values["token"]) == (str(pictures), 2, "sks")
    assert values.keys() >= {"lr_schedule", "precision", "checkpoint_every", "validate_every"}
    again = CliRunner().invoke(app, ["train", "--config", str(written)])
    assert "is up to date" in again.output
    assert tomllib.loads(written.read_text()) == values
    other = CliRunner().invoke(app, ["train", "--config", str(written), "--out", str(tmp_path / "other.safetensors")])
    assert "is trained" in other.output
    # The name of the subject is that of its file; all weights are the same.
    one, two = (load_file(path) for path in (out, tmp_path / "other.safetensors"))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
    changed = [*("--config", str(written)), *("--steps", "2", "--recipe", "customvideo")]
    assert "is trained" in CliRunner().invoke(app, ["train", *changed]).output
    values = tomllib.loads(written.read_text())
    assert (values["steps"], values["rank"], values["recipe"]) == (2, 2, "customvideo")
    assert values["target_modules"] == RECIPES["customvideo"].changes["target_modules"]


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("rank = 0", '"rank" in {file} is 0, but must be a whole number, at least 1.'),
        ("prior_clip = 3", '"prior_clip" in {file} is no setting of motionbooth train. Did you mean "prior_clips"?'),
        ("weight_decay = -1", '"weight_decay" in {file} is -1, but must be a number, at least 0.'),
        ("max_grad_norm = 0", '"max_grad_norm" in {file} is 0, but must be a number, above 0.'),
        ("stca_weight = -0.1", '"stca_weight" in {file} is -0.1, but must be a number, at least 0.'),
        ("lr_schedule = 'step'", 'is "step", but must be one of "constant", "cosine".'),
        ("validation_prompts = 'a dog'", "but must be a list, each entry text in quotes."),
        ("token = 'a b'", '"token" in {file} cannot be used: It must be one rare word'),
        ("[paste]\npools = 3", '"pools" in {file} is no setting of "paste". Did you mean "pool"?'),
        ("[paste]\npool = 0", '"paste.pool" in {file} is 0, but must be a whole number, at least 1.'),
        ("[paste]\npool = 3", "its settings name no backgrounds. Remove [paste]."),
        ("[paste]\nmin_height = 0.95", '"min_height" of [paste] is 0.95, more than its "max_height", 0.9.'),
        ("target_modules = '('", 'The weights to train cannot be chosen by "(": missing )'),
        ("target_modules = 'nothing'", 'The weights to train cannot be chosen by "nothing": '),
        ("trainable = 'nothing'\nmethod = 'full'", 'match "nothing".'),
    ],
)
def test_a_wrong_run_file_is_one_sentence(pictures: Path, tmp_path: Path, line: str, sentence: str) -> None:
    file = tmp_path / "run.toml"
    file.write_text(
        f'pictures = "pictures"\nclass = "dog"\nout = "r.safetensors"\nmodel = "tiny"\nprior_clips = 0\n{line}'
    )
    result = CliRunner().invoke(app, ["train", "--config", str(file)])
    assert result.exit_code == 2, result.output
    assert sentence.format(file=file) in result.output
    assert "Traceback" not in result.output


def test_kohyas_folder_names_the_subject_and_captions_are_trained(pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    folder = pictures.rename(tmp_path / "train" / "10_ohwx toy car")
    words = ["train", str(tmp_path / "train"), "--out", str(tmp_path / "r.safetensors"), "--model", "tiny"]
    words += ["--steps", "1", "--recipe", "no-preservation", "--validate-every", "0"]
    (folder / "1.txt").write_text("a red toy car\n")
    refusal = CliRunner().invoke(app, words)
    assert refusal.exit_code == 2
    assert 'The caption of 1.png must contain "ohwx toy car"' in refusal.output
    (folder / "1.txt").write_text("an ohwx toy car\non grass\n")
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    card = read_card(tmp_path / "r.safetensors")
    assert (card.token, card.class_word) == ("ohwx", "toy car")
    plain = load_file(tmp_path / "r.safetensors")
    (folder / "1.txt").unlink()
    assert "is trained" in CliRunner().invoke(app, words).output
    assert any(not torch.equal(value, plain[name]) for name, value in load_file(tmp_path / "r.safetensors").items())


def test_a_base_that_pastes_says_that_it_has_its_own_captions(pictures: Path, tmp_path: Path) -> None:
    settings_file = tmp_path / "models" / "tiny" / "motionbooth.json"
    settings = msgspec.json.decode(settings_file.read_bytes()) | {"backgrounds": {"on the grass": "the grass"}}
    settings["lora"] |= {"paste": {"pool": 1, "frames": 1}, "validate_every": 0}
    settings_file.write_bytes(msgspec.json.encode(settings))
    (pictures / "0.txt").write_text("a sks dog on the moon")
    spec, files = inputs(pictures, steps=1)
    log, options = Log(), TrainingOptions(settings={"prior_clips": 0})
    train_locally(spec, files, options, tmp_path / "red.safetensors", log)
    notes = [str(note) for stage, _, note in log.notes if stage == "training"]
    assert any(CAPTIONS_NOT_USED.template in note for note in notes)


def test_the_example_of_a_run_file_in_the_docs_is_one(pictures: Path, tmp_path: Path) -> None:
    text = (Path(__file__).parents[3] / "docs" / "training.md").read_text(encoding="utf-8")
    lines = text[text.index("## Run files") : text.index("## Results")].splitlines()
    example = "\n".join(line.strip() for line in lines if " = " in line and line.startswith("    "))
    assert tomllib.loads(example)["model"] == "zeroscope"
    (tmp_path / "run.toml").write_text(example)
    result = CliRunner().invoke(app, ["train", "--config", str(tmp_path / "run.toml"), "--model", "unknown"])
    assert 'no base model "unknown"' in result.output, "every key was accepted"


def test_without_a_class_the_command_asks_for_one(pictures: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["train", str(pictures), "--out", str(tmp_path / "r.safetensors")])
    assert result.exit_code == 2
    assert "Name the class word of the subject" in result.output


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--recipe", "magic"], "Choose one of: motionbooth"),
        (["--sam", "nowhere.pth"], "no checkpoint of Segment Anything at nowhere.pth"),
        (["--token", ""], "'--token'"),
        (["--clips", "nowhere"], "no folder of clips at nowhere"),
    ],
)
def test_wrong_words_are_answered_by_a_sentence(
    pictures: Path, tmp_path: Path, words: list[str], complaint: str
) -> None:
    command = ["train", str(pictures), "--class", "dog", "--out", str(tmp_path / "r.safetensors"), "--model", "tiny"]
    result = CliRunner().invoke(app, [*command, *words])
    assert result.exit_code == 2
    assert complaint in result.output


@pytest.fixture
def doubtful(tmp_path: Path) -> Path:
    """A small red ball under a stretch of sea, on grass, without a mask: GrabCut takes the sea."""
    grass, sea = (draw_texture(place, np.random.default_rng(0)) for place in ("grass", "sea"))
    picture = cv2.resize(grass[:180, :240], (320, 240))
    picture[30:110, 20:300] = sea[:80, :280]
    cv2.circle(picture, (170, 170), 22, (210, 40, 40), -1)
    folder = tmp_path / "found"
    folder.mkdir()
    Image.fromarray(picture).save(folder / "beach.png")
    return folder


def test_doubtful_masks_stop_the_command_until_they_are_accepted(doubtful: Path, tmp_path: Path) -> None:
    out = tmp_path / "red.safetensors"
    words = ["train", str(doubtful), "--class", "ball", "--out", str(out), "--model", "tiny", "--steps", "1"]
    stopped = CliRunner().invoke(app, [*words, "--recipe", "no-preservation"])
    assert stopped.exit_code == 2
    told = " ".join(stopped.output.split())
    assert "(picture 1 of 1 (beach.png): " in told
    assert "a search from other starting points finds something else" in told
    assert "--accept-masks" in told
    assert not out.exists()
    assert (tmp_path / "red" / "masks.png").exists()
    accepted = CliRunner().invoke(app, [*words, "--recipe", "no-preservation", "--accept-masks"])
    assert accepted.exit_code == 0, accepted.output
    assert "beach.png" in accepted.output
    assert out.exists()


def test_on_a_terminal_doubtful_masks_are_asked_about(doubtful: Path, tmp_path: Path) -> None:
    pty = pytest.importorskip("pty", reason="this system has no pseudo-terminals")
    out = tmp_path / "red.safetensors"
    words = ["train", str(doubtful), "--class", "ball", "--out", str(out), "--model", "tiny", "--steps", "1"]
    words += ["--recipe", "no-preservation"]
    leader, terminal = pty.openpty()
    command = [sys.executable, "-c", "from motionbooth.cli.app import app; app()", *words]
    for answer, status in ((b"n\n", 1), (b"y\n", 0)):
        with subprocess.Popen(command, stdin=terminal, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
            os.write(leader, answer)
            output = process.communicate(timeout=200)[0].decode()
        assert process.returncode == status, output
        assert "Train with these masks?" in output
        assert out.exists() is (status == 0)


def test_a_backend_tells_doubts_as_a_result(doubtful: Path, tmp_path: Path) -> None:
    found, files = read_folder(doubtful, None)
    spec = TrainSpec(SubjectSpec("red", "sks", "ball", found), "tiny", steps=1, recipe="no-preservation")
    results = run_job(spec, files.__getitem__, tmp_path, Log())
    (doubt,) = msgspec.json.decode(results["doubts"].read_bytes(), type=list[MaskDoubt])
    assert str(doubt.picture) == "picture 1 of 1 (beach.png)"
    assert doubt.reasons
