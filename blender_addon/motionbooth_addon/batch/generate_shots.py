"""Turns the shots of a .blend into clips on its timeline, through a backend. Blocks until they are done; needs bpy."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import bpy
import msgspec

from .._protocol.connection import Connection
from .._protocol.errors import InvalidInput, OutOfSpace
from .._protocol.jobs import GenerateSpec, TrainSpec
from .._protocol.messages import ModelInfo
from .._protocol.motion import Shot
from .._protocol.reports import ProgressReport
from .._protocol.text import Text
from ..capture import framing, shots
from ..guide.request import guide_render, own_clip
from ..job_store import JobRecord, TrainRequest
from ..jobs.specs import check_prompt, generate_spec, named_model, style_files, train_request
from ..timeline import clips, takes
from ..turntable import background_render
from ..turntable.pictures import check_source, needs_training
from .blocking_jobs import BlockingJobs
from .runner import folder_for_each

DRY_RUN_FRAMES, DRY_RUN_SIZE = 8, (96, 64)  # of the bundled model; a backend reports those of its own models

OnProgress = Callable[[ProgressReport], None]


class ShotFile(msgspec.Struct, frozen=True):
    """shot.json: the specs of one shot's jobs as they were submitted, and its warnings."""

    generate: GenerateSpec
    train: list[TrainSpec] = []
    warnings: list[Text] = []


@dataclass(frozen=True)
class Options:
    """Settings that replace the scene's or the model's; None keeps those."""

    model: str | None = None
    seed: int | None = None
    training_steps: int | None = None
    sampling_steps: int | None = None
    dry_run: bool = False
    in_place: bool = False
    subject_strength: float | None = None
    background_strength: float | None = None
    guide: str | None = None
    long_shot: str | None = None
    master: str | None = None


@dataclass
class BatchShot:
    """One shot, its jobs, and what "done" reports about it. `trainings` and `pictures` are by subject name."""

    scene: bpy.types.Scene
    folder: Path
    shot: Shot
    warnings: list[Text]
    model_size: tuple[int, int] = DRY_RUN_SIZE
    trainings: dict[str, JobRecord] = field(default_factory=dict)
    pictures: dict[str, list[Path]] = field(default_factory=dict)
    generation: JobRecord | None = None

    @property
    def clip(self) -> Path:
        return self.folder / "clip.mp4"

    def report(self) -> dict[str, Any]:
        master = self.generation.master if self.generation else None
        return {
            "scene": self.scene.name,
            "frames": f"{self.shot.frame_start}-{self.shot.frame_end}",
            "clip": str(self.clip) if self.generation else None,
            "master": str(master.path(self.clip)) if master else None,
            "shot": str(self.folder / "shot.json"),
            "pictures": {name: [str(picture) for picture in pictures] for name, pictures in self.pictures.items()},
            "job": self.generation.id if self.generation else None,
            "warnings": self.warnings,
        }


def generate(
    blend: Path, connection_file: Path | None, out: Path, options: Options, on_progress: OnProgress
) -> dict[str, Any]:
    """Generate every shot of `blend` into `out`; returns what "done" reports (see generate_file.py).

    The scenes are validated before anything is sent. All jobs are sent before the first is waited for, so that several
    workers can be busy. `connection_file` may be None for a dry run. Raises MotionBoothError. The .blend itself is only
    written in place, and is replaced as a whole or not at all.
    """
    on_progress(ProgressReport("reading the scene", 0, 0))
    scenes = open_shots(blend)
    before = {scene.name: _replaced(scene, options) for scene in scenes}
    out = out.resolve()
    names = [bpy.path.clean_name(scene.name) for scene in scenes]  # "a b" and "a:b" have one clean name
    folders = [out] if len(scenes) == 1 else folder_for_each(names, out)
    placed = list(zip(scenes, folders, strict=True))
    if options.dry_run:
        checked = [_read(scene, folder, DRY_RUN_FRAMES, DRY_RUN_SIZE) for scene, folder in placed]
        for shot in checked:
            _write_shot_file(shot, _spec(shot, options), [])
        return {"blend": None, "shots": [shot.report() for shot in checked]}
    if connection_file is None:
        raise InvalidInput("Generating needs a backend; give its connection file with --connection.")
    connection = Connection.read(connection_file)
    with tempfile.TemporaryDirectory(prefix="motionbooth_") as scratch:
        renderer = background_render.renderer(bpy.app.binary_path, system_python=not bpy.app.python_args)
        jobs = BlockingJobs(connection, Path(scratch), on_progress, renderer)
        try:
            done = _generate(jobs, placed, options, Path(scratch), on_progress)
        except KeyboardInterrupt:
            jobs.cancel()
            raise
        finally:
            jobs.close()
    on_progress(ProgressReport("placing the clip", 0, 0))
    if options.in_place:  # the user's file keeps its settings, except the model on which its subjects were trained
        for shot in done:
            for name, value in before[shot.scene.name].items():
                if name != "model" or not shot.trainings:
                    setattr(shot.scene.motionbooth, name, value)
    saved = save_with_clips(blend.resolve() if options.in_place else out / "shot.blend", done, on_progress)
    return {"blend": str(saved), "shots": [shot.report() for shot in done]}


def _replaced(scene: bpy.types.Scene, options: Options) -> dict[str, str]:
    """Give the scene the settings that the options replace; returns the scene's own."""
    long_shot = options.long_shot and options.long_shot.upper()
    given = {"model": options.model, "long_shot": long_shot, "master": options.master}
    before = {name: getattr(scene.motionbooth, name) for name, value in given.items() if value is not None}
    for name in before:
        setattr(scene.motionbooth, name, given[name])
    return before


def _generate(
    jobs: BlockingJobs,
    placed: list[tuple[bpy.types.Scene, Path]],
    options: Options,
    scratch: Path,
    on_progress: OnProgress,
) -> list[BatchShot]:
    """Train the new subjects, generate the shots, fetch the clips."""
    models = {model.name: model for model in jobs.models()}
    batch = [_read_for_model(models, scene, folder) for scene, folder in placed]
    for shot in batch:
        for warning in shot.warnings:
            on_progress(ProgressReport("reading the scene", 0, 0, note=warning))
    for shot in batch:
        _submit(jobs, shot, options, scratch)
    for shot in batch:
        _finish(jobs, shot)
    return batch


def _submit(jobs: BlockingJobs, shot: BatchShot, options: Options, scratch: Path) -> None:
    for subject in shot.scene.motionbooth.subjects:
        if needs_training(subject):
            library = Path(tempfile.mkdtemp(dir=scratch))
            request = train_request(shot.scene, subject, library, shot.model_size[1], options.training_steps)
            shot.trainings[subject.name] = jobs.submit(request, subject.name)
    awaits = {name: training.id for name, training in shot.trainings.items()}
    strengths = options.subject_strength, options.background_strength
    guide = guide_render(shot.scene, shot.shot, shot.model_size, scratch / "guides", strengths, options.guide)
    styles = style_files(shot.scene)
    shot.generation = jobs.submit(_spec(shot, options), shot.shot.name, awaits, styles, guide)


def _finish(jobs: BlockingJobs, shot: BatchShot) -> None:
    """Wait for a shot's jobs, and fetch its clip and the report that the backend made of it."""
    assert shot.generation is not None
    for name, training in shot.trainings.items():
        try:
            jobs.wait_until_done(training)
        finally:
            shot.pictures[name] = _keep_pictures(jobs, training, shot.folder / "training_pictures")
        if (weights := training.result("subject")) is not None:  # otherwise the generation fails, with a reason
            shot.scene.motionbooth.subjects[name].weights = weights.sha256
    try:
        jobs.wait_until_done(shot.generation)
    finally:
        assert isinstance(shot.generation.request, GenerateSpec)  # now with the files of subjects, style and guide
        trained = [jobs.train_specs[record.id] for record in shot.trainings.values()]
        _write_shot_file(shot, shot.generation.request, trained)
    if (guide := shot.generation.guide) is not None and not guide.clip:
        for file in background_render.clips_of(guide):
            shutil.copy(file, shot.folder)
    jobs.fetch_clip(shot.generation, shot.clip)


def open_shots(blend: Path) -> list[bpy.types.Scene]:
    """Open a .blend; returns its scenes with subjects, each validated. Raises InvalidInput."""
    if blend.is_dir():
        raise InvalidInput("{blend} is a folder; give the path of a saved .blend.", blend=blend)
    if not blend.is_file():
        raise InvalidInput("There is no file {blend}; give the path of a saved .blend.", blend=blend)
    try:
        bpy.ops.wm.open_mainfile(filepath=str(blend.resolve()), load_ui=False)
    except RuntimeError as error:
        raise InvalidInput(
            "Blender {version} cannot open {blend}; it is not a .blend, corrupt, or from a newer Blender.",
            version=bpy.app.version_string,
            blend=blend,
        ) from error
    scenes = [scene for scene in clips.own_scenes() if shots.has_shot(scene)]
    if not scenes:
        raise InvalidInput(
            "No scene of {blend} has a subject; add one to a scene's MotionBooth subjects and choose its object.",
            blend=blend,
        )
    for scene in scenes:
        shots.check_scene(scene)
        check_prompt(scene)
        style_files(scene)
        own_clip(scene)
        for subject in scene.motionbooth.subjects:
            check_source(subject)
    return scenes


def _read_for_model(models: dict[str, ModelInfo], scene: bpy.types.Scene, folder: Path) -> BatchShot:
    model = named_model(scene.motionbooth.model, models)
    shot = _read(scene, folder, shots.model_frames(scene, model), (model.width, model.height))
    if (note := shots.length_note(scene, model)) is not None:
        shot.warnings.append(note)
    shot.model_size = model.width, model.height
    return shot


def _read(scene: bpy.types.Scene, folder: Path, frames: int, size: tuple[int, int]) -> BatchShot:
    captured = shots.read_shot(scene, frames, size)
    warnings = [warning.sentence for warning in captured.warnings]
    if captured.shot.model_frame and (fitted := framing.explanation(captured.shot.model_frame)):
        warnings.append(fitted)
    warnings += [
        Text.of("{subject}: read with playback ({reason})", subject=method.name, reason=method.playback_reason)
        for method in captured.read_methods
        if method.playback_reason
    ]
    return BatchShot(scene, folder, captured.shot, warnings)


def _keep_pictures(jobs: BlockingJobs, training: JobRecord, folder: Path) -> list[Path]:
    """The pictures that a subject was trained on; rendered ones are copied to a subfolder of `folder`."""
    assert isinstance(training.request, TrainRequest)
    pictures = jobs.pictures(training)
    if training.request.render is None:
        return [image for image, _ in pictures]
    kept = folder / bpy.path.clean_name(training.title)
    kept.mkdir(parents=True, exist_ok=True)
    for file in (file for pair in pictures for file in pair if file is not None):
        shutil.copy(file, kept)
    return [kept / image.name for image, _ in pictures]


def _spec(shot: BatchShot, options: Options) -> GenerateSpec:
    settings = shot.scene.motionbooth
    spec = generate_spec(settings, shot.shot, settings.seed if options.seed is None else options.seed)
    if options.sampling_steps is None:
        return spec
    return msgspec.structs.replace(spec, num_inference_steps=options.sampling_steps)


def _write_shot_file(shot: BatchShot, spec: GenerateSpec, trainings: list[TrainSpec]) -> None:
    shot.folder.mkdir(parents=True, exist_ok=True)
    content = msgspec.json.encode(ShotFile(spec, trainings, shot.warnings))
    (shot.folder / "shot.json").write_bytes(msgspec.json.format(content))


def save_with_clips(path: Path, batch: list[BatchShot], on_progress: OnProgress) -> Path:
    """Save the open .blend as `path`, each clip a strip and a take of its scene; `path` appears whole or not at all."""
    part = path.with_name(f".{path.name}.part.blend")
    try:
        _save(part)  # first, so that the paths of the clips are relative to its folder
        for shot in batch:
            _place(shot, on_progress)
        _save(part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return path


def _place(shot: BatchShot, on_progress: OnProgress) -> None:
    """Put the clip on its scene's timeline and among its takes."""
    assert shot.generation is not None
    assert isinstance(shot.generation.request, GenerateSpec)
    if warning := takes.place_take(shot.scene, shot.generation.id, shot.generation.request, shot.clip):
        shot.warnings.append(warning)
        on_progress(ProgressReport("placing the clip", 0, 0, note=warning))


def _save(path: Path) -> None:
    try:
        # Not compressed: on a full disk Blender 5.0 cuts a compressed file short and reports success.
        bpy.ops.wm.save_as_mainfile(filepath=str(path), check_existing=False, compress=False)
    except RuntimeError as error:
        raise OutOfSpace(
            "Blender could not save a .blend in {folder}; free some space there, or choose another --out.",
            folder=path.parent,
        ) from error
