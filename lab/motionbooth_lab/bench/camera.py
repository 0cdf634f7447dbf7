"""`motionbooth bench camera`: how closely a bundled model's scenery follows cameras that do more than pan. Needs bpy.

The same held-out clips (prompt, boxes, seed) are generated with each camera move, with a still camera (`_still`) and
with both controls off (`_off`). Zooms, rolls and pans are MOVES; the mixed ones are read from .blend files with rigged
cameras (camera_rigs.py). Each `flow_error` is the mean end-point error over all textured scenery, in pixels a frame.
`pan_flow_error_median` is what `bench control` calls flow_error. `capture_error`: the largest difference, in pixels of
a frame of 576 x 320, between the camera's motion as the extension reads it and as in Blender's vector pass, over all
rigs. `parallax_flow_error`: of a dolly before a near and a far wall, with the depth that the extension reads;
`_single_plane`: with the far wall's homographies alone; `_near` and `_far`: over the scenery of each wall, outside the
boxes. `step_ratio`: one step of a random UNet of medium size with a roll, over the same step of diffusers' own loop;
scenery merging is not part of it, so `clip_ratio` is the CPU time of whole clips over that with the controls off.
"""

import math
import multiprocessing
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import numpy as np
import torch
from motionbooth.bench.diffusers_loops import unet_steps
from motionbooth.bench.measures import BenchResult, Measure
from motionbooth.bench.real_size import busy_plan, our_steps, random_step
from motionbooth.control.boxes import box_mask
from motionbooth.control.homography import background_of
from motionbooth.evaluation.camera_adherence import flow_error_px, requested_flows_px, scenery_flows_px
from motionbooth.evaluation.contact_sheet import Row, write_contact_sheet
from motionbooth.evaluation.report import MotionReport, mean_of
from motionbooth_protocol.motion import CameraPath, Homography, Offset
from numpy.typing import NDArray
from rich.progress import Progress

from motionbooth_lab.bench.bundled import TOYBOX_MODEL, Model, bundled_base
from motionbooth_lab.bench.cases import BASE_CASES, Case, base_cases, without_control
from motionbooth_lab.bench.control import PROCESSES, appearance_of_kind, generate_frames
from motionbooth_lab.bench.extension import check_bpy, in_own_process
from motionbooth_lab.bench.midsize import FRAMES, TEXT_WIDTH, midsize_base, midsize_unet
from motionbooth_lab.bench.motion import measured
from motionbooth_lab.bench.sampling import LATENTS, alternate, in_channels_last, median_ratio
from motionbooth_lab.toybox.draw import HEIGHT_PX, WIDTH_PX

STILL, OFF = "still", "off"
RIGS = "motionbooth_lab.bench.camera_rigs"


@dataclass(frozen=True)
class Move:
    """What the camera has done at the end of the clip; it moves evenly."""

    kind: str
    zoom: float = 1.0
    roll: float = 0.0  # degrees
    travel: tuple[float, float] = (0.0, 0.0)  # shares of the frame

    def at(self, share: float) -> Homography:
        """From the first frame to that at `share` (0..1) of the clip, about the center."""
        aspect, angle, zoom = WIDTH_PX / HEIGHT_PX, math.radians(self.roll * share), self.zoom**share
        a, b = zoom * math.cos(angle), zoom * math.sin(angle)
        dx, dy = (share * travel for travel in self.travel)
        return (
            (a, -b / aspect, 0.5 - (a - b / aspect) / 2 - dx),
            (b * aspect, a, 0.5 - (b * aspect + a) / 2 - dy),
            (0.0, 0.0, 1.0),
        )

    def camera(self, frames: int) -> CameraPath:
        """A pan is a path of offsets alone, as the extension reads it."""
        shares = np.linspace(0, 1, frames).tolist()
        offsets = [Offset(self.travel[0] * share, self.travel[1] * share) for share in shares]
        return CameraPath(offsets, [] if self.kind == "pan" else [self.at(share) for share in shares])


MOVES = {
    "pan": Move("pan", travel=(0.25, 0.0)),
    "tilt": Move("pan", travel=(0.0, -0.3)),
    "roll by 20": Move("roll", roll=20.0),
    "roll by -10": Move("roll", roll=-10.0),
    "zoom to 1.4": Move("zoom", zoom=1.4),
    "zoom to 0.7": Move("zoom", zoom=0.7),
}
MIXED = "mixed"
"""The kind of all other moves."""
LAYERED, SINGLE_PLANE = "dolly with two layers", "single plane"
"""The move with depth, and its clip that is generated without."""

NEARER = 1.5
"""Nearness between the two walls' 1 and 2."""

Cameras = Mapping[str, CameraPath]  # by the moves' names


@dataclass(frozen=True)
class Clip:
    """A generated clip. `seconds`: of the CPU, to generate it; `reports`: for each move that it is measured against."""

    frames: NDArray[np.uint8]
    reports: dict[str, MotionReport]
    seconds: float
    layers: tuple[float, float] = (math.nan, math.nan)
    """Mean end-point errors of the near and the far wall of LAYERED."""


def cases(seeds: Sequence[int], model: Model = TOYBOX_MODEL) -> Iterator[Case]:
    """For each seed, one of the held-out clips of `bench control`, with another seed than there."""
    held_out = list(base_cases(model.clip_format))
    for seed in seeds:
        case = held_out[seed * 11 % BASE_CASES]
        yield replace(case, spec=msgspec.structs.replace(case.spec, seed=5000 + seed))


def with_camera(case: Case, camera: CameraPath) -> Case:
    shot = msgspec.structs.replace(case.spec.shot, camera=camera)
    return replace(case, spec=msgspec.structs.replace(case.spec, shot=shot), camera=camera)


def bench_camera(
    seeds: Sequence[int] = range(8), pictures: Path | None = None, model: Model = TOYBOX_MODEL, rounds: int = 5
) -> BenchResult:
    """Run the bench, 13 clips for each seed. `pictures`: folder for camera.png, clips of the first seed.

    Raises InvalidInput if bpy is not installed.
    """
    check_bpy()
    errors = in_own_process(RIGS, "errors")
    cameras = cameras_of(model)
    jobs = [(seed, name) for seed in seeds for name in (*cameras, STILL, SINGLE_PLANE, OFF)]
    with (
        Progress(transient=True) as progress,
        ProcessPoolExecutor(PROCESSES, multiprocessing.get_context("spawn")) as pool,
    ):
        bar = progress.add_task("generating", total=len(jobs))

        def collected(future: Future[Clip]) -> Clip:
            clip = future.result()
            progress.advance(bar)
            return clip

        running = [pool.submit(run_clip, *job, cameras, model) for job in jobs]
        clips = dict(zip(jobs, map(collected, running), strict=True))
    title = "camera" if model == TOYBOX_MODEL else f"camera-{model.name}"
    if pictures is not None:
        case = next(cases(seeds[:1], model))
        rows = [_row(name, with_camera(case, cameras[name]), clips[seeds[0], name]) for name in cameras]
        write_contact_sheet(pictures / f"{title.replace('-', '_')}.png", rows)
    return BenchResult(
        title,
        [
            *camera_measures(seeds, cameras, clips),
            Measure("capture_error", max(errors.values()), "px"),
            Measure("capture_rigs", len(errors), "cameras"),
            Measure("step_ratio", step_ratio(rounds), "ours / diffusers'"),
        ],
    )


def cameras_of(model: Model) -> Cameras:
    """All moves, at the model's frames."""
    frames = model.clip_format.frames
    read = in_own_process(RIGS, "paths", *map(str, (WIDTH_PX, HEIGHT_PX, frames)))
    return {name: move.camera(frames) for name, move in MOVES.items()} | msgspec.convert(read, dict[str, CameraPath])


def kind_of(name: str) -> str:
    return MOVES[name].kind if name in MOVES else "parallax" if name == LAYERED else MIXED


def camera_measures(seeds: Sequence[int], cameras: Cameras, clips: dict[tuple[int, str], Clip]) -> list[Measure]:
    """Flow errors for each kind of move and each move, and the overlap with the boxes."""
    measures = []
    for kind in ("pan", "zoom", "roll", MIXED, "parallax"):
        of_kind = [name for name in cameras if kind_of(name) == kind]
        for suffix, source in (("", None), ("_off", OFF)):
            reports = [clips[seed, source or name].reports[name] for seed in seeds for name in of_kind]
            measures.append(_flow_error(f"{kind}_flow_error{suffix}", [each.mean_flow_error_px for each in reports]))
            if kind == "pan" and not suffix:
                measures.append(_flow_error("pan_flow_error_median", [each.flow_error_px for each in reports]))
    for name in cameras:
        errors = [clips[seed, name].reports[name].mean_flow_error_px for seed in seeds]
        measures.append(_flow_error(f"flow_error_{re.sub('[^a-z0-9]+', '_', name.replace('-', 'minus '))}", errors))
    for suffix, source in (("", LAYERED), ("_single_plane", SINGLE_PLANE), ("_off", OFF)):
        layered = [clips[seed, source] for seed in seeds]
        if source == SINGLE_PLANE:
            errors = [clip.reports[LAYERED].mean_flow_error_px for clip in layered]
            measures.append(_flow_error("parallax_flow_error_single_plane", errors))
        for number, layer in enumerate(("near", "far")):
            value = float(np.nanmean([clip.layers[number] for clip in layered]))
            measures.append(Measure(f"parallax_flow_error_{layer}{suffix}", value, "px a frame"))
    moved = [_iou(clips[seed, name].reports[name]) for seed in seeds for name in cameras]
    still = [_iou(clips[seed, STILL].reports[STILL]) for seed in seeds]
    seconds = [np.mean([clips[seed, name].seconds for seed in seeds for name in names]) for names in (cameras, [OFF])]
    return [
        *measures,
        Measure("seeds", len(seeds), "clips for each move"),
        Measure("iou", float(np.mean(moved)), "0..1"),
        Measure("iou_still", float(np.mean(still)), "0..1"),
        Measure("iou_ratio", float(np.mean(moved) / np.mean(still)), "of that with a still camera"),
        Measure("clip_ratio", float(seconds[0] / seconds[1]), "with control / without"),
    ]


def _flow_error(name: str, values: Sequence[float | None]) -> Measure:
    mean = mean_of(values)
    return Measure(name, float("nan") if mean is None else mean, "px a frame")


def _iou(report: MotionReport) -> float:
    return report.subjects[0].iou or 0.0


def _row(name: str, case: Case, clip: Clip) -> Row:
    found = [frame.found for frame in clip.reports[name].subjects[0].frames]
    return Row(f"{name}: {case.spec.prompt}", clip.frames, [case.boxes], [found], case.camera)


def step_ratio(rounds: int) -> float:
    """The time of a step with a roll over diffusers' own, both on a random UNet of medium size."""
    base, plain = midsize_base(LATENTS), in_channels_last(midsize_unet())
    step, camera = random_step(LATENTS, FRAMES, TEXT_WIDTH), MOVES["roll by 20"].camera(FRAMES)
    plan, scheduler = busy_plan(LATENTS, FRAMES, camera=camera), base.scheduler
    works = {"ours": lambda: our_steps(base, step, [plan]), "theirs": lambda: unet_steps(plain, scheduler, step, 1)}
    return median_ratio(alternate(works, rounds), "ours", "theirs")


# The part that runs in worker processes


def run_clip(seed: int, name: str, cameras: Cameras, model: Model = TOYBOX_MODEL) -> Clip:
    """Generate and measure one clip. The clip without control is measured against each move."""
    (case,) = cases([seed], model)
    assert case.combination is not None
    appearance = appearance_of_kind(*case.combination[:2])
    own = {
        STILL: CameraPath.still(len(case.boxes)),
        SINGLE_PLANE: msgspec.structs.replace(cameras[LAYERED], parallax=None),
    }
    case = with_camera(case, {**own, **cameras}.get(name, own[STILL]))
    started = time.process_time()
    frames = generate_frames(bundled_base(model), without_control(case.spec) if name == OFF else case.spec)
    seconds = time.process_time() - started
    asked = cameras if name == OFF else {LAYERED: cameras[LAYERED]} if name == SINGLE_PLANE else {name: case.camera}
    reports = {each: measured(frames, with_camera(case, camera), appearance) for each, camera in asked.items()}
    layers = layer_errors(frames, case, cameras[LAYERED]) if LAYERED in asked else (math.nan, math.nan)
    return Clip(frames, reports, seconds, layers)


def layer_errors(frames: NDArray[np.uint8], case: Case, camera: CameraPath) -> tuple[float, float]:
    """The mean end-point errors outside the boxes, in pixels a frame: of the near and of the far wall."""
    height, width = frames.shape[1:3]
    flows = list(scenery_flows_px(frames, list(box_mask([case.boxes], (height, width))[0].numpy())))
    asked = requested_flows_px(camera, [flow.points for flow in flows], width, height)
    errors = np.concatenate([flow_error_px(flow.motion, motion) for flow, motion in zip(flows, asked, strict=True)])
    background = background_of(camera)
    near = [background.shown_nearness(torch.from_numpy(flow.points))[f].numpy() for f, flow in enumerate(flows)]
    nearer = np.concatenate(near) > NEARER
    return _mean(errors[nearer]), _mean(errors[~nearer])


def _mean(values: NDArray[np.float64]) -> float:
    return float(values.mean()) if len(values) else math.nan
