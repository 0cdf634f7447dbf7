"""The authors' scripts are read as shots, their boxes turned into what the finished frame shows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from motionbooth.cli import app
from motionbooth.models.registry import Base
from motionbooth.script import interpolate_boxes, read_script, script_with_subjects
from motionbooth.subject.weights import SubjectCard, add_lora, save_subject
from motionbooth.video import read_clip
from motionbooth_protocol.errors import InvalidInput
from motionbooth_protocol.messages import ModelInfo
from typer.testing import CliRunner

MODEL = ModelInfo("tiny", frames=5, width=192, height=128, fps=8)
RECORDED = json.loads((Path(__file__).parents[1] / "golden" / "bbox.json").read_text())["interpolate"]
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
    ],
)
def test_a_script_that_does_not_add_up_is_refused(tmp_path: Path, fields: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InvalidInput, match=complaint):
        read_script(written(tmp_path, **fields), MODEL)


@pytest.mark.usefixtures("tiny_model")
def test_a_script_is_filmed_from_the_command_line(tmp_path: Path) -> None:
    path = written(tmp_path, phrases=["sks dog"], bbox=[[[0, 0, 0.5, 0.5]], [[0.5, 0.5, 1, 1]]], camera_speed=[0.2, 0])
    result = CliRunner().invoke(app, ["generate", str(path), "--out", str(tmp_path / "a" / "c.mp4"), "--model", "tiny"])
    assert result.exit_code == 0, result.output
    assert read_clip(tmp_path / "a" / "c.mp4")[0].shape == (4, 128, 192, 3)


@pytest.mark.usefixtures("tiny_model")
def test_a_subject_that_the_script_does_not_name_is_refused(tmp_path: Path, tiny_single: Base) -> None:
    card = SubjectCard("Cat", "sks", "cat", "a sks cat", "tiny", "0" * 64, "lora", 4, "none")
    add_lora(tiny_single.unet, 4, r".*to_q", seed=0)
    save_subject(tmp_path / "cat.safetensors", tiny_single.unet, card)
    path = written(tmp_path, phrases=["sks dog"], bbox=[[[0, 0, 1, 1]]])
    with pytest.raises(InvalidInput, match='is a "sks cat", and none of the script'):
        script_with_subjects(path, "tiny", 0, [tmp_path / "cat.safetensors"])


@pytest.mark.usefixtures("tiny_model")
def test_one_script_must_be_named(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["generate", "--out", str(tmp_path / "c.mp4")])
    assert result.exit_code == 2
    assert "Name one script" in result.output
