"""The guide: SDEdit with a start level for each region, on both families and every sampler."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    UniPCMultistepScheduler,
)
from motionbooth.control.guide import Regions
from motionbooth.generation.guide import GuideClip, encoded, read_guide, with_guide
from motionbooth.generation.sampling import SamplingInputs, denoise, generate_clip, initial_noise, plan_shot
from motionbooth.generation.video import write_clip
from motionbooth.models.base import Base
from motionbooth.models.registry import load_base
from motionbooth.models.sources import Source
from motionbooth_protocol.errors import InvalidInput
from motionbooth_protocol.jobs import GenerateSpec, Guide, spec_digest
from motionbooth_protocol.motion import Box, CameraPath, Shot, SubjectTrack
from motionbooth_protocol.text import Text
from msgspec.structs import replace
from PIL import Image
from refused import refused

pytestmark = pytest.mark.numeric
SAMPLERS = {
    "ddim": DDIMScheduler,
    "ddpm": DDPMScheduler,
    "euler": EulerDiscreteScheduler,
    "dpm": DPMSolverMultistepScheduler,
    "unipc": UniPCMultistepScheduler,
}


@pytest.fixture(params=[*SAMPLERS, "wan-euler", "wan-unipc"])
def base(request: pytest.FixtureRequest) -> Base:
    """Every sampler of the UNets, and Wan with its two."""
    name = request.param
    if name.startswith("wan"):
        return load_base(request.getfixturevalue("wan_source" if name == "wan-euler" else "wan22_source"), device="cpu")
    base: Base = request.getfixturevalue("tiny_single")
    base.scheduler = SAMPLERS[name].from_config(base.scheduler.config)
    return base


@pytest.fixture(params=["unet", "wan"])
def family(request: pytest.FixtureRequest) -> Base:
    base: Base = request.getfixturevalue("tiny_single" if request.param == "unet" else "wan")
    return base


def spec_for(base: Base, camera: CameraPath | None = None, **changes: Any) -> GenerateSpec:
    """A subject in the left half, on cells' edges, of a still camera."""
    form = base.settings
    track = SubjectTrack("dog", "dog", [Box(0, 0, 0.5, 1)] * form.frames, token="sks")
    camera = camera or CameraPath.still(form.frames)
    shot = Shot("s", 1, form.frames, 24, form.width, form.height, camera, [track])
    return replace(GenerateSpec(shot, "a sks dog running on the grass", num_inference_steps=4), **changes)


def clip_for(base: Base, folder: Path, name: str = "guide.mp4", fps: float = 24) -> Path:
    """Bright bars that move, at the model's own size."""
    form = base.settings
    x = np.arange(form.width)[None, None] + 4 * np.arange(form.frames)[:, None, None]
    bars = np.broadcast_to(x // 16 % 2 * 200 + 20, (form.frames, form.height, form.width))
    write_clip(folder / name, np.stack([bars, bars // 2, 255 - bars], axis=-1).astype(np.uint8), fps)
    return folder / name


def guide_of(base: Base, spec: GenerateSpec) -> GuideClip:
    frames = read_guide(spec, base.settings, Path)
    assert frames is not None
    return encoded(base, frames)


def run(base: Base, spec: GenerateSpec, guide: GuideClip, subject: float, background: float) -> list[torch.Tensor]:
    """The clean latents that each step implies, and the final ones."""
    plans = with_guide(plan_shot(base, spec), guide, base.noise_levels(4), subject, background)
    estimates: list[torch.Tensor] = []
    inputs = SamplingInputs.from_prompts(base, [spec.prompt], [""], [3], plans)
    final = denoise(base, inputs, on_estimate=estimates.append)
    return [*estimates, final]


def test_a_strength_of_nothing_changes_no_bit(family: Base, tmp_path: Path) -> None:
    """Not even a guide that cannot be read matters then."""
    (tmp_path / "broken").write_bytes(b"no clip")
    spec = spec_for(family, CameraPath.straight(0.3, 0, family.settings.frames))
    guided = replace(spec, guide=Guide(str(tmp_path / "broken")))
    assert torch.equal(generate_clip(family, guided), generate_clip(family, spec))


def test_full_strength_gives_the_guide(base: Base, tmp_path: Path) -> None:
    spec = replace(spec_for(base), guide=Guide(str(clip_for(base, tmp_path)), 1, 1))
    guide = guide_of(base, spec)
    final = run(base, spec, guide, 1, 1)[-1]
    # DDIM leaves the noise of its schedule's first level, sqrt(1 - 0.99915) = 0.03, of which no value exceeds 6 times.
    torch.testing.assert_close(final[0].float(), guide.latents.float(), rtol=0, atol=0.18)
    assert (run(base, spec, guide, 0, 0)[-1][0].float() - guide.latents).abs().max() > 0.5


def test_until_its_start_level_the_latents_are_the_guide_with_the_same_noise(family: Base, tmp_path: Path) -> None:
    """SDEdit: the first free step sees signal * guide + noise level * noise."""
    spec = replace(spec_for(family), guide=Guide(str(clip_for(family, tmp_path)), 0.6, 0.6))
    guide = guide_of(family, spec)
    family.scheduler = _deterministic(family)
    levels = family.noise_levels(4)
    free = next(step for step, level in enumerate(levels) if level <= 0.4)
    seen: list[torch.Tensor] = []
    plans = with_guide(plan_shot(family, spec), guide, levels, 0.6, 0.6)
    inputs = SamplingInputs.from_prompts(family, [spec.prompt], [""], [3], plans)
    predict = family.predict

    def watched(latents: torch.Tensor, *rest: Any) -> torch.Tensor:
        seen.append(latents)
        return predict(latents, *rest)

    family.predict = watched  # type: ignore[method-assign]
    denoise(family, inputs)
    noise = initial_noise(family, torch.Generator().manual_seed(3), moving=False)
    is_flow = family.temporal > 1
    signal = 1 - levels[free] if is_flow else (1 - levels[free] ** 2) ** 0.5
    start = levels[0]
    first = noise if is_flow else (noise - (1 - start**2) ** 0.5 * guide.latents) / start
    torch.testing.assert_close(seen[free].float(), signal * guide.latents + levels[free] * first, rtol=1e-3, atol=2e-3)


def _deterministic(base: Base) -> Any:
    return base.scheduler if base.temporal > 1 else DDIMScheduler.from_config(base.scheduler.config)


@pytest.mark.parametrize("strengths", [(0.8, 0.0), (0.0, 0.8)])
def test_only_the_region_with_a_strength_is_guided(
    family: Base, tmp_path: Path, strengths: tuple[float, float]
) -> None:
    spec = replace(spec_for(family), guide=Guide(str(clip_for(family, tmp_path)), *strengths))
    guide = guide_of(family, spec)
    first = run(family, spec, guide, *strengths)[0][0]
    half = family.latent_size[1] // 2
    same = torch.isclose(first.float(), guide.latents.float(), atol=1e-2)
    inside, outside = same[..., :half], same[..., half:]
    if strengths[1]:
        inside, outside = outside, inside
    assert inside.float().mean() > 0.99 > 0.5 > outside.float().mean()


def test_masks_replace_the_boxes(family: Base, tmp_path: Path) -> None:
    form = family.settings
    masks = np.zeros((form.frames, form.height, form.width, 3), np.uint8)
    masks[:, :, form.width // 2 :] = 255
    write_clip(tmp_path / "masks.mp4", masks, 24)
    spec = spec_for(family, guide=Guide(str(clip_for(family, tmp_path)), 0.5, 0, str(tmp_path / "masks.mp4")))
    guide = guide_of(family, spec)
    half = family.latent_size[1] // 2
    # An area mean of whole cells; the codec may be off by some of 255 values.
    assert guide.regions.subjects[..., :half].max() < 0.05
    assert guide.regions.subjects[..., half:].min() > 0.95


def test_while_the_camera_has_still_to_move_the_guide_waits_beside_its_place(tiny_single: Base) -> None:
    """And is in place once all moves are done; what it does not show yet is free."""
    spec = spec_for(tiny_single, CameraPath.straight(0.5, -0.5, 4))
    plans = plan_shot(tiny_single, spec)
    channels, frames, height, width = tiny_single.latent_shape
    latents = torch.rand(channels, frames, height, width)
    guided = with_guide(plans, GuideClip(latents, Regions.of(torch.zeros(frames, height, width))), [0.9] * 4, 1, 1)
    moved = np.array([plan.moves or [(0, 0)] * frames for plan in plans])
    assert moved.any(), "the camera moves"
    for step, plan in enumerate(guided):
        assert plan.guide is not None
        for frame, (dx, dy) in enumerate(moved[step + 1 :].sum(axis=0)):
            rolled = latents[:, frame].roll((dy, dx), (-2, -1))
            shown = torch.ones(height, width)
            shown[:, : max(dx, 0)] = 0
            shown[height + min(dy, 0) :] = 0
            assert torch.equal(plan.guide.share[frame], shown)
            assert torch.equal(plan.guide.latents[:, frame] * shown, rolled * shown)
    last = guided[-1].guide
    assert last is not None
    assert torch.equal(last.latents, latents)


def test_with_a_zoom_the_guide_waits_where_its_content_comes_from(tiny_single: Base) -> None:
    zoom = ((3.0, 0.0, -1.0), (0.0, 3.0, -1.0), (0.0, 0.0, 1.0))
    identity = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
    spec = spec_for(tiny_single, CameraPath(CameraPath.still(4).offsets, [identity, *[zoom] * 3]))
    channels, frames, height, width = tiny_single.latent_shape
    latents = torch.rand(channels, frames, height, width)
    guide = GuideClip(latents, Regions.of(torch.zeros(frames, height, width)))
    first, last = (with_guide(plan_shot(tiny_single, spec), guide, [0.9] * 4, 1, 1)[step].guide for step in (0, -1))
    assert first is not None
    assert last is not None
    assert torch.equal(last.latents, latents)
    assert bool((last.share == 1).all())
    assert torch.equal(first.latents[:, 0], latents[:, 0])
    # Grown to three times its size later on: every third cell, and nothing of what will be outside the frame.
    rows, columns = (
        torch.tensor([cell for cell in range(side) if 0 <= 3 * cell + 1 - side < side]) for side in (height, width)
    )
    shown = first.latents[:, 1][:, rows][:, :, columns]
    assert torch.equal(shown, latents[:, 1][:, 3 * rows + 1 - height][:, :, 3 * columns + 1 - width])
    assert int(first.share[1].sum()) == len(rows) * len(columns)


def test_a_guided_clip_with_a_moving_camera_is_generated_and_repeats(family: Base, tmp_path: Path) -> None:
    spec = spec_for(family, CameraPath.straight(0.4, 0.2, family.settings.frames))
    guided = replace(spec, guide=Guide(str(clip_for(family, tmp_path)), 0.5, 0.3))
    clip = generate_clip(family, guided)
    assert torch.equal(clip, generate_clip(family, guided))
    assert not torch.equal(clip, generate_clip(family, spec))


def other(folder: Path, frames: int, height: int, width: int, fps: float) -> Path:
    write_clip(folder / "other.mp4", np.zeros((frames, height, width, 3), np.uint8), fps)
    return folder / "other.mp4"


@pytest.mark.parametrize(
    ("frames", "size", "fps", "values"),
    [
        (3, (128, 192), 24, {"found": 3, "expected": 4}),
        (9, (128, 192), 24, {"found": Text("more than {most}", {"most": 4}), "expected": 4}),
        (4, (128, 192), 12, {"fps": 24.0}),
        (4, (128, 128), 24, {"width": 128, "height": 128}),
    ],
)
def test_a_guide_of_another_length_rate_or_shape_is_refused(
    tiny_single: Base, tmp_path: Path, frames: int, size: tuple[int, int], fps: float, values: dict[str, Any]
) -> None:
    clip = other(tmp_path, frames, *size, fps)
    with refused(InvalidInput, **values):
        generate_clip(tiny_single, spec_for(tiny_single, guide=Guide(str(clip), 0.5)))


def test_masks_of_another_length_are_refused(tiny_single: Base, tmp_path: Path) -> None:
    clip, masks = clip_for(tiny_single, tmp_path), other(tmp_path, 3, 128, 192, 24)
    with refused(InvalidInput, clip=Text("the guide's masks"), found=3):
        generate_clip(tiny_single, spec_for(tiny_single, guide=Guide(str(clip), 0.5, 0, str(masks))))


def test_another_size_and_the_frames_of_the_timeline_are_fitted(tiny_single: Base, tmp_path: Path) -> None:
    shot = replace(spec_for(tiny_single).shot, frame_end=12)
    spec = spec_for(tiny_single, shot=shot, guide=Guide(str(other(tmp_path, 12, 64, 96, 24)), 0.5))
    guide = guide_of(tiny_single, spec)
    assert guide.latents.shape == tiny_single.latent_shape


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"", "clip"),
        (b"no clip", "clip"),
        (b"\0\0\0\x20ftypisom" + b"\0" * 64, "clip"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\x08acTLbroken", "clip"),
        (b"#EXTM3U\n/etc/passwd\n", "clip"),
        (b"\x89PNG\r\n\x1a\nbroken", "picture"),
        (b"\xff\xd8\xffbroken", "picture"),
    ],
    ids=["empty", "text", "mp4", "animated png", "playlist", "png", "jpeg"],
)
def test_a_file_that_is_no_clip_and_no_picture_is_refused(
    tiny_single: Base, tmp_path: Path, content: bytes, kind: str
) -> None:
    """A playlist, which FFmpeg would follow to other files, is not opened."""
    (tmp_path / "file").write_bytes(content)
    with refused(InvalidInput, **{kind: Text("the guide")}):
        generate_clip(tiny_single, spec_for(tiny_single, guide=Guide(str(tmp_path / "file"), 0.5)))


def test_the_digest_of_a_job_depends_on_its_guide(tiny_source: Source) -> None:
    shot = Shot("s", 1, 4, 24, 64, 64, CameraPath.still(4))
    plain = GenerateSpec(shot, "a dog")
    specs = [plain, *(replace(plain, guide=guide) for guide in (Guide("a" * 64, 0.5), Guide("b" * 64, 0.5)))]
    assert len({spec_digest(spec) for spec in specs}) == 3


def test_an_animated_png_is_read_to_the_bit(tiny_single: Base, tmp_path: Path) -> None:
    """As the extension renders it."""
    shades = [Image.new("RGB", (192, 128), (40 * n, 255 - 40 * n, 17)) for n in range(4)]
    shades[0].save(tmp_path / "a.png", save_all=True, append_images=shades[1:], duration=1000 / 24)
    frames = read_guide(spec_for(tiny_single, guide=Guide(str(tmp_path / "a.png"), 0.5)), tiny_single.settings, Path)
    assert frames is not None
    assert np.array_equal(frames.pixels, np.stack([np.asarray(shade) for shade in shades]))


def test_of_a_long_guide_only_the_models_frames_are_kept(tiny_single: Base, tmp_path: Path) -> None:
    shot = replace(spec_for(tiny_single).shot, frame_end=200)
    guide = Guide(str(other(tmp_path, 200, 64, 96, 24)), 0.5)
    tracemalloc.start()
    try:
        frames = read_guide(spec_for(tiny_single, shot=shot, guide=guide), tiny_single.settings, Path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert frames is not None
    assert peak < 20 * frames.pixels[0].nbytes
