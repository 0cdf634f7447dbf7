"""The JSON scripts of the MotionBooth authors: a prompt, key boxes and a camera speed, read as a shot of ours."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

import msgspec
import numpy as np
from motionbooth_protocol.errors import InvalidInput
from motionbooth_protocol.jobs import GenerateSpec, as_received
from motionbooth_protocol.messages import ModelInfo
from motionbooth_protocol.motion import Box, CameraPath, Shot, SubjectTrack
from motionbooth_protocol.wording import in_words

from .models.sources import source_named
from .subject.weights import read_card

KeyBox = tuple[float, float, float, float]  # x1 y1 x2 y2, shares of the frame, in the uncovered world


class Script(msgspec.Struct):
    """A script file. `bbox[key][subject]`; `bbox_proportions`: the relative lengths of the stretches between keys.

    `phrases`: "[rare token] [class name]" of each subject. `camera_speed`: [cx, cy] of the paper.
    """

    prompt: str
    phrases: list[str] | None = None
    bbox: list[list[KeyBox]] | None = None
    bbox_proportions: list[float] | None = None
    bg_phrase: str | None = None
    camera_speed: tuple[float, float] | None = None


def read_script(path: Path, model: ModelInfo) -> GenerateSpec:
    """What to film, for the model's number of frames. Raises InvalidInput for a file that is not such a script."""
    try:
        script = msgspec.json.decode(path.read_text("utf-8-sig"), type=Script)  # some editors write a mark before it
        shot = _shot(script, path.stem, model)
        spec = GenerateSpec(shot, script.prompt, model=model.name, background_phrase=script.bg_phrase or "")
        return as_received(spec)
    except (OSError, ValueError) as error:  # msgspec's and the contract's own errors are ValueErrors
        raise InvalidInput(f"The script {path} cannot be used: {in_words(error)}.") from error


def script_with_subjects(script: Path, model: str, seed: int, subjects: Sequence[Path]) -> GenerateSpec:
    """A script for a model of this machine; `subjects`: files of trained subjects, each for the phrase that it has.

    Their paths stand where the sha256 of their files would. Raises InvalidInput, NotFound.
    """
    spec = read_script(script, source_named(model).info)
    shot = spec.shot
    for subject in subjects:
        shot = _with_subject(shot, subject)
    return msgspec.structs.replace(spec, shot=shot, seed=seed)


def _with_subject(shot: Shot, subject: Path) -> Shot:
    """The shot with the subject's file as the weights of the track that has its phrase."""
    card = read_card(subject)
    phrase = f"{card.token} {card.class_word}"
    if phrase not in [track.phrase for track in shot.subjects]:
        raise InvalidInput(
            f'The subject in {subject} is a "{phrase}", and none of the script\'s phrases is. '
            'Add it to "phrases", with a box in each key.'
        )
    tracks = [
        msgspec.structs.replace(track, weights=str(subject)) if track.phrase == phrase else track
        for track in shot.subjects
    ]
    return msgspec.structs.replace(shot, subjects=tracks)


def _shot(script: Script, name: str, model: ModelInfo) -> Shot:
    camera = CameraPath.straight(*(script.camera_speed or (0.0, 0.0)), model.frames)
    keys, phrases, proportions = script.bbox or [], script.phrases or [], script.bbox_proportions or []
    if keys and {len(boxes) for boxes in keys} != {len(phrases)}:
        raise ValueError(f"each key needs one box for each of the {len(phrases)} phrases")
    times = np.linspace(0, 1, model.frames).tolist()
    tracks = [
        _track(phrase, interpolate_boxes([boxes[k] for boxes in keys], proportions, times), camera)
        for k, phrase in enumerate(phrases if keys else [])
    ]
    return Shot(name, 1, model.frames, model.fps, model.width, model.height, camera, tracks)


def _track(phrase: str, world_boxes: Sequence[Box], camera: CameraPath) -> SubjectTrack:
    """The authors' boxes move with the uncovered world; what the frame shows is the camera's travel behind."""
    boxes = [box.moved(-d.dx, -d.dy) for box, d in zip(world_boxes, camera.offsets, strict=True)]
    *token, class_word = phrase.split(maxsplit=1) or [""]  # "sks toy dog": a toy dog
    return SubjectTrack(phrase, class_word, [box if box.visible else None for box in boxes], "".join(token))


def interpolate_boxes(keys: Sequence[KeyBox], proportions: Sequence[float], times: Sequence[float]) -> list[Box]:
    """Boxes at `times` (0..1 of the whole) on straight lines between the keys.

    The last key is reached at time 1. (The authors' frame f of F stands at time f / F, and never reaches it.) Raises
    ValueError where there is not one proportion for each stretch between two keys.
    """
    if len(keys) == 1:
        return [Box(*keys[0])] * len(times)
    proportions = proportions or [1.0] * (len(keys) - 1)
    if len(proportions) != len(keys) - 1 or min(proportions) <= 0:
        raise ValueError(f"{len(keys)} key boxes need {len(keys) - 1} proportions above zero, got {list(proportions)}")
    key_times = np.array([0.0, *accumulate(proportions)]) / sum(proportions)
    edges = [np.interp(times, key_times, edge) for edge in np.transpose(keys)]
    return [Box(*map(float, row)) for row in np.transpose(edges)]
