"""`motionbooth bench windows`: clips three times as long as the model's own, in overlapping windows.

The cases are held-out prompts of the model's own kinds, each with a path, a pan and a seed that were not used to choose
the windows' overlap and weights. Each is generated in windows; as the model's own clip spread over it (`_spread`);
and, for what a visible seam measures, as separate clips of other seeds, cut together (`_cut`).

window_seam_ratio: the difference of consecutive frames across the beginnings and ends of windows, over that of the
others. It is the mean absolute difference of the second frame from the first moved along the optical flow, in 0..255.
Only transitions between latent frames count. subject_shift: how far the subject's color is in the last window from the
first, in CIE Lab. The others are those of `bench control`, over all frames that are shown: a held frame is measured
against the box and the camera of its moment.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from motionbooth.bench.measures import BenchResult, Measure
from motionbooth.generation.video import Frames, spread_evenly
from motionbooth.models.base import Base
from motionbooth_protocol.jobs import GenerateSpec
from motionbooth_protocol.long_shots import windows_of
from motionbooth_protocol.motion import CameraPath, Offset
from msgspec.structs import replace
from rich.progress import track

from motionbooth_lab.bench.bundled import TOYBOX_MODEL, Model, bundled_base
from motionbooth_lab.bench.cases import Case, long_cases
from motionbooth_lab.bench.control import appearance_of_kind, generate_frames, middle_lab
from motionbooth_lab.bench.motion import Motion, motion_measures, motion_of
from motionbooth_lab.toybox.draw import ClipFormat

TIMES = 3
"""How long the shots are, in clips of the model."""
KINDS = ("", "_spread", "_cut")


@dataclass(frozen=True)
class Made:
    """A long clip, and what was measured in it. `across`, `inside`: differences of consecutive frames."""

    motion: Motion
    seconds: float
    across: list[float]
    inside: list[float]
    shift: float


def bench_windows(cases: int = 6, model: Model = TOYBOX_MODEL) -> BenchResult:
    """Run the bench: about a minute of one core for each of toybox's cases."""
    base, own = bundled_base(model), model.clip_format
    frames = own.frames + (TIMES - 1) * _stride(base)
    made: dict[str, list[Made]] = {kind: [] for kind in KINDS}
    for case in track(list(long_cases(cases, ClipFormat(frames, own.fps))), "generating", transient=True):
        made[""].append(measured(base, case, generate_frames, window_seams(base, frames)))
        made["_spread"].append(measured(base, case, spread_frames, set()))
        made["_cut"].append(measured(base, case, cut_frames, cuts(base, frames)))
    name = "windows" if model.name == "toybox" else f"windows-{model.name}"
    return BenchResult(name, [each for kind in KINDS for each in _measures(made[kind], frames, kind)])


def _measures(clips: Sequence[Made], frames: int, suffix: str) -> Iterator[Measure]:
    if suffix != "_spread":
        yield Measure(f"window_seam_ratio{suffix}", seam_ratio(clips), "times")
    yield from motion_measures([clip.motion for clip in clips], suffix=suffix)
    yield Measure(f"subject_shift{suffix}", float(np.mean([clip.shift for clip in clips])), "CIE Lab")
    yield Measure(f"seconds_per_frame{suffix}", float(np.mean([clip.seconds for clip in clips])) / frames, "s")


def seam_ratio(clips: Sequence[Made]) -> float:
    across, inside = ([each for clip in clips for each in getattr(clip, name)] for name in ("across", "inside"))
    return float(np.mean(across) / np.mean(inside))


def measured(base: Base, case: Case, generate: Callable[[Base, GenerateSpec], Frames], seams: set[int]) -> Made:
    """Generate a case and measure it. `seams`: the frames that come after one."""
    began = time.monotonic()
    frames = generate(base, case.spec)
    seconds = time.monotonic() - began
    assert case.combination is not None
    motion = motion_of(frames, case, appearance_of_kind(*case.combination[:2]), base.temporal)
    differences = {frame: difference(frames[frame - 1], frames[frame]) for frame in latent_starts(base, len(frames))}
    own = base.settings.frames
    first, last = (middle_lab(frames[part], case.boxes[part]) for part in (slice(own), slice(-own, None)))
    return Made(
        motion,
        seconds,
        across=[value for frame, value in differences.items() if frame in seams],
        inside=[value for frame, value in differences.items() if frame not in seams],
        shift=float(np.linalg.norm(first - last)),
    )


def latent_starts(base: Base, frames: int) -> range:
    """The first frame of each latent frame but the first."""
    return range(1, frames, base.temporal)


def window_seams(base: Base, frames: int) -> set[int]:
    """The frames at which a window begins or has just ended."""
    windows = windows_of(frames, base.settings.frames, base.temporal)
    ends = {window.start for window in windows[1:]} | {window.stop for window in windows[:-1]}
    return {latent_starts(base, frames)[latent - 1] for latent in ends}


def difference(before: Frames, after: Frames) -> float:
    """The mean absolute difference of a frame (H, W, 3) from the one before, moved along the optical flow; 0..255.

    What the frame before does not show is left out.
    """
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in (after, before)]
    flow = cv2.calcOpticalFlowFarneback(*grey, None, 0.5, 3, 9, 3, 5, 1.1, 0)  # type: ignore[call-overload]
    height, width = grey[0].shape
    places = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1) + flow
    x, y = places.astype(np.float32).transpose(2, 0, 1)
    moved = cv2.remap(before, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    shown = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    return float(np.abs(moved.astype(float) - after)[shown].mean())


def spread_frames(base: Base, spec: GenerateSpec) -> Frames:
    """The model's own clip of the shot, spread over its frames."""
    shown = np.linspace(0, spec.shot.frames - 1, base.settings.frames).round().astype(int)
    return spread_evenly(generate_frames(base, part_of(spec, shown.tolist())), spec.shot.frames)


def cut_frames(base: Base, spec: GenerateSpec) -> Frames:
    """The model's own clips of the shot's parts, each of its own seed, cut together."""
    own, stride = base.settings.frames, _stride(base)
    clips = []
    for number, start in enumerate(range(0, spec.shot.frames - own + 1, stride)):
        part = part_of(spec, range(start, start + own), seed=spec.seed + 10_000 * number)
        clips.append(generate_frames(base, part)[own - stride if number else 0 :])
    return np.concatenate(clips)


def cuts(base: Base, frames: int) -> set[int]:
    """The frames after a cut."""
    return set(range(base.settings.frames, frames, _stride(base)))


def _stride(base: Base) -> int:
    """The frames that one more clip of the model adds."""
    return base.settings.frames - (base.temporal > 1)


def part_of(spec: GenerateSpec, frames: Sequence[int], seed: int | None = None) -> GenerateSpec:
    """As many frames of the shot as the model generates at once."""
    offsets = [spec.shot.camera.offsets[frame] for frame in frames]
    start = offsets[0]
    camera = CameraPath([Offset(each.dx - start.dx, each.dy - start.dy) for each in offsets])
    tracks = [replace(each, boxes=[each.boxes[frame] for frame in frames]) for each in spec.shot.subjects]
    shot = replace(spec.shot, camera=camera, subjects=tracks)
    return replace(spec, shot=shot, seed=spec.seed if seed is None else seed, long_shot="spread")
