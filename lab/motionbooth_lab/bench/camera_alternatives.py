"""An experiment: other ways to move the scenery than `motionbooth.control` does, on toybox, with the same seeds.

    python -m motionbooth_lab.bench.camera_alternatives FIGURES.json [SEEDS]

gather: whole cells of the noisy latents move in the steps of the shift, as in the product. clean: the estimate of the
clean latents moves in these steps by interpolation, and the noise that it implies stays in its place (no second pass of
the network). noise: the initial noise is carried along the move (nearest cell), and nothing moves later. integral:
likewise, but a cell's noise is the integral over what the move shows in it (Chang et al. 2024, "How I Warped Your
Noise"), which keeps its variance. `_late`: in the paper's window, steps 10 to 19 of 50, instead of toybox's own, its
first two steps of 20.
"""

import multiprocessing
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from itertools import product
from pathlib import Path

import msgspec
import numpy as np
import torch
import torch.nn.functional as F
from motionbooth.bench.measures import BenchResult, Measure, publish
from motionbooth.control.boxes import Grid
from motionbooth.control.homography import boxes_under_way, cell_centers, homographies, inverse, mapped, part_of
from motionbooth.control.plan import StepPlan
from motionbooth.evaluation.report import MotionReport, mean_of
from motionbooth.generation.sampling import SamplingInputs, decode, denoise, plan_shot, with_merged_scenery
from motionbooth.models.base import Base
from motionbooth_protocol.jobs import GenerateSpec
from motionbooth_protocol.motion import CameraPath
from numpy.typing import NDArray
from torch import Tensor

from motionbooth_lab.bench.bundled import bundled_base
from motionbooth_lab.bench.camera import MOVES, cases, with_camera
from motionbooth_lab.bench.control import PROCESSES, appearance_of_kind
from motionbooth_lab.bench.motion import measured

METHODS = ("gather", "clean", "noise", "integral", "gather_late", "clean_late")
NAMES = ("pan", "zoom to 1.4", "roll by 20")
LATE = (0.2, 0.4)
FINER = 8
"""Into so many times as many cells, across and down, noise is divided to be integrated."""


def variant(base: Base, method: str, merging: bool) -> Base:
    """The base with another window of the shift, and with scenery merging or not."""
    control = base.settings.control
    if method.endswith("_late"):
        control = msgspec.structs.replace(control, shift_from=LATE[0], shift_until=LATE[1])
    control = msgspec.structs.replace(control, merge_until=control.merge_until if merging else 0.0)
    return replace(base, settings=msgspec.structs.replace(base.settings, control=control))


def camera_maps(camera: CameraPath) -> Tensor:
    """(F, 3, 3) float64 from frame 0 to each frame, of pans, too."""
    if camera.homographies:
        return homographies(camera)
    return torch.tensor([[[1, 0, -o.dx], [0, 1, -o.dy], [0, 0, 1]] for o in camera.offsets], dtype=torch.float64)


def generate(base: Base, spec: GenerateSpec, method: str) -> NDArray[np.uint8]:
    """A clip (F, H, W, 3), with the camera moved by one of METHODS. For a base that encodes frames one by one."""
    plans, maps = plan_shot(base, spec), camera_maps(spec.shot.camera)
    inputs = SamplingInputs.from_prompts(base, [spec.prompt], [spec.negative_prompt], [spec.seed], plans)
    if method.startswith("gather"):
        latents = denoise(base, inputs)
    elif method.startswith("clean"):
        latents = moving_clean_latents(base, inputs, spec, maps)
    else:
        still = [_unmoved(plan, plans[-1]) for plan in plans]
        carry = carried if method == "noise" else integrated
        noise = carry(inputs.latents, maps, torch.Generator().manual_seed(spec.seed))
        latents = denoise(base, replace(inputs, latents=noise, plans=still))
    return decode(base, latents)[0].numpy()


def _unmoved(plan: StepPlan, last: StepPlan) -> StepPlan:
    """The plan of a step in which nothing moves and the boxes are where they end."""
    boxes = plan.boxes and last.boxes and replace(plan.boxes, boxes=last.boxes.boxes)
    return replace(plan, moves=(), fractions=(), warp=None, boxes=boxes)


def carried(noise: Tensor, maps: Tensor, generator: torch.Generator) -> Tensor:
    """Noise (B, C, F, h, w) with that of frame 0 carried along maps (F, 3, 3), and new noise elsewhere."""
    size = noise.shape[-2], noise.shape[-1]
    places = mapped(cell_centers(size), inverse(maps)) * torch.tensor([size[1], size[0]])
    x, y = places.floor().long().unbind(dim=-1)  # (F, h * w)
    shown = ((places >= 0) & (places < torch.tensor([size[1], size[0]]))).all(dim=-1)
    source = (y * size[1] + x).where(shown, 0)
    first = noise[:, :, :1].flatten(-2).expand(-1, -1, len(maps), -1)
    found = first.gather(-1, source.expand_as(first)).view(noise.shape)
    fresh = torch.randn(noise.shape, generator=generator).to(noise)
    return torch.where(shown.view(len(maps), *size), found, fresh)


def integrated(noise: Tensor, maps: Tensor, generator: torch.Generator) -> Tensor:
    """The same by integration: a cell is the sum of the distinct fine cells that it shows, scaled to variance 1.

    Fine cells are noise whose sum over a cell of frame 0 is that cell's; new ones come in at the edges.
    """
    height, width = noise.shape[-2:]
    finer: Grid = height * FINER, width * FINER
    fine = torch.randn(*noise.shape[:2], *finer, generator=generator).to(noise)
    means = F.avg_pool2d(fine, FINER)
    fine = (fine + _larger(noise[:, :, 0] / FINER - means)).flatten(2)
    size = torch.tensor([finer[1], finer[0]])
    places = mapped(cell_centers(finer), inverse(maps)) * size
    x, y = places.floor().long().unbind(dim=-1)
    shown = ((places >= 0) & (places < size)).all(dim=-1)
    source = (y * finer[1] + x).where(shown, -1).view(len(maps), height, FINER, width, FINER)
    source = source.permute(0, 1, 3, 2, 4).flatten(3).sort(dim=-1).values  # (F, h, w, fine cells)
    distinct = torch.diff(source, dim=-1, prepend=torch.full_like(source[..., :1], -1)) != 0
    outside = (source < 0).sum(dim=-1)
    found = fine[:, :, source.clamp_min(0)] * distinct
    fresh = torch.randn(noise.shape, generator=generator).to(noise)
    return (found.sum(dim=-1) + fresh * outside.sqrt()) / (distinct.sum(dim=-1) + outside).sqrt()


def _larger(cells: Tensor) -> Tensor:
    return cells.repeat_interleave(FINER, dim=-2).repeat_interleave(FINER, dim=-1)


def moved(clean: Tensor, step: Tensor) -> Tensor:
    """Clean latents (B, C, F, h, w) moved by maps (F, 3, 3) with bilinear interpolation; holes repeat the border."""
    size: Grid = clean.shape[-2], clean.shape[-1]
    places = mapped(cell_centers(size), inverse(step)).view(len(step), *size, 2) * 2 - 1
    frames = [
        F.grid_sample(frame, place[None].to(frame), padding_mode="border", align_corners=False)
        for frame, place in zip(clean.unbind(dim=2), places, strict=True)
    ]
    return torch.stack(frames, dim=2)


@torch.no_grad()
def moving_clean_latents(base: Base, inputs: SamplingInputs, spec: GenerateSpec, maps: Tensor) -> Tensor:
    """`denoise` with the estimate of the clean latents moved after the network has run."""
    sampler, steps, latents = base.scheduler, len(inputs.plans), inputs.latents
    window = base.settings.control
    first, last = round(window.shift_from * steps), round(window.shift_until * steps)
    levels = base.noise_levels(steps)
    sampler.set_timesteps(steps, device=base.device)
    before, tracks = part_of(maps, 0.0), [track.boxes for track in spec.shot.subjects]
    done = 0.0
    try:
        for step, (t, plan) in enumerate(zip(sampler.timesteps, inputs.plans, strict=True)):
            boxes = tuple(tuple(boxes_under_way(track, maps, done)) for track in tracks)
            edit = plan.boxes and replace(plan.boxes, boxes=boxes)
            text = inputs.prompt_embeds, inputs.negative_prompt_embeds, inputs.guidance_scale
            predicted = base.predict(latents, t, *text, edit)
            done = min(max((step + 1 - first) / (last - first), 0.0), 1.0)
            after = part_of(maps, done)
            if not torch.equal(after, before):
                clean = base.clean_estimate(predicted, t, latents)
                other = moved(clean, after @ inverse(before))
                latents = latents + (1 - levels[step] ** 2) ** 0.5 * (other - clean)  # the noise stays
                predicted, before = base.prediction_of(other, t, latents), after
            if plan.scenery is not None:
                predicted = with_merged_scenery(base, predicted, t, latents, plan.scenery)
            latents = sampler.step(predicted, t, latents, return_dict=False)[0]
    finally:
        base.control.clear()
    return latents


def run(seed: int, name: str, method: str, merging: bool) -> MotionReport:
    (case,) = cases([seed])
    assert case.combination is not None
    appearance = appearance_of_kind(*case.combination[:2])
    case = with_camera(case, MOVES[name].camera(len(case.boxes)))
    frames = generate(variant(bundled_base(), method, merging), case.spec, method)
    return measured(frames, case, appearance)


def main(file: Path, seeds: Sequence[int]) -> None:
    kinds = [*product(NAMES, METHODS[:4], (True, False)), *product(NAMES, METHODS[4:], (False,))]
    with ProcessPoolExecutor(PROCESSES, multiprocessing.get_context("spawn")) as pool:
        waiting = [[pool.submit(run, seed, *kind) for seed in seeds] for kind in kinds]
        measures = [Measure("seeds", len(seeds), "clips for each figure")]
        for (name, method, merging), futures in zip(kinds, waiting, strict=True):
            reports = [future.result() for future in futures]
            end = f"{name.split()[0]}_{method}_{'merged' if merging else 'unmerged'}"
            error = mean_of([report.mean_flow_error_px for report in reports])
            measures.append(Measure(f"flow_error_{end}", float("nan") if error is None else error, "px a frame"))
            measures.append(
                Measure(f"iou_{end}", mean_of([report.subjects[0].iou for report in reports]) or 0.0, "0..1")
            )
    publish(BenchResult("camera-alternatives", measures), file)


if __name__ == "__main__":
    main(Path(sys.argv[1]), range(int(sys.argv[2]) if len(sys.argv) > 2 else 4))
