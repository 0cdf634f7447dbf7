"""`motionbooth bench guide`: what a guide keeps and what it leaves free, over its strengths. Needs bpy.

Four scenes are rendered as guides: the demo with its toy in place of its box, and three scenes of `scene_kinds` with
colors and a wall. Clips of some seeds are generated with each strength for the subject, and for the background.

iou, center_error, found_share: of the subject in its boxes, found by the rendered subject's colors.
subject_difference: from the render, over the pixels of the subject in it; background_difference: likewise, elsewhere.
background_freedom: between the clips of two seeds, outside the rendered subject. All in CIE Lab.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from motionbooth.bench.measures import BenchResult, Measure
from motionbooth.evaluation.contact_sheet import Row, write_contact_sheet
from motionbooth.evaluation.contributions import lab_difference
from motionbooth.evaluation.report import TargetSubject, motion_report
from motionbooth.generation.sampling import generate_exactly, in_eight_bits
from motionbooth.generation.video import read_clip
from motionbooth.models.base import Base
from motionbooth.models.registry import load_base
from motionbooth.models.sources import source_named
from motionbooth.pictures.appearance import Appearance
from motionbooth_protocol.jobs import GenerateSpec, Guide
from motionbooth_protocol.motion import Shot
from numpy.typing import NDArray
from rich.progress import track

from motionbooth_lab.bench.motion import clip_measures

STRENGTHS = (0.3, 0.5, 0.7)
SETTINGS = [(0.0, 0.0), *((strength, 0.0) for strength in STRENGTHS), *((0.0, strength) for strength in STRENGTHS)]
SEEDS = range(2)
Frames = NDArray[np.uint8]


@dataclass(frozen=True)
class GuidedScene:
    """A scene's shot, its prompt, and its render with masks: the files, and what is in them."""

    prompt: str
    shot: Shot
    files: tuple[Path, Path]
    frames: Frames  # (F, H, W, 3)
    masks: NDArray[np.bool_]  # (F, H, W)


def bench_guide(pictures: Path | None = None, model: str = "toybox", seeds: Sequence[int] = SEEDS) -> BenchResult:
    """Run the bench. `pictures`: folder for a contact sheet, guide.png."""
    base = load_base(source_named(model))
    with tempfile.TemporaryDirectory(prefix="motionbooth-bench-") as folder:
        scenes = list(rendered_scenes(base, Path(folder)))
        work = [(scene, setting) for setting in SETTINGS for scene in scenes]
        clips = [generated(base, *pair, seeds) for pair in track(work, "generating", transient=True)]
    measures: list[Measure] = []
    for number, setting in enumerate(SETTINGS):
        own = clips[number * len(scenes) : (number + 1) * len(scenes)]
        measures += measured(scenes, own, suffix_of(setting))
    if pictures is not None:
        rows = [row for scene in range(len(scenes)) for row in _rows(scenes[scene], clips[scene :: len(scenes)])]
        write_contact_sheet(pictures / "guide.png", rows)
    return BenchResult("guide" if model == "toybox" else f"guide-{model}", measures)


def suffix_of(setting: tuple[float, float]) -> str:
    """The end of the names of a setting's figures: "_subject_0_5", "_background_0_5", "_off"."""
    kind = "subject" if setting[0] else "background"
    return f"_{kind}_{max(setting):.1f}".replace(".", "_") if any(setting) else "_off"


def generated(base: Base, scene: GuidedScene, setting: tuple[float, float], seeds: Sequence[int]) -> Frames:
    """The clips (N, F, H, W, 3) of one setting."""
    clip, masks = map(str, scene.files)
    guide = Guide(clip, *setting, masks)
    spec = GenerateSpec(scene.shot, scene.prompt, guide=guide)
    return np.asarray(in_eight_bits(generate_exactly(base, spec, seeds)))


def measured(scenes: Sequence[GuidedScene], clips: Sequence[Frames], suffix: str) -> list[Measure]:
    """The figures of one setting, over all scenes and seeds. `clips`: those of each scene."""
    reports, subject, background, freedom = [], [], [], []
    for scene, takes in zip(scenes, clips, strict=True):
        appearance = Appearance.from_pictures(list(scene.frames), list(scene.masks))
        (boxes,) = (each.boxes for each in scene.shot.subjects)
        reports += [motion_report(take, [TargetSubject("it", appearance, boxes)], scene.shot.camera) for take in takes]
        subject += [lab_difference(take, scene.frames, scene.masks) for take in takes]
        background += [lab_difference(take, scene.frames, ~scene.masks) for take in takes]
        freedom += [lab_difference(one, other, ~scene.masks) for one, other in combinations(takes, 2)]
    figures = {"subject_difference": subject, "background_difference": background, "background_freedom": freedom}
    means = [Measure(f"{name}{suffix}", float(np.mean(values)), "CIE Lab") for name, values in figures.items()]
    return [*clip_measures(reports, suffix=suffix)[:3], *means]


def _rows(scene: GuidedScene, clips: Sequence[Frames]) -> Iterator[Row]:
    """The render, and the first seed's clip of every other setting; every other frame."""
    boxes = [track.boxes[::2] for track in scene.shot.subjects]
    yield Row(f"{scene.prompt}: the guide", scene.frames[::2], boxes)
    for (subject, background), takes in list(zip(SETTINGS, clips, strict=True))[::2]:
        yield Row(f"subject {subject}, background {background}", takes[0][::2], boxes)


# The scenes, in Blender


def rendered_scenes(base: Base, folder: Path) -> Iterator[GuidedScene]:
    """Render the guides of all scenes. Needs bpy, with the extension registered or not."""
    import bpy
    import motionbooth_addon

    was_registered = hasattr(bpy.types.Scene, "motionbooth")
    if not was_registered:
        motionbooth_addon.register()
    try:
        for number, (build, prompt) in enumerate(SCENES):
            yield _rendered(build(), prompt, base, folder / str(number))
    finally:
        if not was_registered:
            motionbooth_addon.unregister()


def _rendered(scene: Any, prompt: str, base: Base, folder: Path) -> GuidedScene:
    from motionbooth_addon.capture import shot_cache, shots
    from motionbooth_addon.guide.request import guide_render
    from motionbooth_addon.turntable import background_render

    form = base.settings
    captured = shots.read_shot(scene, form.frames, (form.width, form.height)).shot
    wanted = guide_render(scene, captured, (form.width, form.height), folder, (1.0, 1.0))
    shot_cache.stop()
    assert wanted is not None
    command = background_render.renderer("", system_python=False)
    clip, masks = background_render.render_guide(command, wanted, captured, lambda report: None)
    shot = msgspec.msgpack.decode(msgspec.msgpack.encode(captured), type=Shot)  # the extension has its own copy of it
    return GuidedScene(prompt, shot, (clip, masks), read_clip(clip)[0], read_clip(masks)[0][..., 0] > 127)


def _demo() -> Any:
    """The demo's toy, upright in front of the camera, where its box is."""
    import bpy
    from motionbooth.cli.demo import DEMO_SCENE

    from motionbooth_lab.bench.scene_building import add

    bpy.ops.wm.open_mainfile(filepath=str(DEMO_SCENE))
    scene = bpy.context.scene
    (subject,) = scene.motionbooth.subjects
    box, toy = subject.object, add(scene, "Toy", None)
    subject.training_object.parent, subject.training_object.location = toy, (0, 0, 0)
    toy.parent, toy.rotation_euler = scene.camera, (-math.pi / 2, 0, 0)
    for frame in range(scene.frame_start, scene.frame_end + 1):
        scene.frame_set(frame)
        size = box.scale.y / 2.1  # the toy's height; its origin is between its feet
        toy.location = box.location.x, box.location.y - box.scale.y / 2, box.location.z
        toy.scale = (size,) * 3
        for path in ("location", "scale"):
            toy.keyframe_insert(path, frame=frame)
    subject.object, subject.token, subject.class_word = toy, "", "purple toy"
    return scene


def _foreign(kind: str, color: tuple[float, float, float], wall: tuple[float, float, float]) -> Callable[[], Any]:
    def build() -> Any:
        import bpy

        from motionbooth_lab.bench import animated_scenes  # noqa: F401  (registers its scenes)
        from motionbooth_lab.bench.scene_building import cube, new_scene
        from motionbooth_lab.make_demo_scene import paint

        scene = new_scene(kind)
        subject = scene.motionbooth.subjects[0]
        for thing in scene.objects:  # such as what the subject follows
            thing.hide_render = thing != subject.object
        for mesh in bpy.data.meshes:
            mesh.materials.append(paint("Subject", color))
        cube(scene, (0, 40, 0), 40.0, "Wall").data.materials.append(paint("Wall", wall))
        subject.token, subject.class_word = "", "cube"
        return scene

    return build


SCENES = (
    (_demo, "a purple toy on the road"),
    (_foreign("keyframed_mesh", (0.7, 0.01, 0.01), (0.1, 0.4, 0.05)), "a red cube on the grass"),
    (_foreign("constrained_and_parented", (0.02, 0.08, 0.8), (0.8, 0.6, 0.3)), "a blue cube on the sand"),
    (_foreign("nested_collection_instance", (0.9, 0.7, 0.02), (0.02, 0.05, 0.2)), "a yellow cube in the night sky"),
)
