"""Converts a scene's settings into what is sent, and back: the specs of its takes, the request to train a subject."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import bpy

from .._protocol.errors import InvalidInput
from .._protocol.jobs import GenerateSpec, Style
from .._protocol.limits import MAX_SEED
from .._protocol.long_shots import LongShot
from .._protocol.masters import Master
from .._protocol.motion import Shot
from .._protocol.phrases import phrase_spans
from .._protocol.text import Text
from .._protocol.wording import class_fault, token_fault
from ..capture import shots
from ..job_store import Render, StyleFile, TrainRequest
from ..turntable.pictures import folder_pictures
from ..ui_state import MotionBoothModel, state

SMALLEST_PICTURE = 128  # pixels a side; the height of the model's frame if that is larger
Model = TypeVar("Model")
_RESTORED = (
    "prompt",
    "negative_prompt",
    "background_phrase",
    "model",
    "seed",
    "box_control",
    "camera_control",
    "hold_frames",
    "upscale",
)
_LONG_SHOTS: dict[str, LongShot] = {"WINDOWS": "windows", "SPREAD": "spread"}
_STEPS = {"MODEL": None, "DRAFT": 10, "FINE": 50}  # denoising steps by quality


def model_of(scene: bpy.types.Scene) -> MotionBoothModel:
    """The shot's model, as the backend describes it. Raises InvalidInput if the backend does not have it."""
    return named_model(scene.motionbooth.model, {model.name: model for model in state().models})


def named_model(name: str, models: Mapping[str, Model]) -> Model:
    """One of the backend's models. Raises InvalidInput."""
    if name not in models:
        known = ", ".join(sorted(models)) or Text("none yet; connect first")
        raise InvalidInput('The backend has no model "{name}"; choose one of: {known}.', name=name, known=known)
    return models[name]


def steps_of(settings: bpy.types.PropertyGroup) -> int | None:
    """Denoising steps of the shot's quality; None for the model's default."""
    return settings.steps if settings.quality == "CUSTOM" else _STEPS[settings.quality]


def generate_specs(scene: bpy.types.Scene) -> list[GenerateSpec]:
    """A spec for each of the shot's takes. Raises InvalidInput if the scene must be changed."""
    settings = scene.motionbooth
    check_prompt(scene)
    model = model_of(scene)
    shot = shots.read_shot(scene, shots.model_frames(scene, model), (model.width, model.height)).shot
    return [generate_spec(settings, shot, seed) for seed in seeds(settings)]


def check_prompt(scene: bpy.types.Scene) -> None:
    """Validate the prompt: it must contain each subject's token and class, side by side. Raises InvalidInput."""
    prompt = scene.motionbooth.prompt
    for subject in scene.motionbooth.subjects:
        check_terms(subject)
    if not prompt.strip():
        raise InvalidInput(
            'The prompt of scene "{scene}" is empty; describe the shot and name each subject, for '
            'example "a {phrase} on the grass".',
            scene=scene.name,
            phrase=phrase_of(scene.motionbooth.subjects[0]),
        )
    for subject in scene.motionbooth.subjects:
        phrase = phrase_of(subject)
        if not phrase_spans(prompt, phrase):
            raise InvalidInput(
                'The prompt "{prompt}" of scene "{scene}" does not name subject "{subject}"; add '
                '"{phrase}" to it, for example "a {phrase} on the grass".',
                prompt=prompt,
                scene=scene.name,
                subject=subject.name,
                phrase=phrase,
            )
    background = scene.motionbooth.background_phrase
    if background and not phrase_spans(prompt, background):
        raise InvalidInput(
            'The background phrase "{background}" of scene "{scene}" is not in its prompt "{prompt}"; add it there '
            "word for word, or clear it.",
            background=background,
            scene=scene.name,
            prompt=prompt,
        )


def phrase_of(subject: bpy.types.PropertyGroup) -> str:
    """The words that name the subject in a prompt."""
    return f"{subject.token} {subject.class_word}".strip()


def check_terms(subject: bpy.types.PropertyGroup) -> None:
    """Validate a subject's token and class. Raises InvalidInput."""
    if subject.token and (fault := token_fault(subject.token)):
        raise InvalidInput('The token of subject "{subject}" {fault}', subject=subject.name, fault=fault)
    if fault := class_fault(subject.class_word):
        raise InvalidInput('The class of subject "{subject}" {fault}', subject=subject.name, fault=fault)


def seeds(settings: bpy.types.PropertyGroup) -> list[int]:
    """A seed for each take: random ones, or the shot's seed and the numbers after it."""
    if settings.random_seed:
        return [random.randrange(MAX_SEED + 1) for _ in range(settings.take_count)]
    return [(settings.seed + index) % (MAX_SEED + 1) for index in range(settings.take_count)]


def generate_spec(settings: bpy.types.PropertyGroup, shot: Shot, seed: int) -> GenerateSpec:
    return GenerateSpec(
        shot=shot,
        prompt=settings.prompt,
        model=settings.model,
        seed=seed,
        negative_prompt=settings.negative_prompt,
        background_phrase=settings.background_phrase,
        num_inference_steps=steps_of(settings),
        box_control=settings.box_control,
        camera_control=settings.camera_control,
        hold_frames=settings.hold_frames,
        upscale=settings.upscale,
        long_shot=_LONG_SHOTS[settings.long_shot],
        master=None if settings.master == "NONE" else Master(settings.master),
    )


def style_files(scene: bpy.types.Scene) -> list[StyleFile]:
    """The shot's styles that have a file. Raises InvalidInput if it does not exist."""
    found = []
    for style in scene.motionbooth.styles:
        path = Path(bpy.path.abspath(style.path))
        if style.path and not path.is_file():
            raise InvalidInput(
                'The style of scene "{scene}" does not exist: {path}. Choose its file, or remove the style.',
                scene=scene.name,
                path=path,
            )
        if style.path:
            found.append(StyleFile(str(path), style.strength))
    return found


def restore_settings(scene: bpy.types.Scene, spec: GenerateSpec) -> Text | None:
    """Set the scene's prompts, model, seed, steps, styles and switches as they were for this clip. Not the animation.

    Returns a sentence if a style's file must be chosen again: a clip knows only its content.
    """
    shot = scene.motionbooth
    for name in _RESTORED:
        setattr(shot, name, getattr(spec, name))
    shot.random_seed = False
    shot.master = spec.master or "NONE"
    shot.quality = next((name for name, steps in _STEPS.items() if steps == spec.num_inference_steps), "CUSTOM")
    if spec.num_inference_steps is not None:
        shot.steps = spec.num_inference_steps
    shot.long_shot = next(name for name, value in _LONG_SHOTS.items() if value == spec.long_shot)
    shot.use_guide = spec.guide is not None
    if spec.guide is not None:
        shot.guide_background = spec.guide.background_strength
        shot.guide_subject = spec.guide.subject_strength or shot.guide_subject  # 0 if no subject was rendered
        if not _is_content(bpy.path.abspath(shot.guide_clip), spec.guide.clip):
            shot.guide_clip = ""
    trained = {track.name: track.weights for track in spec.shot.subjects}
    for subject in shot.subjects:
        subject.weights = trained.get(subject.name) or subject.weights
    return _restore_styles(shot, spec.styles)


def _restore_styles(shot: bpy.types.PropertyGroup, styles: Sequence[Style]) -> Text | None:
    """A style whose file is not among the shot's keeps its strength and needs its file again."""
    before = [style.path for style in shot.styles]
    shot.styles.clear()
    for style in styles:
        item = shot.styles.add()
        item.strength = style.strength
        item.path = next((path for path in before if _is_content(bpy.path.abspath(path), style.weights)), "")
    if all(item.path for item in shot.styles):
        return None
    return Text("This clip has a style. Choose its file again, in Advanced.")


def _is_content(path: str, sha256: str) -> bool:
    """Whether there is a file with this content."""
    return Path(path).is_file() and hashlib.sha256(Path(path).read_bytes()).hexdigest() == sha256


def missing_for_training(subject: bpy.types.PropertyGroup) -> str | None:
    """A sentence on what the subject lacks for training; None if it can be trained."""
    if not subject.name or not subject.class_word:
        return "Give the subject a name and a class first, such as dog, toy or car."
    if not subject.token:
        return "Give the subject a token to train it. Without one, the model's own knowledge is used."
    if subject.training_object is None and not subject.training_images:
        return "Choose a training object or a folder of training images."
    return None


def trained_otherwise(scene: bpy.types.Scene, subject: bpy.types.PropertyGroup) -> Text | None:
    """A sentence if the subject's words or the shot's model are not those that it was trained with; otherwise None."""
    trained = next((row for row in state().trained if subject.weights and row.weights == subject.weights), None)
    if trained is None:
        return None
    if (trained.token, trained.class_word, trained.model) == (
        subject.token,
        subject.class_word,
        scene.motionbooth.model,
    ):
        return None
    return Text.of(
        'It was trained as "{phrase}" on {model}. Train it again, or use these.',
        phrase=phrase_of(trained),
        model=trained.model,
    )


def train_request(
    scene: bpy.types.Scene, subject: bpy.types.PropertyGroup, folder: Path, height: int, steps: int | None = None
) -> TrainRequest:
    """The request to train a subject. A 3-D object is written to `folder`, for another Blender to render.

    height: of the model's frame in pixels. steps: of the training; None is the model's own number.
    Raises InvalidInput if the subject must be changed.
    """
    if missing := missing_for_training(subject):
        raise InvalidInput(missing)
    check_terms(subject)
    thing = subject.training_object
    render = _library(scene, thing, folder, max(SMALLEST_PICTURE, height)) if thing is not None else None
    pictures = [] if render else folder_pictures(subject)
    return TrainRequest(
        name=subject.name,
        token=subject.token,
        class_word=subject.class_word,
        model=scene.motionbooth.model,
        pictures=[(str(picture.image), str(picture.mask) if picture.mask else None) for picture in pictures],
        render=render,
        steps=steps,
    )


def _library(scene: bpy.types.Scene, thing: bpy.types.Object, folder: Path, size: int) -> Render:
    """Write the object, its children and everything that they need into a library.

    As a collection: on their own, children would not be loaded with their parent, and linked objects not at all.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "object.blend"
    collection = bpy.data.collections.new("MotionBooth")
    try:
        for part in (thing, *thing.children_recursive):
            collection.objects.link(part)
        bpy.data.libraries.write(str(path), {collection}, path_remap="ABSOLUTE", compress=True)
        return Render(str(path), collection.name, scene.frame_start, size)
    finally:
        bpy.data.collections.remove(collection)
