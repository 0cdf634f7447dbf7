"""The JSON scripts of the MotionBooth authors: a prompt, key boxes and a camera speed, read as a shot of ours."""

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
from motionbooth_protocol.messages import ModelInfo
from motionbooth_protocol.motion import Box, CameraPath, Shot, SubjectTrack
from motionbooth_protocol.wording import in_words

from motionbooth.models.sources import source_named
from motionbooth.models.subject_card import read_card

KeyBox = tuple[float, float, float, float]  # x1 y1 x2 y2, shares of the frame, in the uncovered world
_PLACEHOLDER = re.compile(r"\[([^\[\]]*)\]")


@dataclass(frozen=True)
class Words:
    """What stands for the authors' placeholders [rare token] and [class name], as far as it is known.

    `chosen`: a person has named them for this script, so one without placeholders is an error.
    """

    token: str | None = None
    class_word: str | None = None
    chosen: bool = False

    @classmethod
    def of(cls, token: str | None, class_word: str | None, subjects: Sequence[Path] = ()) -> Words:
        """Those given, else those of the only trained subject."""
        if token is not None or class_word is not None:
            return cls(token, class_word, chosen=True)
        if len(subjects) != 1:
            return cls()
        card = read_card(subjects[0])
        return cls(card.token, card.class_word)

    def get(self, placeholder: str) -> str | None:
        """The word for "rare token" or "class name", however they are spelled; None for anything else."""
        name = re.sub(r"[\s_-]+", " ", placeholder).strip().lower()
        return {"rare token": self.token, "class name": self.class_word}.get(name)


NO_WORDS = Words()


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


def read_script(path: Path, model: ModelInfo, words: Words = NO_WORDS) -> GenerateSpec:
    """What to generate, for the model's number of frames; `words` fill the placeholders.

    A script that has phrases and no boxes is controlled by its camera alone: its subjects are there, and anywhere.
    Raises InvalidInput for a file that is not such a script, has unknown keys, boxes that are no shares of the frame,
    or placeholders for which there are no words.
    """
    try:
        text = path.read_text("utf-8-sig")  # some editors write a mark before it
        _refuse_unknown_keys(msgspec.json.decode(text))
        script = _filled(msgspec.json.decode(text, type=Script), words)
        shot = _shot(script, path.stem, model)
        spec = GenerateSpec(
            shot,
            script.prompt,
            model=model.name,
            background_phrase=script.bg_phrase or "",
            box_control=bool(script.bbox) or not script.phrases,
        )
        return as_received(spec)
    except (OSError, ValueError) as error:  # msgspec's and the contract's own errors are ValueErrors
        raise InvalidInput(
            "The script {path} cannot be used: {problem}.", path=path, problem=in_words(error)
        ) from error


def script_with_subjects(
    script: Path, model: str, seed: int, subjects: Sequence[Path], words: Words = NO_WORDS
) -> GenerateSpec:
    """A script for a model of this machine; `subjects`: files of trained subjects, each for the phrase that it has.

    Their paths stand where the sha256 of their files would. Raises InvalidInput, NotFound.
    """
    spec = read_script(script, source_named(model).info, words)
    shot = spec.shot
    for subject in subjects:
        shot = _with_subject(shot, subject)
    return msgspec.structs.replace(spec, shot=shot, seed=seed)


def _refuse_unknown_keys(content: Any) -> None:
    """Not by msgspec: a key that is nearly right should be answered with the right one."""
    known = [field.name for field in msgspec.structs.fields(Script)]
    for key in content if isinstance(content, dict) else ():
        if key not in known:
            meant = get_close_matches(key, known, n=1)
            hint = f'did you mean "{meant[0]}"?' if meant else f"known are {', '.join(known)}; remove it"
            raise ValueError(f'it has the unknown key "{key}" ({hint})')


def _filled(script: Script, words: Words) -> Script:
    """The script with `words` in place of its placeholders. Raises ValueError where there is none for one of them."""
    texts = [script.prompt, script.bg_phrase or "", *(script.phrases or [])]
    if words.chosen and not any(map(_PLACEHOLDER.search, texts)):
        raise ValueError("it has no placeholders like [rare token] [class name]: leave --token and --class out")
    prompt, background, *phrases = (_PLACEHOLDER.sub(lambda found: _word(found, words), text) for text in texts)
    return msgspec.structs.replace(script, prompt=prompt, bg_phrase=background, phrases=phrases)


def _word(placeholder: re.Match[str], words: Words) -> str:
    word = words.get(placeholder[1])
    if word is None:
        raise ValueError(
            f'it has the placeholder "{placeholder[0]}": give the words for [rare token] and [class name] with --token '
            "sks --class dog, or one trained --subject, which has them; replace any other in the script itself"
        )
    return word


def _with_subject(shot: Shot, subject: Path) -> Shot:
    """The shot with the subject's file as the weights of the track that has its phrase."""
    card = read_card(subject)
    phrase = f"{card.token} {card.class_word}"
    if phrase not in [track.phrase for track in shot.subjects]:
        raise InvalidInput(
            'The subject in {subject} is a "{phrase}", and none of the script\'s phrases is. '
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
    """Raises ValueError for an edge more than a whole frame beyond all that the camera ever sees."""
    for box in (box for boxes in keys for box in boxes):
        for edge, travel in zip(box, speed * 2, strict=True):
            if not min(travel, 0.0) - 1 <= edge <= max(travel, 0.0) + 2:
                raise ValueError(
                    f"its boxes are shares of the frame, 0 to 1 across it, and the box {list(box)} lies far outside. "
                    "Divide pixels by the frame's width and height"
                )


def _screen_boxes(
    keys: Sequence[KeyBox], proportions: Sequence[float], times: Sequence[float], camera: CameraPath
) -> list[Box | None]:
    """The authors' boxes move with the uncovered world; what the frame shows is the camera's travel behind."""
    world_boxes = interpolate_boxes(keys, proportions, times)
    boxes = [box.moved(-d.dx, -d.dy) for box, d in zip(world_boxes, camera.offsets, strict=True)]
    return [box if box.visible else None for box in boxes]


def _track(phrase: str, boxes: list[Box | None]) -> SubjectTrack:
    *token, class_word = phrase.split(maxsplit=1) or [""]  # "sks toy dog": a toy dog
    return SubjectTrack(phrase, class_word, boxes, "".join(token))


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
