"""The sampler against four runs of the authors' pipeline, and the promises made to an animator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import count
from typing import Any

import msgspec
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
from motionbooth.control.boxes import BoxControl
from motionbooth.control.camera import Pick, gather_cells, move_with_memory, random_pick, shifted_cells
from motionbooth.control.plan import StepPlan, free_cells
from motionbooth.control.prompt import prompt_tokens
from motionbooth.control.scenery import merge_scenery, scenery_of
from motionbooth.generation.sampling import (
    SamplingInputs,
    decode,
    denoise,
    generate_clip,
    generate_exactly,
    in_eight_bits,
    plan_shot,
    shared_noise,
    with_merged_scenery,
)
from motionbooth.models.base import Base
from motionbooth_protocol.errors import Canceled, InvalidInput, JobFailed
from motionbooth_protocol.jobs import GenerateSpec
from motionbooth_protocol.motion import Box, CameraPath, Offset, Shot, SubjectTrack
from refused import refused
from rounding import assert_equal_but_for_the_time_embedding
from torch import Tensor

pytestmark = pytest.mark.numeric

PROMPT = "a sks dog running on the grass in the park"
Read = Callable[[str], tuple[dict[str, np.ndarray], Any]]


def recorded_pick(case: dict[str, Any]) -> Pick:
    """The cells that the authors' run drew, line by line, in its order."""
    fills = iter([fill for call in case["shift_calls"] for fill in call["fills"]])

    def pick(free: Tensor, holes: int) -> Tensor:
        return torch.tensor([next(fills) for _ in range(free.shape[0])]).reshape(-1, holes)

    return pick


def recorded_plans(base: Base, case: dict[str, Any]) -> list[StepPlan]:
    """The authors' own moves and boxes, step by step: their rounding, and boxes of the uncovered world."""
    size = np.array([192, 128, 192, 128])
    pixels, plans = case["bbox_pixels_before"], []
    tokens = prompt_tokens(base.tokenizer, PROMPT, ["sks dog"], case["bg_phrase"] or "")
    for step in range(10):
        call = step - case["start_shift_step"]
        moves: tuple[tuple[int, int], ...] = ()
        if 0 <= call < len(case["shift_calls"]):
            recorded = case["shift_calls"][call]
            moves = tuple(zip(recorded["int_shift_x"], recorded["int_shift_y"], strict=True))
            pixels = recorded["bbox_after"] if pixels else None
        boxes = None
        if pixels:
            track = [Box(*(np.array(frame[0]) / size)) for frame in pixels]
            boxes = BoxControl([track], tokens, case["edit_scale"], amplify=step < case["max_amp_steps"])
        plans.append(StepPlan(moves, free_cells([], (16, 24), 4), boxes=boxes))
    return plans


def run(base: Base, arrays: dict[str, np.ndarray], plans: list[StepPlan], pick: Pick) -> Tensor:
    """The final latents, from the noise of the authors' runs."""
    noise, text, negative = torch.from_numpy(arrays["latents0"]), base.embed([PROMPT]), base.embed([""])
    return denoise(base, SamplingInputs(noise, text, negative, 7.5, plans, pick))


@pytest.mark.parametrize("name", ["plain", "box_only", "camera_only", "both"])
def test_run_equals_the_authors_run_when_fed_with_its_moves_and_fills(tiny: Base, golden: Read, name: str) -> None:
    arrays, cases = golden("pipeline")
    case = cases["cases"][name]
    latents = run(tiny, arrays, recorded_plans(tiny, case), recorded_pick(case))
    assert_equal_but_for_the_time_embedding(latents, torch.from_numpy(arrays[f"{name}/final_latents_f64"]))


def a_wrong_sign(plans: list[StepPlan]) -> list[StepPlan]:
    """The last frame moves up instead of down, in one step."""
    step = next(step for step, plan in enumerate(plans) if plan.moves and plan.moves[-1][1])
    *others, (dx, dy) = plans[step].moves
    return [*plans[:step], replace(plans[step], moves=(*others, (dx, -dy))), *plans[step + 1 :]]


def a_longer_window(plans: list[StepPlan]) -> list[StepPlan]:
    """The boxes are amplified for one step more."""
    step = next(step for step, plan in enumerate(plans) if plan.boxes and not plan.boxes.amplify)
    boxes = replace(plans[step].boxes, amplify=True)
    return [*plans[:step], replace(plans[step], boxes=boxes), *plans[step + 1 :]]


def a_lost_cell(pick: Pick) -> Pick:
    """The first empty cell of all is filled from the cell beside the right one."""
    calls = count()

    def other(free: Tensor, holes: int) -> Tensor:
        picked = pick(free, holes)
        if not next(calls):
            picked.view(-1)[0] += 1 if picked.view(-1)[0] == 0 else -1
        return picked

    return other


@pytest.mark.parametrize("fault", [a_wrong_sign, a_longer_window, a_lost_cell])
def test_the_tolerance_of_the_comparison_finds_a_fault(tiny: Base, golden: Read, fault: Callable[[Any], Any]) -> None:
    arrays, cases = golden("pipeline")
    case = cases["cases"]["both"]
    plans, pick = recorded_plans(tiny, case), recorded_pick(case)
    plans, pick = (plans, fault(pick)) if fault is a_lost_cell else (fault(plans), pick)
    latents = run(tiny, arrays, plans, pick)
    with pytest.raises(AssertionError, match="Tensor-likes are not close"):
        assert_equal_but_for_the_time_embedding(latents, torch.from_numpy(arrays["both/final_latents_f64"]))


def test_frames_are_those_that_the_authors_decoded(tiny: Base, golden: Read) -> None:
    arrays, _ = golden("pipeline")
    frames = decode(tiny, torch.from_numpy(arrays["both/final_latents_f64"]))[0]
    # A pixel that lies between two values may be rounded to either.
    assert (frames.int() - torch.from_numpy(arrays["both/frames_u8"]).int()).abs().max() <= 1


def test_text_embeddings_equal_the_authors(tiny: Base, golden: Read) -> None:
    arrays, _ = golden("pipeline")
    embeddings = tiny.embed([PROMPT, ""])
    expected = np.concatenate([arrays["plain/prompt_embeds"], arrays["plain/negative_prompt_embeds"]])
    torch.testing.assert_close(embeddings, torch.from_numpy(expected), rtol=0, atol=1e-6)


def shot(camera: CameraPath | None = None, boxes: list[Box | None] | None = None) -> Shot:
    boxes = boxes or [Box(0.1 + 0.1 * f, 0.2, 0.5 + 0.1 * f, 0.7) for f in range(4)]
    track = SubjectTrack("dog", "dog", boxes, token="sks")
    return Shot("s", 1, 24, 24, 192, 128, camera or CameraPath.straight(0.4, -0.2, 4), [track])


def spec(**changes: Any) -> GenerateSpec:
    return msgspec.structs.replace(GenerateSpec(shot(), PROMPT, model="tiny", num_inference_steps=2), **changes)


def test_same_seed_twice_gives_the_same_bits(tiny_single: Base) -> None:
    assert torch.equal(generate_clip(tiny_single, spec()), generate_clip(tiny_single, spec()))
    assert not torch.equal(generate_clip(tiny_single, spec()), generate_clip(tiny_single, spec(seed=1)))


def test_each_control_changes_the_clip_and_none_of_them_stays_behind(tiny_single: Base) -> None:
    plain = generate_clip(tiny_single, spec(box_control=False, camera_control=False))
    with_box = generate_clip(tiny_single, spec(camera_control=False))
    with_camera = generate_clip(tiny_single, spec(box_control=False))
    assert not torch.equal(plain, with_box)
    assert not torch.equal(plain, with_camera)
    assert torch.equal(plain, generate_clip(tiny_single, spec(box_control=False, camera_control=False)))


def test_a_still_camera_is_no_camera_control(tiny_single: Base) -> None:
    still = shot(CameraPath.still(4))
    with_control = generate_clip(tiny_single, spec(shot=still))
    assert torch.equal(with_control, generate_clip(tiny_single, spec(shot=still, camera_control=False)))


@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_guidance_of_one_or_less_leaves_the_unconditional_pass_out(tiny_single: Base, scale: float) -> None:
    clip = generate_clip(tiny_single, spec(guidance_scale=scale, negative_prompt="snow"))
    assert torch.equal(clip, generate_clip(tiny_single, spec(guidance_scale=scale)))


def test_a_negative_prompt_changes_the_clip(tiny_single: Base) -> None:
    assert not torch.equal(
        generate_clip(tiny_single, spec()), generate_clip(tiny_single, spec(negative_prompt="the grass"))
    )


def test_a_subject_out_of_frame_throughout_and_a_box_over_everything_are_generated(tiny_single: Base) -> None:
    generate_clip(tiny_single, spec(shot=shot(boxes=[None] * 4)))
    generate_clip(tiny_single, spec(shot=shot(boxes=[Box(-1, -1, 2, 2)] * 4)))


def test_every_step_is_reported_and_a_cancellation_ends_the_run(tiny_single: Base) -> None:
    seen: list[tuple[int, int]] = []
    generate_clip(tiny_single, spec(), lambda done, steps: seen.append((done, steps)))
    assert seen == [(1, 2), (2, 2)]

    def cancel(done: int, steps: int) -> None:
        raise Canceled("enough")

    with pytest.raises(Canceled):
        generate_clip(tiny_single, spec(), cancel)
    assert torch.equal(generate_clip(tiny_single, spec()), generate_clip(tiny_single, spec()))


def test_a_shot_for_another_number_of_frames_is_refused(tiny_single: Base) -> None:
    other = Shot("s", 1, 24, 24, 192, 128, CameraPath.still(5))
    with refused(InvalidInput, found=5, model="Tiny", expected=4):
        generate_clip(tiny_single, spec(shot=other))


def test_values_that_are_not_numbers_are_an_error_and_no_black_clip(tiny_single: Base) -> None:
    with torch.no_grad():
        next(tiny_single.network.parameters()).fill_(torch.nan)
    with refused(JobFailed, model=tiny_single.settings.title):
        generate_clip(tiny_single, spec())


def test_a_prompt_without_the_subject_is_refused(tiny_single: Base) -> None:
    with refused(InvalidInput, phrase="sks dog"):
        generate_clip(tiny_single, spec(prompt="a dog in the park"))


def test_shared_noise_has_variance_one_and_the_asked_correlation() -> None:
    noise = shared_noise((20, 4, 4, 16, 24), 0.9, torch.Generator().manual_seed(0))
    assert noise.var() == pytest.approx(1, abs=0.03)
    assert (noise[:, :, 0] * noise[:, :, 3]).mean() == pytest.approx(0.9, abs=0.03)


def test_takes_in_one_batch_are_those_of_their_seeds_alone(tiny: Base) -> None:
    takes = in_eight_bits(generate_exactly(tiny, spec(), [3, 4, 5]))
    for seed, take in zip((3, 4, 5), takes, strict=True):
        alone = generate_clip(tiny, spec(seed=seed))
        assert (take.int() - alone.int()).abs().max() <= 1  # float64: a value that lies on the edge between two
    assert not torch.equal(takes[0], takes[1])


@pytest.mark.parametrize(
    "sampler", [DDPMScheduler, EulerDiscreteScheduler, DPMSolverMultistepScheduler, UniPCMultistepScheduler]
)
def test_other_samplers_generate_the_same_clip_from_the_same_seed(tiny_single: Base, sampler: Any) -> None:
    tiny_single.scheduler = sampler.from_config(tiny_single.scheduler.config)
    torch.manual_seed(0)
    first = generate_clip(tiny_single, spec())
    torch.manual_seed(1)
    assert torch.equal(generate_clip(tiny_single, spec()), first)
    assert not torch.equal(generate_clip(tiny_single, spec(seed=1)), first)


def track(name: str, token: str, boxes: list[Box | None]) -> SubjectTrack:
    return SubjectTrack(name, "dog", boxes, token=token)


def test_subjects_that_cross_enter_and_leave_are_each_held_by_their_own_words(tiny_single: Base) -> None:
    crossing = [Box(0.1 * f, 0.2, 0.1 * f + 0.4, 0.7) for f in range(4)]
    against = [Box(0.5 - 0.1 * f, 0.2, 0.9 - 0.1 * f, 0.7) for f in range(4)]
    both = [track("one", "sks", [*crossing[:3], None]), track("other", "olis", [None, *against[1:]])]
    two = Shot("s", 1, 24, 24, 192, 128, CameraPath.straight(0.4, -0.2, 4), both)
    prompt = "a sks dog and a olis dog in the park"
    plans = plan_shot(tiny_single, spec(shot=two, prompt=prompt, background_phrase="in the park"))
    boxes = plans[-1].boxes
    assert boxes is not None
    assert len(set(boxes.tokens.subjects[0]) & set(boxes.tokens.subjects[1])) == 0
    assert len(boxes.tokens.background) >= 3
    assert [[box is None for box in boxes.boxes[s]] for s in (0, 1)] == [
        [False, False, False, True],
        [True, False, False, False],
    ]
    clip = generate_clip(tiny_single, spec(shot=two, prompt=prompt, background_phrase="in the park"))
    swapped = msgspec.structs.replace(two, subjects=[track("one", "sks", against), track("other", "olis", crossing)])
    assert not torch.equal(clip, generate_clip(tiny_single, spec(shot=swapped, prompt=prompt)))


def test_a_camera_path_of_any_shape_arrives_where_it_should(tiny_single: Base) -> None:
    there_and_back = CameraPath([Offset(0, 0), Offset(0.5, -0.25), Offset(-0.25, 0.5), Offset(0, 0)])
    plans = plan_shot(tiny_single, spec(shot=shot(there_and_back), num_inference_steps=10))
    moved = np.sum([plan.moves for plan in plans if plan.moves], axis=0)
    assert moved.tolist() == [[0, 0], [12, -4], [-6, 8], [0, 0]]  # cells of a frame of 24 x 16
    generate_clip(tiny_single, spec(shot=shot(there_and_back)))


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_the_output_with_merged_scenery_implies_the_merged_clip(tiny_single: Base, kind: str) -> None:
    tiny_single.scheduler.register_to_config(prediction_type=kind)
    dice = torch.Generator().manual_seed(4)
    shape = (1, 4, tiny_single.settings.frames, *tiny_single.latent_size)
    latents, output = torch.randn(shape, generator=dice), torch.randn(shape, generator=dice)
    moving = CameraPath([Offset(0.02 * f, 0) for f in range(shape[2])])
    box = Box(0.3, 0.3, 0.6, 0.6)
    scenery = scenery_of(moving, [[box] * shape[2]], tiny_single.latent_size)
    tiny_single.scheduler.set_timesteps(20)
    t = tiny_single.scheduler.timesteps[8]
    with torch.no_grad():
        before = tiny_single.scheduler.step(output, t, latents).pred_original_sample
        changed = with_merged_scenery(tiny_single, output, t, latents, scenery)
        after = tiny_single.scheduler.step(changed, t, latents).pred_original_sample
        scale = tiny_single.vae.config.scaling_factor
        clip = tiny_single.vae.decode(before[0].transpose(0, 1) / scale).sample
        merged = tiny_single.vae.encode(merge_scenery(clip, scenery)).latent_dist.mode().transpose(0, 1) * scale
    inside = (~scenery.cells).expand_as(before[0])
    assert float((after - before).abs().max()) > 0.1, "something was merged"
    torch.testing.assert_close(after[0][inside], before[0][inside], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(after[0][~inside], merged[~inside], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_eulers_clean_estimate_is_its_own(tiny_single: Base, kind: str) -> None:
    """Its latents are not of variance 1, and its times are fractions."""
    scheduler = EulerDiscreteScheduler.from_config(tiny_single.scheduler.config, prediction_type=kind)
    tiny_single.scheduler = scheduler
    scheduler.set_timesteps(7)
    dice, t = torch.Generator().manual_seed(6), scheduler.timesteps[0]
    latents, output = (torch.randn(1, *tiny_single.latent_shape, generator=dice) for _ in range(2))
    latents = latents * scheduler.init_noise_sigma
    estimate = tiny_single.clean_estimate(output, t, latents)
    torch.testing.assert_close(tiny_single.prediction_of(estimate, t, latents), output, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(scheduler.step(output, t, latents).pred_original_sample, estimate, rtol=1e-4, atol=1e-4)


def test_a_shift_under_unipc_arrives_where_it_does_under_ddim(tiny: Base) -> None:
    """Without a move of what the sampler remembers, its next step would lead back."""
    still = [StepPlan()] * 20
    moves = tuple((6 * f, 0) for f in range(4))
    moved = [*still[:8], StepPlan(moves=moves, free=free_cells([], (16, 24), 4)), *still[9:]]
    clips = {}
    for kind in (DDIMScheduler, UniPCMultistepScheduler):
        tiny.scheduler = kind.from_config(tiny.scheduler.config)
        for plans in (still, moved):
            inputs = SamplingInputs.from_prompts(tiny, [PROMPT], [""], [0], plans, guidance_scale=1)
            clips[kind, plans is moved] = denoise(tiny, inputs)[0, :, 3].flatten()
    cosine = torch.nn.functional.cosine_similarity
    of_samplers = cosine(clips[UniPCMultistepScheduler, False], clips[DDIMScheduler, False], dim=0)
    assert cosine(clips[UniPCMultistepScheduler, True], clips[DDIMScheduler, True], dim=0) > of_samplers - 0.05
    assert cosine(clips[UniPCMultistepScheduler, True], clips[UniPCMultistepScheduler, False], dim=0) < 0.5


@pytest.mark.parametrize("kind", [DPMSolverMultistepScheduler, UniPCMultistepScheduler])
def test_all_that_a_sampler_remembers_moves_with_the_latents(kind: Any) -> None:
    sampler, dice = kind(), torch.Generator().manual_seed(0)
    sampler.set_timesteps(6)
    latents = torch.randn(1, 4, 2, 3, 5, generator=dice)
    for t in sampler.timesteps[:3]:
        latents = sampler.step(torch.randn(latents.shape, generator=dice), t, latents).prev_sample
    before = [*sampler.model_outputs, *([sampler.last_sample] if hasattr(sampler, "last_sample") else [])]
    source = shifted_cells(1, [(1, 0), (0, 2)], torch.ones(2, 3, 5, dtype=torch.bool), random_pick(dice))
    moved = move_with_memory(sampler, latents, lambda value: gather_cells(value, source))
    assert torch.equal(moved[:, :, 0, :, :4], latents[:, :, 0, :, 1:])
    assert torch.equal(moved[:, :, 1, :1], latents[:, :, 1, 2:])
    after = [*sampler.model_outputs, *([sampler.last_sample] if hasattr(sampler, "last_sample") else [])]
    assert len(before) >= 2
    assert all(torch.equal(gather_cells(old, source), new) for old, new in zip(before, after, strict=True))


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_merged_scenery_is_finite_in_half_precision_to_the_last_step(tiny_single: Base, kind: str) -> None:
    tiny_single.scheduler.register_to_config(prediction_type=kind)
    tiny_single.scheduler.alphas_cumprod[0] = 0.9999  # 1 in half precision
    tiny_single.vae.to(torch.bfloat16)
    tiny_single.dtype = torch.bfloat16
    shape = (1, 4, tiny_single.settings.frames, *tiny_single.latent_size)
    latents = torch.randn(shape, generator=torch.Generator().manual_seed(5)).bfloat16()
    moving = CameraPath([Offset(0.02 * f, 0) for f in range(shape[2])])
    with torch.no_grad():
        changed = with_merged_scenery(
            tiny_single, latents, torch.tensor(0), latents, scenery_of(moving, [], tiny_single.latent_size)
        )
    assert changed.dtype == torch.bfloat16
    assert changed.isfinite().all()


@pytest.mark.parametrize("suppress", ["content", "subject"])
def test_a_split_prompt_on_a_unet_changes_the_conditional_pass_alone(tiny: Base, suppress: Any) -> None:
    control = msgspec.structs.replace(tiny.settings.control, suppress=suppress)
    tiny.settings = msgspec.structs.replace(tiny.settings, control=control)
    plain = generate_clip(tiny, spec())
    control = msgspec.structs.replace(control, split_prompt=True)
    tiny.settings = msgspec.structs.replace(tiny.settings, control=control)
    assert not torch.equal(plain, generate_clip(tiny, spec()))
    plans = plan_shot(tiny, spec())
    inputs = SamplingInputs.from_prompts(tiny, [PROMPT], [""], [0], plans, outside_prompts=["in the park"])
    text, negative = inputs.prompt_embeds, inputs.negative_prompt_embeds
    assert text.shape[1] == 2 * negative.shape[1]
    tiny.scheduler.set_timesteps(2)
    t = tiny.scheduler.timesteps[0]
    with torch.no_grad():
        guided = tiny.predict(inputs.latents, t, text, negative, 3.0, plans[0].boxes)
        conditional = tiny.predict(inputs.latents, t, text, negative, 1.0, plans[0].boxes)
        unconditional = tiny.predict(inputs.latents, t, negative, negative, 1.0, None)
    # The softmax with every key twice is the same but for rounding, here in float64.
    torch.testing.assert_close(guided, unconditional + 3.0 * (conditional - unconditional), rtol=1e-6, atol=1e-6)
