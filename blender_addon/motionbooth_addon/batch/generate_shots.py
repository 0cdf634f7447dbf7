"""From shots in a .blend to clips on its timeline, through a backend. One thread, which waits; needs bpy."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import bpy
import msgspec

from .._protocol.client import Client, new_job_id
from .._protocol.connection import Connection
from .._protocol.errors import InvalidInput, MotionBoothError, NotFound, OutOfSpace
from .._protocol.jobs import GenerateSpec, Job, JobSpec, JobState, Picture, SubjectSpec, TrainSpec, spec_digest
from .._protocol.motion import Shot
from .._protocol.reports import ProgressReport
from ..capture import framing, shots
from ..jobs.specs import SMALLEST_PICTURE, check_words, generate_spec
from ..timeline import takes
from ..timeline.take_motion import report_path
from ..turntable.pictures import check_source, needs_training, training_pictures
from ..turntable.turntable import TrainingPicture
from .folders import folder_for_each

DRY_RUN_FRAMES, DRY_RUN_SIZE = 8, (96, 64)  # of the bundled model; a backend says what its models make

Tell = Callable[[dict[str, Any]], None]


class Sent(msgspec.Struct, frozen=True):
    """shot.json: the jobs of one shot as they were sent, and what the animator was told, a sentence each."""

    generate: GenerateSpec
    train: list[TrainSpec] = []
    warnings: list[str] = []


@dataclass(frozen=True)
class Options:
    """What a call may change. None: as the scene or the model has it."""

    seed: int | None = None
    training_steps: int | None = None
    sampling_steps: int | None = None
    dry_run: bool = False
    in_place: bool = False


@dataclass
class Filmed:
    """One shot on its way: what "done" reports of it, and what the .blend keeps."""

    scene: bpy.types.Scene
    folder: Path
    shot: Shot
    warnings: list[str]
    picture_size: int = SMALLEST_PICTURE
    train: list[TrainSpec] = field(default_factory=list)
    pictures: dict[str, list[Path]] = field(default_factory=dict)  # by the subject's name
    generate: GenerateSpec | None = None
    job: str | None = None
    clip: Path | None = None

    def report(self) -> dict[str, Any]:
        return {
            "scene": self.scene.name,
            "frames": f"{self.shot.frame_start}-{self.shot.frame_end}",
            "clip": str(self.clip) if self.clip else None,
            "shot": str(self.folder / "shot.json"),
            "pictures": {name: [str(picture) for picture in taken] for name, taken in self.pictures.items()},
            "job": self.job,
            "warnings": self.warnings,
        }


class Jobs:
    """The jobs of one call, written down in `file` until all are done: a call after one that was cut short goes on with
    them.
    """

    def __init__(self, client: Client, file: Path) -> None:
        self.client = client
        self._file = file
        self._known: dict[str, str] = _read_jobs(file)  # job ids by the digests of their specs

    def submit(self, spec: JobSpec) -> str:
        """Have it done, unless it is under way already; the job's id."""
        digest = spec_digest(spec)
        if not self._goes_on(self._known.get(digest)):
            self._known[digest] = new_job_id()
            self._file.parent.mkdir(parents=True, exist_ok=True)
            self._file.write_bytes(msgspec.json.encode(self._known))
            self.client.submit(self._known[digest], spec)
        return self._known[digest]

    def _goes_on(self, job: str | None) -> bool:
        try:
            return job is not None and self.client.get(job).state in {JobState.QUEUED, JobState.RUNNING, JobState.DONE}
        except NotFound:
            return False

    def follow(self, job: str, note: str, tell: Tell) -> Job:
        """Wait for it. Raises JobFailed with the reason."""

        def on_progress(at: ProgressReport) -> None:
            tell(_progress(at.stage, at.step, at.steps, at.seconds_left, at.note or note))

        return self.client.follow(job, on_progress)

    def cancel(self) -> None:
        for job in self._known.values():
            with contextlib.suppress(MotionBoothError):  # it may be done, or the backend gone
                self.client.cancel(job)

    def forget(self) -> None:
        self._file.unlink(missing_ok=True)


def _read_jobs(file: Path) -> dict[str, str]:
    try:
        return msgspec.json.decode(file.read_bytes(), type=dict[str, str])
    except (OSError, msgspec.DecodeError):
        return {}


def film(blend: Path, connection_file: Path | None, out: Path, options: Options, tell: Tell) -> dict[str, Any]:
    """Film every shot of `blend` into `out`; returns what "done" reports (see film_file.py).

    What is wrong with the scenes is found before anything is sent. `connection_file` may be None for a dry run.
    Raises MotionBoothError. The .blend itself is only written in place, and appears whole or stays as it was.

    All jobs are at the backend before the first is waited for, as far as they do not need one another, so that several
    workers can be busy.
    """
    tell(_progress("reading the scene"))
    scenes = open_shots(blend)
    out = out.resolve()
    names = [bpy.path.clean_name(scene.name) for scene in scenes]  # "a b" and "a:b" become one
    folders = [out] if len(scenes) == 1 else folder_for_each(names, out)
    if options.dry_run:
        shots = [
            _read(scene, folder, DRY_RUN_FRAMES, DRY_RUN_SIZE) for scene, folder in zip(scenes, folders, strict=True)
        ]
        for filmed in shots:
            filmed.generate = _generate_spec(filmed, options)
            _write_sent(filmed)
        return {"blend": None, "shots": [filmed.report() for filmed in shots]}
    if connection_file is None:
        raise InvalidInput("Filming needs a backend; give its connection file with --connection.")
    with Client(Connection.read(connection_file), name="Blender") as client:
        shots = [_read_for_model(client, scene, folder) for scene, folder in zip(scenes, folders, strict=True)]
        for filmed in shots:
            for warning in filmed.warnings:
                tell(_progress("reading the scene", note=warning))
        _film_shots(Jobs(client, out / "jobs.json"), shots, options, tell)
    tell(_progress("placing the clip"))
    return {
        "blend": str(save_with_clips(blend.resolve() if options.in_place else out / "shot.blend", shots, tell)),
        "shots": [filmed.report() for filmed in shots],
    }


def open_shots(blend: Path) -> list[bpy.types.Scene]:
    """Open a .blend; its scenes with subjects, each checked. Raises InvalidInput."""
    if blend.is_dir():
        raise InvalidInput(f"{blend} is a folder; give the path of a saved .blend.")
    if not blend.is_file():
        raise InvalidInput(f"There is no file {blend}; give the path of a saved .blend.")
    try:
        bpy.ops.wm.open_mainfile(filepath=str(blend.resolve()), load_ui=False)
    except RuntimeError as error:
        raise InvalidInput(
            f"Blender {bpy.app.version_string} cannot open {blend}; it is no .blend, damaged or from a newer Blender."
        ) from error
    scenes = [scene for scene in bpy.data.scenes if shots.has_shot(scene)]
    if not scenes:
        raise InvalidInput(
            f"No scene of {blend} has a subject; add one to a scene's MotionBooth subjects and choose its object."
        )
    for scene in scenes:
        shots.check_scene(scene)
        check_words(scene)
        for subject in scene.motionbooth.subjects:
            check_source(subject)
    return scenes


def _read_for_model(client: Client, scene: bpy.types.Scene, folder: Path) -> Filmed:
    models = {model.name: model for model in client.models()}
    model = models.get(scene.motionbooth.model)
    if model is None:
        raise InvalidInput(
            f'The backend has no model "{scene.motionbooth.model}"; it has: {", ".join(sorted(models)) or "none"}.'
        )
    filmed = _read(scene, folder, model.frames, (model.width, model.height))
    filmed.picture_size = max(SMALLEST_PICTURE, model.height)
    return filmed


def _read(scene: bpy.types.Scene, folder: Path, frames: int, size: tuple[int, int]) -> Filmed:
    reading = shots.read_shot(scene, frames, size)
    return Filmed(scene, folder, reading.shot, [*reading.warnings, *_of_framing(reading.shot), *_of_ways(reading)])


def _of_framing(shot: Shot) -> list[str]:
    """What is generated and not shown, or shown empty."""
    words = framing.explanation(shot.model_frame) if shot.model_frame else ""
    return [words] if words else []


def _of_ways(reading: shots.CapturedShot) -> list[str]:
    """What was not read beside the scene."""
    return [
        f"{method.name} was read by playing the scene ({method.playback_reason})."
        for method in reading.read_methods
        if method.playback_reason
    ]


def _film_shots(jobs: Jobs, shots: list[Filmed], options: Options, tell: Tell) -> None:
    """Learn the subjects that are new, film, fetch the clips. Ctrl+C cancels what is under way."""
    try:
        learning = [_send_subjects(jobs, filmed, options, tell) for filmed in shots]
        filming = []
        for filmed, lessons in zip(shots, learning, strict=True):
            for subject, job in lessons:
                subject.weights = jobs.follow(job, subject.name, tell).result("subject").sha256
            filming.append(_send_shot(jobs, filmed, options))
        for filmed, job in zip(shots, filming, strict=True):
            _fetch_clip(jobs, filmed, jobs.follow(job, filmed.shot.name, tell), tell)
    except KeyboardInterrupt:
        jobs.cancel()
        raise
    jobs.forget()


def _send_subjects(
    jobs: Jobs, filmed: Filmed, options: Options, tell: Tell
) -> list[tuple[bpy.types.PropertyGroup, str]]:
    """Have the subjects learned that are not yet; each with its job."""
    new = [subject for subject in filmed.scene.motionbooth.subjects if needs_training(subject)]
    return [(subject, _learn(jobs, filmed, subject, options, tell)) for subject in new]


def _send_shot(jobs: Jobs, filmed: Filmed, options: Options) -> str:
    """The job that films a shot whose subjects are learned."""
    tracks = [
        msgspec.structs.replace(track, weights=subject.weights or None)
        for subject, track in zip(filmed.scene.motionbooth.subjects, filmed.shot.subjects, strict=True)
    ]
    filmed.shot = msgspec.structs.replace(filmed.shot, subjects=tracks)
    filmed.generate = _generate_spec(filmed, options)
    _write_sent(filmed)
    return jobs.submit(filmed.generate)


def _fetch_clip(jobs: Jobs, filmed: Filmed, job: Job, tell: Tell) -> None:
    """The clip, and the report on it where the backend has made one."""
    tell(_progress("fetching the clip", note=filmed.shot.name))
    filmed.job, filmed.clip = job.id, filmed.folder / "clip.mp4"
    jobs.client.fetch(job.result("clip"), filmed.clip)
    for blob in job.results:
        if blob.role == "report":
            jobs.client.fetch(blob, report_path(filmed.clip))


def _learn(jobs: Jobs, filmed: Filmed, subject: bpy.types.PropertyGroup, options: Options, tell: Tell) -> str:
    """The job that trains a subject, or finds that it was."""
    folder = filmed.folder / "training_pictures" / bpy.path.clean_name(subject.name)

    def on_picture(done: int, of: int) -> None:
        tell(_progress("rendering training pictures", done, of, note=subject.name))

    pictures = training_pictures(filmed.scene, subject, folder, filmed.picture_size, on_picture)
    filmed.pictures[subject.name] = [picture.image for picture in pictures]
    sent = []
    for number, picture in enumerate(pictures):
        tell(_progress("sending training pictures", number, len(pictures), note=subject.name))
        sent.append(_upload(jobs.client, picture))
    known = SubjectSpec(name=subject.name, token=subject.token, class_word=subject.class_word, pictures=sent)
    spec = TrainSpec(subject=known, model=filmed.scene.motionbooth.model, steps=options.training_steps)
    filmed.train.append(spec)
    return jobs.submit(spec)


def _upload(client: Client, picture: TrainingPicture) -> Picture:
    return Picture(client.upload(picture.image), client.upload(picture.mask) if picture.mask else None)


def _generate_spec(filmed: Filmed, options: Options) -> GenerateSpec:
    settings = filmed.scene.motionbooth
    spec = generate_spec(settings, filmed.shot, settings.seed if options.seed is None else options.seed)
    return spec if options.sampling_steps is None else msgspec.structs.replace(spec, steps=options.sampling_steps)


def _write_sent(filmed: Filmed) -> None:
    assert filmed.generate is not None
    sent = Sent(filmed.generate, filmed.train, filmed.warnings)
    filmed.folder.mkdir(parents=True, exist_ok=True)
    (filmed.folder / "shot.json").write_bytes(msgspec.json.format(msgspec.json.encode(sent)))


def save_with_clips(path: Path, shots: list[Filmed], tell: Tell) -> Path:
    """Save the open .blend as `path`, each clip a strip and a take of its scene; `path` appears whole or not at all."""
    part = path.with_name(f".{path.name}.part.blend")
    try:
        _save(part)  # first, so that paths to the clips can be relative to where it will lie
        for filmed in shots:
            _place(filmed, tell)
        _save(part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return path


def _place(filmed: Filmed, tell: Tell) -> None:
    """The clip onto its scene's timeline, and among its takes."""
    assert filmed.clip is not None
    assert filmed.job is not None
    assert filmed.generate is not None
    if caveat := takes.place_take(filmed.scene, filmed.job, filmed.generate, filmed.clip):
        filmed.warnings.append(caveat)
        tell(_progress("placing the clip", note=caveat))


def _save(path: Path) -> None:
    try:
        # Not compressed: on a full disk Blender 5.0 cuts a compressed file short and reports success.
        bpy.ops.wm.save_as_mainfile(filepath=str(path), check_existing=False, compress=False)
    except RuntimeError as error:
        raise OutOfSpace(
            f"Blender could not save a .blend in {path.parent}; free some space there, or choose another --out."
        ) from error


def _progress(
    stage: str, step: int = 0, steps: int = 0, seconds_left: float | None = None, note: str = ""
) -> dict[str, Any]:
    return {"stage": stage, "step": step, "steps": steps, "seconds_left": seconds_left, "note": note}
