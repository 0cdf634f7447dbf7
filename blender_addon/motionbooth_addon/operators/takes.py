"""Operators on takes: show, star, compare, restore settings, use as a camera background, convert, remove."""

# mypy: disable-error-code="valid-type"

import bpy
from bpy.props import IntProperty

from .. import compat
from .._protocol.errors import InvalidInput
from ..jobs import specs
from ..jobs.controller import job_controller
from ..timeline import clips, colors, image_sequence, takes
from .base import ReportsErrors, refuse
from .subjects import has_camera


class _TakeOperator(ReportsErrors):
    """Base of operators on one take of the scene: the one with the given index, or the active one."""

    bl_options = {"REGISTER", "UNDO"}

    index: IntProperty(name="Take", default=-1, options={"HIDDEN", "SKIP_SAVE"})

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        shot = compat.shown_scene(context).motionbooth
        if shot.active_take < len(shot.takes):
            return True
        return refuse(cls, "There is no take yet. Generate the shot first.")

    def act(self, context: bpy.types.Context) -> None:
        scene = compat.shown_scene(context)
        shot = scene.motionbooth
        index = shot.active_take if self.index < 0 else self.index
        if index >= len(shot.takes):
            raise InvalidInput(
                "The shot has {found} takes, so there is no take {number}.", found=len(shot.takes), number=index + 1
            )
        self.act_on(scene, index)

    def act_on(self, scene: bpy.types.Scene, index: int) -> None:
        raise NotImplementedError


class MOTIONBOOTH_OT_activate_take(_TakeOperator, bpy.types.Operator):
    """Show this take on the timeline and mute the other takes of the shot"""

    bl_idname = "motionbooth.activate_take"
    bl_label = "Show Take"

    def act_on(self, scene: bpy.types.Scene, index: int) -> None:
        take = scene.motionbooth.takes[index]
        record = job_controller().store.records.get(take.job_id)
        if record is not None and not clips.clip_of(take).is_file():
            scene.motionbooth.active_take = index
            job_controller().place(record)  # fetches the clip again
        else:
            takes.activate(scene, index)


class MOTIONBOOTH_OT_show_exact_colors(ReportsErrors, bpy.types.Operator):
    """Set the view transform of this scene to Standard, which shows clips unchanged and alters the look of renders"""

    bl_idname = "motionbooth.show_exact_colors"
    bl_label = "Show Exact Colors"
    bl_options = {"REGISTER", "UNDO"}

    def act(self, context: bpy.types.Context) -> None:
        changed = colors.show_exact_colors(compat.shown_scene(context))
        self.inform(changed or "The clips already have their exact colors.")


class MOTIONBOOTH_OT_star_take(_TakeOperator, bpy.types.Operator):
    """Mark this take as a favorite, or remove the mark"""

    bl_idname = "motionbooth.star_take"
    bl_label = "Star Take"

    def act_on(self, scene: bpy.types.Scene, index: int) -> None:
        take = scene.motionbooth.takes[index]
        take.starred = not take.starred


class MOTIONBOOTH_OT_compare_takes(_TakeOperator, bpy.types.Operator):
    """Show the left half of the active take beside the right half of this one"""

    bl_idname = "motionbooth.compare_takes"
    bl_label = "Compare with Active Take"

    def act_on(self, scene: bpy.types.Scene, index: int) -> None:
        shot = scene.motionbooth
        if index == shot.active_take:
            raise InvalidInput("This is the active take. Choose another take to compare it with.")
        takes.compare(scene, shot.active_take, index)


class MOTIONBOOTH_OT_remove_take(_TakeOperator, bpy.types.Operator):
    """Remove this take from the list and the timeline. Its clip file stays on disk"""

    bl_idname = "motionbooth.remove_take"
    bl_label = "Remove Take"

    def act_on(self, scene: bpy.types.Scene, index: int) -> None:
        takes.remove(scene, index)


class MOTIONBOOTH_OT_restore_take_settings(_TakeOperator, bpy.types.Operator):
    """Restore the prompt, model, seed and other settings with which this take was generated"""

    bl_idname = "motionbooth.restore_take_settings"
    bl_label = "Restore Settings"

    def act_on(self, scene: bpy.types.Scene, index: int) -> None:
        if missing := specs.restore_settings(scene, takes.spec_of(scene.motionbooth.takes[index])):
            self.inform(missing, "WARNING")


class MOTIONBOOTH_OT_take_as_background(_TakeOperator, bpy.types.Operator):
    """Show this take as the background image of the active camera, in sync with the timeline"""

    bl_idname = "motionbooth.take_as_background"
    bl_label = "Show as Camera Background"

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return has_camera(cls, compat.shown_scene(context)) and super().poll(context)

    def act_on(self, scene: bpy.types.Scene, index: int) -> None:
        takes.show_in_camera(scene, scene.motionbooth.takes[index])


class MOTIONBOOTH_OT_take_as_images(_TakeOperator, bpy.types.Operator):
    """Write this take as an image sequence beside its clip, and place it above the take. Esc cancels"""

    bl_idname = "motionbooth.take_as_images"
    bl_label = "Convert to Image Sequence"

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        if bpy.app.is_job_running("RENDER"):
            return refuse(cls, "Wait until Blender has finished rendering.")
        return super().poll(context)

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        scene = compat.shown_scene(context)
        shot = scene.motionbooth
        self._writing = image_sequence.write_images(scene, shot.active_take if self.index < 0 else self.index)
        self._timer = context.window_manager.event_timer_add(0.01, window=context.window)
        context.window_manager.progress_begin(0, 1)
        context.window_manager.modal_handler_add(self)
        return {"RUNNING_MODAL"}

    def modal(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        """Write one image at each tick of the timer."""
        if event.type == "ESC":
            return self._end(context, {"CANCELLED"})
        if event.type != "TIMER":
            return {"RUNNING_MODAL"}  # blocks other input: an undo would invalidate the scene
        try:
            done, of = next(self._writing)
        except StopIteration:
            return self._end(context, {"FINISHED"})
        except Exception as error:
            return self._end(context, self.fail(error))
        context.window_manager.progress_update(done / of)
        return {"RUNNING_MODAL"}

    def cancel(self, context: bpy.types.Context) -> None:
        """Blender ends the operator: its window is closed, or another file is opened."""
        self._end(context, {"CANCELLED"})

    def _end(self, context: bpy.types.Context, result: set[str]) -> set[str]:
        self._writing.close()
        context.window_manager.event_timer_remove(self._timer)
        context.window_manager.progress_end()
        return result

    def act_on(self, scene: bpy.types.Scene, index: int) -> None:
        for _ in image_sequence.write_images(scene, index):
            pass


CLASSES = (
    MOTIONBOOTH_OT_activate_take,
    MOTIONBOOTH_OT_show_exact_colors,
    MOTIONBOOTH_OT_star_take,
    MOTIONBOOTH_OT_compare_takes,
    MOTIONBOOTH_OT_remove_take,
    MOTIONBOOTH_OT_restore_take_settings,
    MOTIONBOOTH_OT_take_as_background,
    MOTIONBOOTH_OT_take_as_images,
)
