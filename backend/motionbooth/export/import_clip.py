"""A clip that another engine generated from an exported shot, brought back as a take."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
from motionbooth_protocol.errors import InvalidInput
from motionbooth_protocol.jobs import GenerateSpec
from motionbooth_protocol.limits import MAX_FRAMES
from msgspec.structs import replace

from motionbooth.evaluation.generated_shot import GeneratedShot
from motionbooth.evaluation.report import MotionReport, write_report
from motionbooth.export.engine_shot import engine_shot
from motionbooth.generation.video import read_clip, write_clip

FEWEST_FRAMES = 2


def import_clip(
    clip: Path, spec: GenerateSpec, pictures: dict[str, list[Path]], subjects: Sequence[Path], out: Path
) -> tuple[GeneratedShot, MotionReport]:
    """Write `clip` to `out` in the shot's length and rate, with OUT.shot.json, OUT.report.json and OUT.sheet.png.

    `spec`: the shot as it was exported, or the original. The clip shows the whole shot, from its first frame to its
    last, in a frame that contains the finished one. Raises InvalidInput if it cannot be read or is a single frame.
    """
    if out.resolve() == clip.resolve():
        raise InvalidInput("{clip} would be replaced by its take. Choose another file for the take.", clip=clip)
    frames, _ = read_clip(clip)
    if len(frames) < FEWEST_FRAMES:
        raise InvalidInput("{clip} has one frame. A take needs a clip of the whole shot.", clip=clip)
    height, width = (side - side % 2 for side in frames.shape[1:3])  # H.264 has even sizes
    frames = np.ascontiguousarray(frames[:, :height, :width])
    shot = engine_shot(spec.shot, min(len(frames), MAX_FRAMES), (width, height))
    spec = replace(spec, shot=shot)
    generated = GeneratedShot.load(clip, spec, pictures)
    for path in subjects:
        generated = generated.with_subject(path)
    report = generated.report()
    out.parent.mkdir(parents=True, exist_ok=True)
    unfinished = out.with_name(f".{out.name}.part")
    try:
        write_clip(unfinished, frames, shot.fps, shot.scene_frames)
        unfinished.replace(out)
    finally:
        unfinished.unlink(missing_ok=True)
    out.with_suffix(".shot.json").write_bytes(msgspec.json.encode({"generate": spec}))
    write_report(out.with_suffix(".report.json"), report)
    generated.write_contact_sheet(out.with_suffix(".sheet.png"), report)
    return generated, report
