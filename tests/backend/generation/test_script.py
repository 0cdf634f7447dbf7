"""The authors' scripts are read as shots, their boxes turned into what the finished frame shows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from motionbooth.cli.app import app
from motionbooth.generation.sampling import plan_shot
from motionbooth.generation.script import Placeholders, interpolate_boxes, read_script, script_with_subjects
from motionbooth.generation.video import read_clip, write_clip
from motionbooth.models.base import Base
from motionbooth.models.sources import source_named
from motionbooth.models.subject_card import SubjectCard
from motionbooth.models.subject_weights import add_lora, save_subject
from motionbooth_protocol.errors import InvalidInput
from motionbooth_protocol.messages import ModelInfo
from PIL import Image
from refused import refused, refused_by_command
from typer.testing import CliRunner

MODEL = ModelInfo("tiny", frames=5, width=192, height=128, fps=8)
RECORDED = json.loads((Path(__file__).parents[2] / "golden" / "bbox.json").read_text())["interpolate"]
# The authors round each stretch to whole frames; where that changes nothing, both agree.
WHOLE = [
    case
    for case in RECORDED
    if not case["error"]
    and all((p * case["num_frames"] / sum(case["bbox_proportions"])).is_integer() for p in case["bbox_proportions"])
]


@pytest.mark.parametrize("case", WHOLE)
def test_boxes_are_the_authors_at_the_authors_times(case: dict[str, Any]) -> None:
    times = np.arange(case["num_frames"]) / case["num_frames"]
    for subject, expected in enumerate(np.transpose(case["output"], (1, 0, 2))):
        keys = [boxes[subject] for boxes in case["bbox"]]
        found = interpolate_boxes(keys, case["bbox_proportions"], times)
        assert np.allclose([box.as_tuple() for box in found], expected, atol=1e-12)


def test_enough_recorded_cases_are_compared() -> None:
    assert len(WHOLE) >= 4


def test_the_last_key_is_reached() -> None:
    keys = [(0.0, 0.0, 0.25, 0.25), (0.5, 0.5, 0.75, 0.75)]
    assert interpolate_boxes(keys, [1.0], np.linspace(0, 1, 5))[-1].as_tuple() == keys[-1]


def written(folder: Path, **fields: Any) -> Path:
    path = folder / "shot.json"
    path.write_text(json.dumps({"prompt": "a sks dog in the park", **fields}))
    return path


def test_world_boxes_become_screen_boxes(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        phrases=["sks dog"],
        bg_phrase="the park",
        bbox=[[[0.2, 0.2, 0.6, 0.6]], [[0.6, 0.2, 1.0, 0.6]]],
        bbox_proportions=[1],
        camera_speed=[0.5, 0],
    )
    spec = read_script(path, MODEL)
    (track,) = spec.shot.subjects
    assert (track.token, track.class_word, spec.background_phrase) == ("sks", "dog", "the park")
    assert spec.shot.camera.offsets[4].dx == pytest.approx(0.4)
    assert [box.x1 for box in track.boxes if box] == pytest.approx([0.2, 0.2, 0.2, 0.2, 0.2])


def test_a_script_of_a_prompt_alone_has_no_controls(tmp_path: Path) -> None:
    spec = read_script(written(tmp_path), MODEL)
    assert spec.shot.subjects == []
    assert {offset.dx for offset in spec.shot.camera.offsets} == {0.0}


def test_null_and_a_byte_order_mark_are_legal(tmp_path: Path) -> None:
    path = written(tmp_path, phrases=None, bbox=None, bbox_proportions=None, bg_phrase=None, camera_speed=None)
    plain = read_script(path, MODEL)
    path.write_text("\ufeff" + path.read_text(), encoding="utf-8")
    assert read_script(path, MODEL) == plain
    keys = [[[0, 0, 0.5, 0.5]], [[0.5, 0.5, 1, 1]]]
    assert read_script(written(tmp_path, phrases=["sks dog"], bbox=keys, bbox_proportions=None), MODEL).shot.subjects


@pytest.mark.parametrize(
    ("phrase", "token", "class_word"),
    [("dog", "", "dog"), ("sks dog", "sks", "dog"), ("sks toy dog", "sks", "toy dog")],
)
def test_the_first_word_of_a_phrase_is_the_rare_one(tmp_path: Path, phrase: str, token: str, class_word: str) -> None:
    (track,) = read_script(written(tmp_path, phrases=[phrase], bbox=[[[0, 0, 1, 1]]]), MODEL).shot.subjects
    assert (track.token, track.class_word) == (token, class_word)


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"phrases": ["sks dog", "cat"], "bbox": [[[0, 0, 1, 1]]]}, "one box for each of the 2 phrases"),
        ({"phrases": ["sks dog"], "bbox": [[[0, 0, 1, 1]]] * 3, "bbox_proportions": [1]}, "3 key boxes need 2"),
        ({"phrases": ["sks dog"], "bbox": [[[0.5, 0, 0.4, 1]]]}, "x1 < x2"),
        ({"bbox": "everywhere"}, "bbox"),
        ({"bbox": [[[0, 0, 1, 1]]]}, 'no "phrases"'),
        ({"phrases": ["sks dog"], "bbox": [[[57, 32, 288, 160]]]}, "Divide pixels by the frame's width and height"),
        ({"phrases": ["sks dog"], "bbox": [[[0, 0, 3, 1]]]}, "Divide pixels"),
        ({"phrases": ["sks dog"], "bbox": [[[1.2, 0, 1.6, 1]]]}, "outside the frame in every frame"),
        ({"boxes": [[[0, 0, 1, 1]]], "phrases": ["sks dog"]}, r'unknown key "boxes" \(did you mean "bbox"\?\)'),
        ({"fps": 8}, r'unknown key "fps" \(known are prompt, phrases'),
        ({"phrases": ["[V] dog"]}, r'placeholder "\[V\]"'),
    ],
)
def test_a_script_is_refused_with_what_is_wrong_with_it(tmp_path: Path, fields: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InvalidInput, match=complaint):
        read_script(written(tmp_path, **fields), MODEL)


@pytest.mark.usefixtures("tiny_model")
def test_a_script_is_generated_from_the_command_line(tmp_path: Path) -> None:
    path = written(tmp_path, phrases=["sks dog"], bbox=[[[0, 0, 0.5, 0.5]], [[0.5, 0.5, 1, 1]]], camera_speed=[0.2, 0])
    result = CliRunner().invoke(app, ["generate", str(path), "--out", str(tmp_path / "a" / "c.mp4"), "--model", "tiny"])
    assert result.exit_code == 0, result.output
    assert read_clip(tmp_path / "a" / "c.mp4")[0].shape == (4, 128, 192, 3)


@pytest.mark.usefixtures("tiny_model")
def test_a_guide_is_given_on_the_command_line(tmp_path: Path) -> None:
    path = written(tmp_path, phrases=["sks dog"], bbox=[[[0, 0, 0.5, 1]]])
    frames = np.full((4, 128, 192, 3), 200, np.uint8)
    write_clip(tmp_path / "guide.mp4", frames, 8)
    command = ["generate", str(path), "--model", "tiny", "--out", str(tmp_path / "c.mp4")]
    guided = [*command, "--guide", str(tmp_path / "guide.mp4")]
    clips = []
    for options in (command, [*guided, "--subject-strength", "0", "--background-strength", "0"], guided):
        result = CliRunner().invoke(app, options)
        assert result.exit_code == 0, result.output
        clips.append(read_clip(tmp_path / "c.mp4")[0])
    assert np.array_equal(clips[0], clips[1])
    assert not np.array_equal(clips[0], clips[2])


@pytest.mark.parametrize("option", ["--subject-strength", "--background-strength", "--guide-masks"])
def test_options_of_a_guide_need_one(tmp_path: Path, option: str) -> None:
    path = written(tmp_path)
    value = str(path) if option == "--guide-masks" else "0.5"
    result = CliRunner().invoke(app, ["generate", str(path), "--out", str(tmp_path / "c.mp4"), option, value])
    assert result.exit_code == 2
    assert "name its clip with --guide" in " ".join(result.output.split())


def test_a_picture_is_a_first_frame_without_masks(tmp_path: Path) -> None:
    picture = tmp_path / "picture.png"
    Image.new("RGB", (96, 64)).save(picture)
    command = ["generate", str(written(tmp_path)), "--out", str(tmp_path / "c.mp4"), "--guide", str(picture)]
    result = CliRunner().invoke(app, [*command, "--guide-masks", str(picture)])
    assert result.exit_code == 2
    assert "has no masks" in result.output


@pytest.mark.usefixtures("tiny_model")
def test_a_subject_that_the_script_does_not_name_is_refused(tmp_path: Path, tiny_single: Base) -> None:
    card = SubjectCard("Cat", "sks", "cat", "a sks cat", "tiny", "0" * 64, "lora", 4, "none")
    add_lora(tiny_single.network, 4, r".*to_q", seed=0)
    save_subject(tmp_path / "cat.safetensors", tiny_single, card)
    path = written(tmp_path, phrases=["sks dog"], bbox=[[[0, 0, 1, 1]]])
    with refused(InvalidInput, phrase="sks cat"):
        script_with_subjects(path, "tiny", 0, [tmp_path / "cat.safetensors"])


def test_a_longer_script_is_spread_over_frames_at_the_models_rate(tmp_path: Path) -> None:
    path = written(tmp_path, phrases=["sks dog"], bbox=[[[0, 0, 0.5, 1]], [[0.5, 0, 1, 1]]], camera_speed=[0.5, 0])
    for model, seconds, frames, fps in (("toybox", 2.5, 20, 8), ("wantoy", 2.0, 33, 16), ("toybox", 1.0, 8, 8)):
        spec = script_with_subjects(path, model, 0, [], seconds=seconds)
        shot = spec.shot
        assert (shot.frames, shot.scene_frames, shot.fps) == (frames, frames, fps)
        assert spec.long_shot == ("spread" if seconds == 1 else "windows")
        first, last = shot.subjects[0].boxes[0], shot.subjects[0].boxes[-1]
        travel = 0.5 * (frames - 1) / frames
        assert first is not None
        assert last is not None
        assert (first.x1, last.x1) == pytest.approx((0, 0.5 - travel))
    for seconds in (0.5, 65.0):
        with refused(InvalidInput, model="toybox", seconds=seconds):
            script_with_subjects(path, "toybox", 0, [], seconds=seconds)


@pytest.mark.usefixtures("tiny_model")
def test_a_script_of_two_clips_is_generated_by_the_command(tmp_path: Path) -> None:
    path, clip = written(tmp_path, phrases=["sks dog"], bbox=[[[0, 0, 0.5, 1]]]), tmp_path / "c.mp4"
    result = CliRunner().invoke(app, ["generate", str(path), "--model", "tiny", "--seconds", "1", "--out", str(clip)])
    assert result.exit_code == 0, result.output
    assert read_clip(clip)[0].shape == (8, 128, 192, 3)  # tiny's own clip has 4


@pytest.mark.usefixtures("tiny_model")
def test_one_script_must_be_named(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["generate", "--out", str(tmp_path / "c.mp4")])
    assert result.exit_code == 2


PLACEHOLDERS = {
    "prompt": "a [rare token] [class name] on the sand",
    "phrases": ["[rare token] [class name]"],
    "bbox": [[[0, 0, 0.5, 0.5]]],
}


def test_the_authors_placeholders_are_filled(tmp_path: Path) -> None:
    path = written(tmp_path, **PLACEHOLDERS, bg_phrase="the [Class_Name]'s sand")
    spec = read_script(path, MODEL, Placeholders.of("sks", "toy dog"))
    assert spec.prompt == "a sks toy dog on the sand"
    assert spec.background_phrase == "the toy dog's sand"
    assert [(track.token, track.class_word) for track in spec.shot.subjects] == [("sks", "toy dog")]


@pytest.mark.parametrize("words", [Placeholders(), Placeholders.of("sks", None), Placeholders.of(None, "dog")])
def test_placeholders_are_never_taken_literally(tmp_path: Path, words: Placeholders) -> None:
    with pytest.raises(InvalidInput, match=r'placeholder "\[(rare token|class name)\]": give .* --token sks --class'):
        read_script(written(tmp_path, **PLACEHOLDERS), MODEL, words)


def test_words_for_a_script_without_placeholders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="leave --token and --class out"):
        read_script(written(tmp_path), MODEL, Placeholders.of("sks", "dog"))


def test_phrases_without_boxes_keep_their_subject(tmp_path: Path, tiny_single: Base) -> None:
    spec = read_script(written(tmp_path, phrases=["sks dog"], camera_speed=[0.5, 0]), MODEL)
    (track,) = spec.shot.subjects
    assert (track.phrase, track.boxes) == ("sks dog", [None] * 5)
    assert not spec.box_control
    camera_only = script_with_subjects(written(tmp_path, phrases=["sks dog"], camera_speed=[0.5, 0]), "toybox", 0, [])
    plans = plan_shot(tiny_single, camera_only)
    assert any(plan.moves for plan in plans)
    assert all(plan.boxes is None for plan in plans)  # not: its words suppressed in the whole frame


@pytest.fixture
def dog(tmp_path: Path, tiny_single: Base) -> Path:
    """A trained subject's file that changes what it is asked for visibly."""
    fingerprint = source_named("tiny").network_sha256
    card = SubjectCard("Rex", "sks", "dog", "a sks dog", "tiny", fingerprint, "lora", 4, r".*to_q")
    add_lora(tiny_single.network, 4, r".*to_q", seed=0)
    for name, parameter in tiny_single.network.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(1))
    save_subject(tmp_path / "dog.safetensors", tiny_single, card)
    return tmp_path / "dog.safetensors"


@pytest.mark.usefixtures("tiny_model")
@pytest.mark.parametrize("boxes", [True, False])
def test_a_script_with_placeholders_is_generated_and_measured_with_its_subject(
    tmp_path: Path, dog: Path, boxes: bool
) -> None:
    fields = {**PLACEHOLDERS, "bbox": PLACEHOLDERS["bbox"] if boxes else None}
    path = written(tmp_path, **fields, camera_speed=[0.2, 0])
    command = ["generate", str(path), "--model", "tiny"]
    plain = CliRunner().invoke(app, [*command, "--out", str(tmp_path / "a.mp4"), "--token", "sks", "--class", "dog"])
    assert plain.exit_code == 0, plain.output
    own = CliRunner().invoke(app, [*command, "--out", str(tmp_path / "b.mp4"), "--subject", str(dog)])
    assert own.exit_code == 0, own.output
    assert not np.array_equal(*(read_clip(tmp_path / name)[0] for name in ("a.mp4", "b.mp4")))  # it took part
    measure = ["evaluate", str(tmp_path / "a.mp4"), "--shot", str(path), "--model", "tiny"]
    measured = CliRunner().invoke(app, [*measure, "--token", "sks", "--class", "dog"])
    assert measured.exit_code == 0, measured.output
    refused_by_command(measure, InvalidInput, problem=...)
