"""The JSON scripts of the MotionBooth authors: a prompt, key boxes and a camera speed, converted to a shot."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import accumulate
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from motionbooth_protocol.errors import InvalidInput
from motionbooth_protocol.jobs import GenerateSpec, as_received
from motionbooth_protocol.limits import MAX_FRAMES
from motionbooth_protocol.long_shots import frames_at_rate
from motionbooth_protocol.messages import ModelInfo
from motionbooth_protocol.motion import Box, CameraPath, Shot, SubjectTrack
from motionbooth_protocol.wording import in_words

from motionbooth.models.sources import source_named
from motionbooth.models.subject_card import read_card

KeyBox = tuple[float, float, float, float]  # x1 y1 x2 y2, shares of the frame, in the uncovered world
_PLACEHOLDER = re.compile(r"\[([^\[\]]*)\]")


@dataclass(frozen=True)
class Placeholders:
    """The values of the authors' placeholders [rare token] and [class name]; None if unknown."""

    token: str | None = None
    class_word: str | None = None
    chosen: bool = False
    """The user gave them for this script, so a script without placeholders is an error."""

    @classmethod
    def of(cls, token: str | None, class_word: str | None, subjects: Sequence[Path] = ()) -> Placeholders:
        """The given values, or else those of the only trained subject."""
        if token is not None or class_word is not None:
            return cls(token, class_word, chosen=True)
        if len(subjects) != 1:
            return cls()
        card = read_card(subjects[0])
        return cls(card.token, card.class_word)

    def get(self, placeholder: str) -> str | None:
        """The value of "rare token" or "class name" in any spelling; None for any other placeholder."""
        name = re.sub(r"[\s_-]+", " ", placeholder).strip().lower()
        return {"rare token": self.token, "class name": self.class_word}.get(name)


NO_PLACEHOLDERS = Placeholders()


class Script(msgspec.Struct):
    """The contents of a script file."""

    prompt: str
    phrases: list[str] | None = None
    """For each subject, "[rare token] [class name]"."""
    bbox: list[list[KeyBox]] | None = None
    """bbox[key][subject]."""
    bbox_proportions: list[float] | None = None
    """Relative durations between one key and the next; all the same by default."""
    bg_phrase: str | None = None
    """The background phrase."""
    camera_speed: tuple[float, float] | None = None
    """[cx, cy] of the paper: the camera's travel over the clip, in shares of the frame's width and height."""


def read_script(path: Path, model: ModelInfo, placeholders: Placeholders = NO_PLACEHOLDERS) -> GenerateSpec:
    """The script's generate spec, for the model's number of frames.

    A script with phrases but without boxes has only camera control: its subjects may be anywhere. Raises InvalidInput
    for a file that is not a script, and for unknown keys, boxes in pixels or unknown placeholders.
    """
    try:
        text = path.read_text("utf-8-sig")  # some editors write a byte order mark
        _refuse_unknown_keys(msgspec.json.decode(text))
        return spec_of_script(msgspec.json.decode(text, type=Script), path.stem, model, placeholders)
    except (OSError, ValueError, RecursionError) as error:  # msgspec's and the contract's own errors are ValueErrors
        raise InvalidInput(
            "The script {path} cannot be used: {problem}.", path=path, problem=in_words(error)
        ) from error


def spec_of_script(script: Script, name: str, model: ModelInfo, placeholders: Placeholders) -> GenerateSpec:
    """The script's generate spec, for the model's number of frames; `name` is the shot's. Raises ValueError."""
    script = _filled(script, placeholders)
    spec = GenerateSpec(
        _shot(script, name, model),
        script.prompt,
        model=model.name,
        background_phrase=script.bg_phrase or "",
        box_control=bool(script.bbox) or not script.phrases,
    )
    return as_received(spec)


def script_with_subjects(
    script: Path,
    model: str,
    seed: int,
    subjects: Sequence[Path],
    placeholders: Placeholders = NO_PLACEHOLDERS,
    seconds: float | None = None,
) -> GenerateSpec:
    """A script's generate spec with the files of trained subjects, each assigned to the track with its phrase.

    `weights` of a track is then the file's path instead of its sha256. `seconds`: of the shot, if it is longer than the
    model's clip, which it must not be shorter than. Raises InvalidInput, NotFound.
    """
    info = source_named(model).info
    spec = read_script(script, info if seconds is None else _lasting(seconds, info), placeholders)
    if spec.shot.frames > info.frames:
        spec = msgspec.structs.replace(spec, long_shot="windows")
    shot = spec.shot
    for subject in subjects:
        shot = _with_subject(shot, subject)
    return msgspec.structs.replace(spec, shot=shot, seed=seed)


def _lasting(seconds: float, model: ModelInfo) -> ModelInfo:
    """The model with clips of this duration. Raises InvalidInput if they would be shorter than its own, or too long."""
    shortest, longest = model.frames / model.fps, MAX_FRAMES / model.fps
    if not shortest - 0.5 / model.fps <= seconds <= longest:
        raise InvalidInput(
            "{model} generates {shortest:.2f} to {longest:.0f} seconds, not {seconds:g}.",
            model=model.title,
            shortest=shortest,
            longest=longest,
            seconds=seconds,
        )
    frames = frames_at_rate(seconds, model.frames, model.fps, model.frame_step)
    return msgspec.structs.replace(model, frames=frames)


def _refuse_unknown_keys(content: Any) -> None:
    """Raises ValueError that suggests the key that was probably meant, which msgspec does not do."""
    known = [field.name for field in msgspec.structs.fields(Script)]
    for key in content if isinstance(content, dict) else ():
        if key not in known:
            meant = get_close_matches(key, known, n=1)
            hint = f'did you mean "{meant[0]}"?' if meant else f"known are {', '.join(known)}; remove it"
            raise ValueError(f'it has the unknown key "{key}" ({hint})')


def _filled(script: Script, placeholders: Placeholders) -> Script:
    """The script with its placeholders filled. Raises ValueError for a placeholder without a value."""
    texts = [script.prompt, script.bg_phrase or "", *(script.phrases or [])]
    if placeholders.chosen and not any(map(_PLACEHOLDER.search, texts)):
        raise ValueError("it has no placeholders like [rare token] [class name]: leave --token and --class out")
    prompt, background, *phrases = (_PLACEHOLDER.sub(lambda found: _value(found, placeholders), text) for text in texts)
    return msgspec.structs.replace(script, prompt=prompt, bg_phrase=background, phrases=phrases)


def _value(placeholder: re.Match[str], placeholders: Placeholders) -> str:
    value = placeholders.get(placeholder[1])
    if value is None:
        raise ValueError(
            f'it has the placeholder "{placeholder[0]}": give the values of [rare token] and [class name] with --token '
            "sks --class dog, or one trained --subject, which has them; replace any other in the script itself"
        )
    return value


def _with_subject(shot: Shot, subject: Path) -> Shot:
    """The shot with the subject's file as the weights of the track with its phrase."""
    card = read_card(subject)
    phrase = card.phrase
    if phrase not in [track.phrase for track in shot.subjects]:
        raise InvalidInput(
            'The subject in {subject} is a "{phrase}", which is none of the script\'s phrases. '
            'Add it to "phrases", with a box in each key.',
            subject=subject,
            phrase=phrase,
        )
    tracks = [
        msgspec.structs.replace(track, weights=str(subject)) if track.phrase == phrase else track
        for track in shot.subjects
    ]
    return msgspec.structs.replace(shot, subjects=tracks)


def _shot(script: Script, name: str, model: ModelInfo) -> Shot:
    speed = script.camera_speed or (0.0, 0.0)
    camera = CameraPath.straight(*speed, model.frames)
    keys, phrases, proportions = script.bbox or [], script.phrases or [], script.bbox_proportions or []
    if keys and not phrases:
        raise ValueError('it has boxes, and no "phrases" that say which words of the prompt they are for')
    if keys and {len(boxes) for boxes in keys} != {len(phrases)}:
        raise ValueError(f"each key needs one box for each of the {len(phrases)} phrases")
    _refuse_pixels(keys, speed)
    times = np.linspace(0, 1, model.frames).tolist()
    anywhere: list[Box | None] = [None] * model.frames
    tracks = [
        _track(phrase, _screen_boxes([boxes[k] for boxes in keys], proportions, times, camera) if keys else anywhere)
        for k, phrase in enumerate(phrases)
    ]
    for track in tracks if keys else []:
        if not any(track.boxes):
            raise ValueError(f'the boxes of "{track.phrase}" are outside the frame in every frame')
    return Shot(name, 1, model.frames, model.fps, model.width, model.height, camera, tracks)


def _refuse_pixels(keys: Sequence[Sequence[KeyBox]], speed: tuple[float, float]) -> None:
    """Raises ValueError for a box edge more than a frame beyond everything that the camera sees."""
    for box in (box for boxes in keys for box in boxes):
        for edge, travel in zip(box, speed * 2, strict=True):
            if not min(travel, 0.0) - 1 <= edge <= max(travel, 0.0) + 2:
                raise ValueError(
                    f"its boxes are shares of the frame, 0 to 1 across it, and the box {list(box)} is far outside. "
                    "Divide pixels by the frame's width and height"
                )


def _screen_boxes(
    keys: Sequence[KeyBox], proportions: Sequence[float], times: Sequence[float], camera: CameraPath
) -> list[Box | None]:
    """The boxes in the finished frames: the authors' world boxes minus the camera's travel; None out of frame."""
    world_boxes = interpolate_boxes(keys, proportions, times)
    boxes = [box.moved(-d.dx, -d.dy) for box, d in zip(world_boxes, camera.offsets, strict=True)]
    return [box if box.visible else None for box in boxes]


def _track(phrase: str, boxes: list[Box | None]) -> SubjectTrack:
    *token, class_word = phrase.split(maxsplit=1) or [""]  # "sks toy dog": a toy dog
    return SubjectTrack(phrase, class_word, boxes, "".join(token))


def interpolate_boxes(keys: Sequence[KeyBox], proportions: Sequence[float], times: Sequence[float]) -> list[Box]:
    """Boxes at `times` (0..1 of the clip), interpolated linearly between the keys.

    The last key is reached at time 1. (The authors' frame f of F is at time f / F and never reaches it.) Raises
    ValueError unless there is one proportion for each two successive keys.
    """
    if len(keys) == 1:
        return [Box(*keys[0])] * len(times)
    proportions = proportions or [1.0] * (len(keys) - 1)
    if len(proportions) != len(keys) - 1 or min(proportions) <= 0:
        raise ValueError(f"{len(keys)} key boxes need {len(keys) - 1} proportions above zero, got {list(proportions)}")
    key_times = np.array([0.0, *accumulate(proportions)]) / sum(proportions)
    edges = [np.interp(times, key_times, edge) for edge in np.transpose(keys)]
    return [Box(*map(float, row)) for row in np.transpose(edges)]
