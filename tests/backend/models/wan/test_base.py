"""Wan's base against diffusers' own pipeline, on tiny random checkpoints in the published layout."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, WanPipeline
from diffusers.models import attention_dispatch
from motionbooth.control.plan import StepPlan
from motionbooth.generation.previews import Previewer
from motionbooth.generation.sampling import (
    SamplingInputs,
    denoise,
    generate_clip,
    generate_exactly,
    in_eight_bits,
    plan_shot,
    with_merged_scenery,
)
from motionbooth.models.base import Base
from motionbooth.models.registry import load_base
from motionbooth.models.sources import Source
from motionbooth_protocol.errors import InvalidInput
from motionbooth_protocol.jobs import GenerateSpec
from motionbooth_protocol.motion import Box, CameraPath, Shot, SubjectTrack
from refused import refused
from tiny_wan import SAMPLERS
from torch import Tensor

PROMPT = "a sks dog running on the grass"


def spec(camera: CameraPath | None = None, **changes: Any) -> GenerateSpec:
    boxes: list[Box | None] = [Box(0.1 + 0.05 * f, 0.2, 0.5 + 0.05 * f, 0.7) for f in range(9)]
    track = SubjectTrack("dog", "dog", boxes, token="sks")
    shot = Shot("s", 1, 24, 24, 64, 48, camera or CameraPath.straight(0.5, 0, 9), [track])
    return msgspec.structs.replace(GenerateSpec(shot, PROMPT, model="tinywan", num_inference_steps=2), **changes)


@pytest.mark.numeric
@pytest.mark.parametrize("name", ["wan_source", "wan22_source"])
def test_a_plain_clip_is_that_of_diffusers_own_pipeline_to_the_last_bit(
    name: str, request: pytest.FixtureRequest
) -> None:
    source: Source = request.getfixturevalue(name)
    base = load_base(source, device="cpu")
    plain = spec(box_control=False, camera_control=False, seed=5, num_inference_steps=5, negative_prompt="snow")
    pipeline = WanPipeline.from_pretrained(source.folder)
    pipeline.set_progress_bar_config(disable=True)
    arguments = {
        "negative_prompt": "snow",
        "width": 64,
        "height": 48,
        "num_frames": 9,
        "num_inference_steps": 5,
        "guidance_scale": base.settings.guidance_scale,
        "max_sequence_length": base.settings.max_sequence_length,
    }
    frames = pipeline(PROMPT, generator=torch.Generator().manual_seed(5), output_type="np", **arguments).frames[0]
    expected = pipeline(PROMPT, generator=torch.Generator().manual_seed(5), output_type="latent", **arguments).frames
    inputs = SamplingInputs.from_prompts(base, [PROMPT], ["snow"], [5], plan_shot(base, plain))
    assert torch.equal(denoise(base, inputs), expected)
    assert np.array_equal(generate_clip(base, plain).numpy(), (frames * 255).round().astype(np.uint8))


def test_each_control_changes_the_clip_and_none_of_them_stays_behind(wan: Base) -> None:
    plain = generate_clip(wan, spec(box_control=False, camera_control=False))
    assert not torch.equal(plain, generate_clip(wan, spec(camera_control=False)))
    assert not torch.equal(plain, generate_clip(wan, spec(box_control=False)))
    assert torch.equal(plain, generate_clip(wan, spec(box_control=False, camera_control=False)))


def test_boxes_edit_the_conditional_pass_only(wan: Base) -> None:
    """With the prompt and the negative prompt swapped for equal ones, only the edit can make a difference."""
    boxes = plan_shot(wan, spec())[0].boxes
    text, dice = wan.embed([PROMPT]), torch.Generator().manual_seed(0)
    latents, time = torch.randn(1, *wan.latent_shape, generator=dice), torch.tensor(500.0)
    with torch.no_grad():
        plain = wan.predict(latents, time, text, text, 1.0, None)
        edited = wan.predict(latents, time, text, text, 1.0, boxes)
        guided = wan.predict(latents, time, text, text, 3.0, boxes)
    assert not torch.equal(plain, edited)
    assert torch.equal(guided, plain + 3.0 * (edited - plain))


def attended(base: Base, latents: Tensor) -> Tensor:
    """The share of each token's attention to the subject's words in the first layer: (F, h, w)."""
    boxes = plan_shot(base, spec())[0].boxes
    assert boxes is not None
    _, _, frames, height, width = latents.shape
    shares = []
    attn = base.network.blocks[0].attn2

    def hook(_: Any, given: tuple[Tensor, ...]) -> None:
        hidden, text = given[0], given[1]
        bias = base.control.clip_bias(hidden)
        query, key = (
            value.unflatten(2, (attn.heads, -1)).transpose(1, 2)
            for value in (attn.norm_q(attn.to_q(hidden)), attn.norm_k(attn.to_k(text)))
        )
        probabilities = (query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5 + bias).softmax(-1).mean(1)
        shares.append(probabilities[0, :, list(boxes.tokens.subjects[0])].sum(-1))

    handle = attn.register_forward_pre_hook(hook)
    with torch.no_grad():
        base.predict(latents, torch.tensor(500.0), base.embed([PROMPT]), latents, 1.0, boxes)
    handle.remove()
    return shares[0].view(frames, height // 2, width // 2)


def test_outside_its_box_a_subject_has_no_attention_in_any_latent_frame(wan: Base) -> None:
    share = attended(wan, torch.randn(1, *wan.latent_shape, generator=torch.Generator().manual_seed(1)))
    boxes = plan_shot(wan, spec())[0].boxes
    assert boxes is not None
    for frame, box in enumerate(boxes.boxes[0]):
        assert box is not None
        columns = slice(max(round(box.x1 * 4), 0), round(box.x2 * 4))  # of 4 x 3 tokens
        rows = slice(round(box.y1 * 3), round(box.y2 * 3))
        inside = torch.zeros(3, 4, dtype=torch.bool)
        inside[rows, columns] = True
        assert bool((share[frame][~inside] == 0).all())
        # Amplified by more than the logarithm of the padding's number, two words of 24 tokens have most of it.
        assert bool((share[frame][inside] > 0.5).all())


def test_boxes_act_whatever_kernel_self_attention_uses(wan: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = generate_clip(wan, spec())
    kernel = attention_dispatch.AttentionBackendName("_native_flash")  # takes no mask, and refuses one
    monkeypatch.setattr(attention_dispatch._AttentionBackendRegistry, "_active_backend", kernel)
    query = torch.randn(1, 4, 1, 8)
    with pytest.raises(ValueError, match="attn_mask"):
        attention_dispatch.dispatch_attention_fn(query, query, query, attn_mask=torch.zeros(1, 1, 4, 4))
    found = generate_clip(wan, spec())
    for block in wan.network.blocks:
        assert block.attn2.processor._attention_backend == "native"
        block.attn2.processor._attention_backend = kernel  # as set_attention_backend does
    assert torch.equal(found, generate_clip(wan, spec()))
    assert (found.int() - expected.int()).abs().max() <= 1  # another kernel rounds differently


def test_takes_previews_and_progress_know_nothing_of_the_family(wan: Base) -> None:
    seen: list[tuple[int, int]] = []
    pictures: list[tuple[bytes, int, int]] = []
    previewer = Previewer(wan, lambda *shown: pictures.append(shown))
    takes = in_eight_bits(
        generate_exactly(wan, spec(), [3, 4], on_estimate=previewer, on_frame=lambda *done: seen.append(done))
    )
    assert takes.shape == (2, 9, 48, 64, 3)
    assert seen == [(0, 18), (9, 18), (18, 18)]
    assert pictures[0][1:] == (3 * 64, 48)
    alone = generate_clip(wan, spec(seed=4))
    assert (takes[1].int() - alone.int()).abs().max() <= 1  # kernels round differently for batches


def test_noise_is_shared_between_frames_only_while_the_camera_moves(wan: Base) -> None:
    control = msgspec.structs.replace(wan.settings.control, shared_noise=0.9)
    wan.settings = msgspec.structs.replace(wan.settings, control=control)

    def correlation(camera: CameraPath) -> float:
        plans = plan_shot(wan, spec(camera))
        latents = SamplingInputs.from_prompts(wan, [PROMPT], [""], [0], plans).latents
        first, last = latents[0, :, 0].flatten(), latents[0, :, -1].flatten()
        return float(torch.corrcoef(torch.stack([first, last]))[0, 1])

    assert correlation(CameraPath.still(9)) == pytest.approx(0, abs=0.15)
    assert correlation(CameraPath.straight(0.5, 0, 9)) == pytest.approx(0.9, abs=0.05)


def cosine(one: Tensor, other: Tensor) -> float:
    return float(torch.nn.functional.cosine_similarity(one.flatten(), other.flatten(), dim=0))


def test_a_shift_under_unipc_arrives_where_it_does_under_euler(wan: Base) -> None:
    """UniPC corrects the latents by the step before, and would undo a shift that it does not remember."""
    still = [StepPlan()] * 8
    free = torch.ones(3, 6, 8, dtype=torch.bool)
    moved = [*still[:3], StepPlan(moves=((0, 0), (2, 0), (4, 0)), free=free), *still[4:]]
    clips = {}
    for name in ("euler", "unipc"):
        wan.scheduler = SAMPLERS[name]()
        for plans in (still, moved):
            inputs = SamplingInputs.from_prompts(wan, [PROMPT], [""], [0], plans)
            clips[name, plans is moved] = denoise(wan, inputs)[:, :, 2]
    assert cosine(clips["unipc", True], clips["euler", True]) > 0.95
    assert cosine(clips["unipc", True], clips["unipc", False]) < 0.5


@pytest.mark.parametrize("sampler", ["euler", "unipc"])
def test_the_prediction_with_merged_scenery_implies_the_merged_clip(wan: Base, sampler: str) -> None:
    wan.scheduler = SAMPLERS[sampler]()
    wan.scheduler.set_timesteps(8)
    wan.settings = msgspec.structs.replace(
        wan.settings, control=msgspec.structs.replace(wan.settings.control, merge_until=1.0)
    )
    scenery = plan_shot(wan, spec())[-1].scenery
    assert scenery is not None
    dice = torch.Generator().manual_seed(2)
    latents, output = (torch.randn(1, *wan.latent_shape, generator=dice) for _ in range(2))
    t = wan.scheduler.timesteps[0]
    with torch.no_grad():
        before = wan.clean_estimate(output, t, latents)
        after = wan.clean_estimate(with_merged_scenery(wan, output, t, latents, scenery), t, latents)
    cells = scenery.latent_cells.expand_as(before[0])
    assert not torch.allclose(before[0][cells], after[0][cells], atol=0.01)
    torch.testing.assert_close(before[0][~cells], after[0][~cells], rtol=1e-4, atol=1e-4)


def test_a_clean_estimate_is_what_euler_steps_towards(wan: Base) -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    wan.scheduler = scheduler
    scheduler.set_timesteps(1)  # one step leads to the estimate itself
    latents, output = torch.randn(1, *wan.latent_shape), torch.randn(1, *wan.latent_shape)
    t = scheduler.timesteps[0]
    estimate = wan.clean_estimate(output, t, latents)
    torch.testing.assert_close(scheduler.step(output, t, latents).prev_sample, estimate, rtol=1e-5, atol=1e-5)


def test_frames_are_encoded_and_decoded_in_groups_and_a_picture_as_a_clip_of_one_frame(wan: Base) -> None:
    clip = torch.rand(9, 3, 48, 64) * 2 - 1
    with torch.no_grad():
        mean, std = wan.encode(clip)
        picture, _ = wan.encode(clip[:1])
        assert wan.to_pixels(mean).shape == (9, 3, 48, 64)
        assert wan.to_pixels(picture).shape == (1, 3, 48, 64)
    assert mean.shape == std.shape == wan.latent_shape == (16, 3, 6, 8)
    torch.testing.assert_close(picture[:, 0], mean[:, 0], rtol=1e-4, atol=1e-4)  # the encoder is causal


def test_subjects_are_found_in_the_cleaned_prompt(wan: Base) -> None:
    tokens = wan.prompt_tokens("  a   red &amp; sks  dog on the grass", ["sks dog"], "on the grass")
    words = wan.tokenizer("a red & sks dog on the grass")
    pieces = wan.tokenizer.convert_ids_to_tokens(words.input_ids)
    assert [pieces[i] for i in tokens.subjects[0]] == ["\u2581sks", "\u2581dog"]
    assert [pieces[i] for i in tokens.background] == ["\u2581on", "\u2581the", "\u2581grass"]
    assert (tokens.content.start, tokens.content.stop) == (0, len(pieces) - 1)
    assert tokens.padding == 24 - len(pieces)


def test_a_subject_beyond_the_models_tokens_is_refused(wan: Base) -> None:
    with refused(InvalidInput, phrase="sks dog", room=23):
        wan.prompt_tokens("a " * 23 + "sks dog", ["sks dog"])


def test_a_shot_for_another_number_of_frames_is_refused(wan: Base) -> None:
    other = Shot("s", 1, 24, 24, 64, 48, CameraPath.still(8))
    with refused(InvalidInput, found=8, expected=9):
        generate_clip(wan, spec(shot=other))
