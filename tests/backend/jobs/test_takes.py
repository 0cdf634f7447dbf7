"""Takes of one shot: successive seeds, each measured, the best first, the same bits as alone."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from errno import ENOSPC
from pathlib import Path
from typing import Any

import huggingface_hub
import msgspec
import numpy as np
import pytest
import torch
from diffusers import UNet3DConditionModel
from motionbooth.cli.app import app
from motionbooth.evaluation.generated_shot import GeneratedShot, pictures_for, read_spec
from motionbooth.evaluation.paper_figures import PaperReport
from motionbooth.evaluation.report import MotionReport, SubjectReport, adherence_order
from motionbooth.generation.video import read_clip, write_clip
from motionbooth.jobs.takes import generate_best_of
from motionbooth.models.registry import load_base
from motionbooth.models.sources import Source, source_named
from motionbooth.models.subject_card import SubjectCard, read_card
from motionbooth.models.subject_weights import add_lora, save_subject
from motionbooth.pictures.appearance import Appearance
from motionbooth.progress.time_left import Stage
from motionbooth_lab.bench.masters import read_master
from motionbooth_protocol.errors import InvalidInput, NotFound
from motionbooth_protocol.jobs import GenerateSpec
from motionbooth_protocol.limits import MAX_SEED
from motionbooth_protocol.masters import Master
from motionbooth_protocol.motion import Box, CameraPath, Shot, SubjectTrack
from motionbooth_protocol.text import Text
from PIL import Image
from refused import refused_by_command
from safetensors.torch import load_file, save_file
from tiny_networks import save_networks
from typer.testing import CliRunner

pytestmark = pytest.mark.usefixtures("tiny_model")


class Log:
    def __init__(self) -> None:
        self.seen: list[tuple[str, int, int]] = []

    def plan(self, stages: Sequence[Stage]) -> None:
        pass

    def progress(self, stage: str, step: int, steps: int, note: Text | None = None) -> None:
        self.seen.append((stage, step, steps))


@pytest.fixture
def subject(tiny_source: Source, tmp_path: Path) -> Path:
    """A red subject whose LoRA was never trained."""
    base = load_base(tiny_source, device="cpu")
    settings = base.settings.lora
    add_lora(base.network, settings.rank, settings.target_modules, seed=0)
    picture, mask = np.full((8, 8, 3), (220, 30, 30), np.uint8), np.full((8, 8), 255, np.uint8)
    looks = Appearance.from_pictures([picture], [mask]).as_text()
    own = (
        "Red",
        "sks",
        "dog",
        "a sks dog",
        "tiny",
        tiny_source.network_sha256,
        "lora",
        settings.rank,
        settings.target_modules,
    )
    save_subject(tmp_path / "red.safetensors", base, SubjectCard(*own, appearance=looks))
    return tmp_path / "red.safetensors"


def spec(weights: str | None = None) -> GenerateSpec:
    tracks = [SubjectTrack("Red", "dog", [Box(0.2, 0.2, 0.7, 0.8)] * 4, token="sks", weights=weights)]
    shot = Shot("shot", 1, 9, 24, 192, 128, CameraPath.straight(0.3, 0, 4), tracks)
    return GenerateSpec(shot, "a sks dog in the park", model="tiny", num_inference_steps=1, seed=7)


def test_takes_have_successive_seeds_reports_and_are_ranked(tmp_path: Path, subject: Path) -> None:
    log = Log()
    takes = generate_best_of(spec(str(subject)), 3, 1, tmp_path / "out" / "shot.mp4", Path, log)
    assert sorted(take.seed for take in takes) == [7, 8, 9]
    orders = [adherence_order(take.report) for take in takes]
    assert orders == sorted(orders)
    assert [take.clip.name for take in takes] == [f"shot_{i}_seed{take.seed}.mp4" for i, take in enumerate(takes, 1)]
    report = msgspec.json.decode(takes[0].clip.with_suffix(".report.json").read_bytes(), type=MotionReport)
    assert [one.name for one in report.subjects] == ["Red"]
    assert [stage for stage, _, _ in log.seen].count("loading the model") == 2  # once begun, once done
    assert log.seen[-1] == ("measuring", 3, 3)
    assert [one for one in log.seen if one[0] == "sampling"][-1] == ("sampling", 3, 3)
    assert sorted(path.suffix for path in (tmp_path / "out").iterdir()) == [".json"] * 3 + [".mp4"] * 3


def test_a_take_has_the_very_bits_of_a_job_of_its_own(tmp_path: Path) -> None:
    takes = generate_best_of(spec(), 2, 1, tmp_path / "shot.mp4", Path, Log())
    alone = generate_best_of(msgspec.structs.replace(spec(), seed=8), 1, 1, tmp_path / "alone.mp4", Path, Log())
    (same,) = [take for take in takes if take.seed == 8]
    assert alone[0].clip == tmp_path / "alone.mp4"
    assert same.clip.read_bytes() == alone[0].clip.read_bytes()


def test_the_seed_after_the_largest_is_the_smallest(tmp_path: Path) -> None:
    last = msgspec.structs.replace(spec(), seed=MAX_SEED)
    takes = generate_best_of(last, 2, 1, tmp_path / "shot.mp4", Path, Log())
    assert sorted(take.seed for take in takes) == [0, MAX_SEED]


def test_takes_in_a_batch_are_all_generated(tmp_path: Path) -> None:
    log = Log()
    assert len(generate_best_of(spec(), 3, 2, tmp_path / "shot.mp4", Path, log)) == 3
    assert [done for stage, done, _ in log.seen if stage == "sampling"] == [2, 3]


def test_takes_that_memory_does_not_hold_together_are_generated_in_smaller_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward, rows = UNet3DConditionModel.forward, []

    def for_two_takes(unet: UNet3DConditionModel, sample: torch.Tensor, *args: object, **more: object) -> object:
        rows.append(len(sample))
        if len(sample) > 4:  # each with its unconditional half
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(unet, sample, *args, **more)

    monkeypatch.setattr(UNet3DConditionModel, "forward", for_two_takes)
    takes = generate_best_of(spec(), 5, 5, tmp_path / "shot.mp4", Path, Log())
    assert sorted(take.seed for take in takes) == [7, 8, 9, 10, 11]
    assert rows == [10, 4, 4, 2]


def report(iou: float | None, flow: float) -> MotionReport:
    subjects = [] if iou is None else [SubjectReport("a", iou, None, None, [])]
    return MotionReport(8, 8, subjects, flow, [])


def test_overlap_counts_before_the_camera() -> None:
    assert adherence_order(report(0.8, 2.0)) < adherence_order(report(0.5, 0.1))
    assert adherence_order(report(0.5, 0.1)) < adherence_order(report(0.5, 0.2))
    assert adherence_order(report(None, 0.1)) < adherence_order(report(None, 0.2))


def test_the_command_generates_takes_and_shows_the_table(tmp_path: Path, subject: Path) -> None:
    script = tmp_path / "script.json"
    script.write_text(
        json.dumps({"prompt": "a sks dog", "phrases": ["sks dog"], "bbox": [[[0, 0, 0.5, 0.5]], [[0.5, 0.5, 1, 1]]]})
    )
    command = ["generate", str(script), "--out", str(tmp_path / "c[a].mp4"), "--model", "tiny", "--takes", "2"]
    result = CliRunner().invoke(app, [*command, "--subject", str(subject)])
    assert result.exit_code == 0, result.output
    assert "takes, the best first" in result.output
    (best,) = tmp_path.glob("c?a?_1_seed?.mp4")
    assert best.name in result.output
    assert len(list(tmp_path.glob("c?a?_2_seed?.mp4"))) == 1
    evaluate = ["evaluate", str(best), "--shot", str(script), "--model", "tiny", "--subject", str(subject)]
    assert "sks dog: IoU" in CliRunner().invoke(app, evaluate).output


def test_an_error_keeps_the_takes_that_are_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as a full disk at the third one."""
    forward, calls = UNet3DConditionModel.forward, []

    def full_at_the_third(unet: UNet3DConditionModel, *args: object, **more: object) -> object:
        calls.append(1)
        if len(calls) == 3:
            raise OSError(ENOSPC, "No space left on device")
        return forward(unet, *args, **more)

    monkeypatch.setattr(UNet3DConditionModel, "forward", full_at_the_third)
    with pytest.raises(OSError, match="No space"):
        generate_best_of(spec(), 5, 1, tmp_path / "out" / "shot.mp4", Path, Log())
    assert len(list(tmp_path.glob("out/shot_?_seed?.mp4"))) == 2
    assert len(list(tmp_path.glob("out/shot_?_seed?.report.json"))) == 2
    assert len(list((tmp_path / "out").iterdir())) == 4


def test_a_sequence_replaces_all_pictures_of_an_earlier_one(tmp_path: Path) -> None:
    with_master = msgspec.structs.replace(spec(), master=Master.PNG)
    generate_best_of(with_master, 1, 1, tmp_path / "shot.mp4", Path, Log())
    (tmp_path / "shot" / "notes.png").write_bytes(b"of the user")
    shorter = msgspec.structs.replace(with_master.shot, frame_end=5)
    generate_best_of(msgspec.structs.replace(with_master, shot=shorter), 1, 1, tmp_path / "shot.mp4", Path, Log())
    expected = ["notes.png", *(f"shot_{frame:04d}.png" for frame in range(1, 6))]
    assert sorted(path.name for path in (tmp_path / "shot").iterdir()) == expected


@pytest.mark.parametrize("master", [Master.FFV1, Master.EXR])
def test_takes_have_their_masters_beside_them(tmp_path: Path, master: Master) -> None:
    with_master = msgspec.structs.replace(spec(), master=master)
    log = Log()
    takes = generate_best_of(with_master, 2, 1, tmp_path / "out" / "shot.mp4", Path, log)
    masters = [read_master(master, take.clip, with_master.shot) for take in takes]
    assert [frames.shape for frames in masters] == [(9, 128, 192, 3)] * 2
    assert not np.array_equal(*masters)
    assert [seen for seen in log.seen if seen[0] == "writing the master"][-1] == ("writing the master", 18, 18)
    suffixes = {".json": 2, ".mp4": 2, "" if master.is_sequence else ".mkv": 2}
    assert Counter(path.suffix for path in (tmp_path / "out").iterdir()) == suffixes


def test_the_command_writes_a_master_or_names_those_it_knows(tmp_path: Path) -> None:
    (tmp_path / "script.json").write_text('{"prompt": "a dog"}')
    command = ["generate", str(tmp_path / "script.json"), "--out", str(tmp_path / "c.mp4"), "--model", "tiny"]
    assert CliRunner().invoke(app, [*command, "--master", "png"]).exit_code == 0
    assert len(list((tmp_path / "c").glob("c_*.png"))) > 1
    result = CliRunner().invoke(app, [*command, "--master", "gif"], terminal_width=300)
    assert result.exit_code == 2
    assert "prores-4444" in result.output


def test_each_style_of_the_command_has_its_strength(tmp_path: Path) -> None:
    layer = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_out.0"
    shape = (
        load_base(source_named("tiny"), device="cpu").network.get_submodule(layer.removeprefix("unet.")).weight.shape
    )
    weights = {"A": torch.ones(1, shape[1]), "B": torch.ones(shape[0], 1)}
    style = tmp_path / "style.safetensors"
    save_file({f"{layer}.lora_{half}.weight": weight for half, weight in weights.items()}, style)
    (tmp_path / "s.json").write_text('{"prompt": "a dog", "phrases": ["a dog"], "bbox": [[[0.1, 0.1, 0.8, 0.8]]]}')
    clips = []
    for number, options in enumerate([["--style", style], ["--style", style, "--style-strength", "0"]]):
        out = tmp_path / f"{number}.mp4"
        command = ["generate", tmp_path / "s.json", "--out", out, "--model", "tiny", *options]
        result = CliRunner().invoke(app, list(map(str, command)))
        assert result.exit_code == 0, result.output
        clips.append(out.read_bytes())
    assert clips[0] != clips[1]
    result = CliRunner().invoke(app, [*map(str, command), "--style-strength", "1"], env={"COLUMNS": "300"})
    assert result.exit_code == 2
    assert "once for each --style (1)" in result.output


def test_a_clip_is_evaluated_with_the_subjects_file_alone(tmp_path: Path, subject: Path) -> None:
    take = generate_best_of(spec(str(subject)), 1, 1, tmp_path / "clip.mp4", Path, Log())[0]
    shot = tmp_path / "shot.json"
    shot.write_bytes(msgspec.json.encode({"generate": spec()}))
    command = ["evaluate", str(take.clip), "--shot", str(shot), "--subject", str(subject)]
    command += ["--json", str(tmp_path / "report.json"), "--sheet", str(tmp_path / "sheet.png")]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert "Red: IoU" in result.output
    measured = msgspec.json.decode((tmp_path / "report.json").read_bytes(), type=MotionReport)
    assert len(measured.subjects[0].frames) == 4
    assert (tmp_path / "sheet.png").stat().st_size > 1000
    assert read_clip(take.clip)[0].shape[0] == 9


@pytest.mark.parametrize("inside", ["", "Red"])
def test_a_clip_is_evaluated_with_pictures_and_their_masks(tmp_path: Path, inside: str) -> None:
    write_clip(tmp_path / "clip.mp4", red_box_moving_right(), 24)
    shot = tmp_path / "shot.json"
    shot.write_bytes(msgspec.json.encode({"generate": spec()}))
    folder = tmp_path / "pictures" / inside
    folder.mkdir(parents=True)
    Image.fromarray(red_box_moving_right()[0]).save(folder / "red.png")
    Image.fromarray((red_box_moving_right()[0, ..., 0] > 128).astype(np.uint8) * 255).save(folder / "red_mask.png")
    found = pictures_for(read_spec(shot, "tiny"), tmp_path / "pictures")
    assert {name: [path.name for path in paths] for name, paths in found.items()} == {"Red": ["red.png"]}
    report = GeneratedShot.load(tmp_path / "clip.mp4", spec(), found).report()
    assert report.subjects[0].found_share == 1
    place = report.subjects[0].frames[0].found
    assert place is not None
    assert place.as_tuple() == pytest.approx((0.2, 0.2, 0.4, 0.6), abs=0.03)


def test_the_command_measures_the_papers_figures_with_the_networks_in_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "empty"))
    write_clip(tmp_path / "clip.mp4", red_box_moving_right(), 24)
    (tmp_path / "shot.json").write_bytes(msgspec.json.encode({"generate": spec()}))
    (tmp_path / "pictures").mkdir()
    Image.fromarray(red_box_moving_right()[0]).save(tmp_path / "pictures" / "red.png")
    mask = (red_box_moving_right()[0, ..., 0] > 128).astype(np.uint8) * 255
    Image.fromarray(mask).save(tmp_path / "pictures" / "red_mask.png")
    networks = save_networks(tmp_path / "measuring networks")
    command = ["evaluate", str(tmp_path / "clip.mp4"), "--shot", str(tmp_path / "shot.json")]
    command += ["--pictures", str(tmp_path / "pictures"), "--measures", str(networks)]
    result = CliRunner().invoke(app, [*command, "--json", str(tmp_path / "r.json")], env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    assert "Red: R-CLIP" in result.output
    assert "Red: IoU by features" in result.output
    paper = msgspec.json.decode((tmp_path / "r.json").read_bytes(), type=PaperReport).paper
    assert paper is not None
    assert paper.subjects[0].r_dino is not None
    assert all(card.sha256 in result.output for card in paper.networks)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    refused_by_command([*command[:-1], str(tmp_path)], NotFound, folder=str(tmp_path), commands=...)


@pytest.mark.parametrize(("frames", "fits"), [(1, False), (3, False), (4, True), (9, True)])
def test_a_part_of_a_clip_is_not_measured_as_the_whole(tmp_path: Path, subject: Path, frames: int, fits: bool) -> None:
    write_clip(tmp_path / "clip.mp4", red_box_moving_right()[:frames], 24)
    (tmp_path / "shot.json").write_bytes(msgspec.json.encode({"generate": spec()}))
    command = ["evaluate", str(tmp_path / "clip.mp4"), "--shot", str(tmp_path / "shot.json")]
    result = CliRunner().invoke(app, [*command, "--subject", str(subject)], env={"COLUMNS": "300"})
    assert result.exit_code == (0 if fits else 2), result.output


def test_a_shot_that_is_shorter_than_the_models_clip_is_measured(tmp_path: Path) -> None:
    write_clip(tmp_path / "clip.mp4", red_box_moving_right()[:2], 24)
    short = msgspec.structs.replace(spec(), shot=msgspec.structs.replace(spec().shot, frame_end=2))
    assert len(GeneratedShot.load(tmp_path / "clip.mp4", short, {}).report().camera) == 3


def red_box_moving_right() -> np.ndarray:
    frames = np.full((9, 128, 192, 3), (40, 90, 60), np.uint8)
    for number, frame in enumerate(frames):
        frame[26:77, 38 + 8 * number : 77 + 8 * number] = (220, 30, 30)
    return frames


@pytest.mark.parametrize(
    ("options", "value"),
    [
        (["--pictures", "empty"], {"subjects": "Red"}),
        (["--subject", "cat.safetensors"], {"phrase": "sks cat"}),
        (["--subject", "old.safetensors"], {"subject": ...}),
    ],
)
def test_what_cannot_serve_to_evaluate_is_refused(
    tmp_path: Path, subject: Path, options: list[str], value: dict[str, Any]
) -> None:
    card = read_card(subject)
    weights = load_file(subject)
    for name, other in (("cat", msgspec.structs.replace(card, class_word="cat")), ("old", without_looks(card))):
        metadata = {"motionbooth": msgspec.json.encode(other).decode()}
        save_file(weights, tmp_path / f"{name}.safetensors", metadata)
    write_clip(tmp_path / "clip.mp4", red_box_moving_right(), 24)
    (tmp_path / "shot.json").write_bytes(msgspec.json.encode({"generate": spec()}))
    command = ["evaluate", str(tmp_path / "clip.mp4"), "--shot", str(tmp_path / "shot.json")]
    refused_by_command([*command, options[0], str(tmp_path / options[1])], InvalidInput, **value)


def without_looks(card: SubjectCard) -> SubjectCard:
    return msgspec.structs.replace(card, appearance="")
