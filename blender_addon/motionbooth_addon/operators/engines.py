"""Operators that give the shot to other video engines, and bring their clips back as takes."""

# mypy: disable-error-code="valid-type"

import subprocess
import tempfile
import uuid
from pathlib import Path

import bpy
import msgspec
from bpy.props import BoolProperty, EnumProperty, StringProperty
from bpy_extras.io_utils import ImportHelper

from .._protocol.errors import ErrorReport, InvalidInput, JobFailed, MotionBoothError
from .._protocol.jobs import GenerateSpec
from .._protocol.limits import MAX_FRAMES
from .._protocol.picture_files import PICTURE_SUFFIXES
from .._protocol.text import Text
from ..capture import shots
from ..job_store import GuideRender
from ..jobs.controller import current_clip_folder
from ..jobs.specs import check_prompt, generate_spec
from ..local_backend.install import environment
from ..properties import ENGINES
from ..timeline import takes
from ..turntable.background_render import clips_of
from .backend import backend_command
from .base import ReportsErrors, refuse
from .jobs import last_guide
from .subjects import has_camera

SHOT_FILE = "shot.json"


class _ShotFile(msgspec.Struct):
    generate: GenerateSpec


class _BackendProgram(ReportsErrors):
    """Base of operators that run the backend's command line. In a window, Blender stays usable, and Esc cancels."""

    _timer: bpy.types.Timer | None = None

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        if not shots.has_shot(context.scene):
            return refuse(cls, "Add a subject first.")
        return has_camera(cls, context.scene)

    def arguments(self, context: bpy.types.Context) -> list[str]:
        """What follows `motionbooth`. Raises MotionBoothError."""
        raise NotImplementedError

    def finish(self, context: bpy.types.Context) -> None:
        """Use what the program wrote."""
        raise NotImplementedError

    def act(self, context: bpy.types.Context) -> None:
        self._start(context)
        self._process.wait()
        self._end(context)

    def execute(self, context: bpy.types.Context) -> set[str]:
        if bpy.app.background or context.window is None:
            return super().execute(context)
        try:
            self._start(context)
        except Exception as error:
            return self.fail(error)
        self._timer = context.window_manager.event_timer_add(0.2, window=context.window)
        context.window.cursor_modal_set("WAIT")
        context.window_manager.modal_handler_add(self)
        return {"RUNNING_MODAL"}

    def modal(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        if event.type == "ESC":
            self.cancel(context)
            return {"CANCELLED"}
        if event.type != "TIMER" or self._process.poll() is None:
            return {"RUNNING_MODAL"}  # blocks other input: an undo would invalidate the scene
        self._stop_waiting(context)
        try:
            self._end(context)
        except Exception as error:
            return self.fail(error)
        return {"FINISHED"}

    def cancel(self, context: bpy.types.Context) -> None:
        """Blender also calls this when it ends the operator: its window is closed, or another file is opened."""
        self._process.kill()
        self._process.wait()
        self._stop_waiting(context)

    def _start(self, context: bpy.types.Context) -> None:
        environ = {**environment(), "MOTIONBOOTH_ERRORS": "json"}
        command = [*backend_command(), *self.arguments(context)]
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 (closed in _end)
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=self._said, env=environ
        )

    def _end(self, context: bpy.types.Context) -> None:
        with self._said as said:
            said.seek(0)
            lines = said.read().strip().splitlines()
        if self._process.returncode:
            raise _error(lines[-1] if lines else b"")
        self.finish(context)

    def _stop_waiting(self, context: bpy.types.Context) -> None:
        context.window_manager.event_timer_remove(self._timer)
        context.window.cursor_modal_restore()


def _error(line: bytes) -> MotionBoothError:
    """The error in the last line that the program printed."""
    try:
        return msgspec.json.decode(line, type=ErrorReport).error()
    except msgspec.MsgspecError:
        reason = line.decode(errors="replace") or Text("it printed nothing")
        return JobFailed("The backend's program ended early: {reason}.", reason=reason)


def guide_option(guide: GuideRender) -> list[str]:
    """How the shot's guide is given to an export: a picture of the user's is the first frame."""
    path = clips_of(guide)[0]
    if not path.is_file():
        return []
    is_picture = bool(guide.clip) and path.suffix.lower() in PICTURE_SUFFIXES
    return ["--first-frame" if is_picture else "--guide", str(path)]


def write_shot(scene: bpy.types.Scene) -> Path:
    """shot.json, with the shot at all of its frames and in its own aspect ratio: engines have theirs."""
    check_prompt(scene)
    shot = shots.read_shot(scene, min(scene.frame_end - scene.frame_start + 1, MAX_FRAMES)).shot
    file = Path(tempfile.mkdtemp(prefix="motionbooth_", dir=bpy.app.tempdir or None), SHOT_FILE)
    file.write_bytes(msgspec.json.encode(_ShotFile(generate_spec(scene.motionbooth, shot, scene.motionbooth.seed))))
    return file


class MOTIONBOOTH_OT_export_shot(_BackendProgram, bpy.types.Operator):
    """Write this shot as the control files of another video engine. The backend must be installed on this machine"""

    bl_idname = "motionbooth.export_shot"
    bl_label = "Export Shot"

    engine: EnumProperty(
        name="Video Engine", items=ENGINES, description="The engine that will generate the clip from the exported shot"
    )
    directory: StringProperty(subtype="DIR_PATH", options={"HIDDEN"})
    filter_folder: BoolProperty(default=True, options={"HIDDEN"})

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        self.engine = context.scene.motionbooth.engine
        context.window_manager.fileselect_add(self)
        return {"RUNNING_MODAL"}

    def arguments(self, context: bpy.types.Context) -> list[str]:
        name = bpy.path.clean_name(context.scene.motionbooth.name or context.scene.name)
        self._folder = Path(bpy.path.abspath(self.directory)) / f"{name}_{self.engine}"
        shot = write_shot(context.scene)
        guide = last_guide(context.scene)
        seen = [] if guide is None else guide_option(guide)
        return ["export", str(shot), "--to", self.engine, "--out", str(self._folder), *seen]

    def finish(self, context: bpy.types.Context) -> None:
        self.inform("Wrote {folder}. Its README says what to do next.", folder=self._folder)


class MOTIONBOOTH_OT_import_clip(_BackendProgram, ImportHelper, bpy.types.Operator):
    """Add a clip that another engine generated from this shot as a take, measured against the shot"""

    bl_idname = "motionbooth.import_clip"
    bl_label = "Import Clip as Take"
    bl_options = {"UNDO"}  # without REGISTER: a changed option would run the program again

    filter_glob: StringProperty(default="*.mp4;*.mov;*.mkv;*.webm;*.avi", options={"HIDDEN"})

    def arguments(self, context: bpy.types.Context) -> list[str]:
        clip = Path(self.filepath)
        if not clip.is_file():
            raise InvalidInput("There is no clip at {path}. Choose the clip that the engine wrote.", path=clip)
        self._id = uuid.uuid4().hex
        folder = current_clip_folder()
        self._take = folder / f"{bpy.path.clean_name(clip.stem)}_{self._id[:8]}.mp4"
        exported = clip.with_name(SHOT_FILE)
        if not exported.is_file():
            exported = write_shot(context.scene)
        return ["import", str(clip), "--shot", str(exported), "--out", str(self._take)]

    def finish(self, context: bpy.types.Context) -> None:
        spec = msgspec.json.decode(self._take.with_suffix(".shot.json").read_bytes(), type=_ShotFile).generate
        warning = takes.place_take(context.scene, self._id, spec, self._take)
        self.inform('Placed "{take}" on the timeline', take=self._take.stem)
        if warning is not None:
            self.inform(warning, "WARNING")


CLASSES = (MOTIONBOOTH_OT_export_shot, MOTIONBOOTH_OT_import_clip)
