"""Prompts split by region and subjects tied across frames, through the classes of Wan."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import msgspec
import pytest
import torch
from motionbooth.control.boxes import BoxControl, box_mask
from motionbooth.control.prompt import without_phrases
from motionbooth.generation.sampling import SamplingInputs, generate_clip, outside_prompt, plan_shot
from motionbooth.models.base import Base
from motionbooth.models.registry import load_base
from motionbooth_protocol.jobs import GenerateSpec
from motionbooth_protocol.motion import Box, CameraPath, Shot, SubjectTrack
from torch import Tensor

PROMPT, OUTSIDE = "a sks dog running on the grass", "running on the grass"
TIME = torch.tensor(500.0)


def spec(boxes: list[Box] | None = None, **changes: Any) -> GenerateSpec:
    """A box of 2 x 2 tokens, of 4 x 3 in the frame, that moves by a token in each latent frame."""
    steps = [0, 1, 1, 1, 1, 2, 2, 2, 2]
    boxes = boxes or [Box(0.25 * step, 1 / 3, 0.25 * step + 0.5, 1) for step in steps]
    track = SubjectTrack("dog", "dog", list(boxes), token="sks")
    shot = Shot("s", 1, 9, 16, 64, 48, CameraPath.still(9), [track])
    return msgspec.structs.replace(GenerateSpec(shot, PROMPT, model="tinywan", num_inference_steps=2), **changes)


def with_control(base: Base, **changes: Any) -> Base:
    control = msgspec.structs.replace(base.settings.control, **changes)
    base.settings = msgspec.structs.replace(base.settings, control=control)
    return base


def edit_of(base: Base, shot: GenerateSpec) -> BoxControl:
    edit = plan_shot(base, shot)[0].boxes
    assert edit is not None
    return edit


def noise(base: Base) -> Tensor:
    return torch.randn(1, *base.latent_shape, generator=torch.Generator().manual_seed(4))


@contextmanager
def outputs(module: torch.nn.Module) -> Any:
    seen: list[Any] = []
    handle = module.register_forward_hook(lambda _, __, output: seen.append(output))
    yield seen
    handle.remove()


def attended(base: Base, text: Tensor, edit: BoxControl | None) -> Tensor:
    """What the first text attention returns for each token: (F, h, w, C)."""
    with outputs(base.network.blocks[0].attn2) as seen, torch.no_grad():
        base.predict(noise(base), TIME, text, text, 1.0, edit)
    return seen[0].view(3, 3, 4, -1)


@pytest.mark.numeric
def test_each_side_of_a_box_attends_to_its_own_prompt_alone(wan: Base) -> None:
    boxes = edit_of(wan, spec())
    full, other = wan.embed([PROMPT]), wan.embed([OUTSIDE])
    inside = box_mask(boxes.boxes, (3, 4))[0]
    assert inside.sum() == 3 * 4
    split = edit_of(with_control(wan, split_prompt=True), spec())
    found = attended(wan, torch.cat([full, other], dim=1), split)
    # The same softmax with keys of weight zero beside it: sums in another order, of values below 10.
    torch.testing.assert_close(found[inside], attended(wan, full, boxes)[inside], rtol=0, atol=1e-5)
    torch.testing.assert_close(found[~inside], attended(wan, other, None)[~inside], rtol=0, atol=1e-5)
    assert (found - attended(wan, full, boxes))[~inside].abs().amax(dim=-1).min() > 1e-3


def test_soft_edges_share_a_token_between_both_prompts(wan: Base) -> None:
    half = spec([Box(0.125, 0, 0.625, 1)] * 9)  # half of a column on either side
    split = edit_of(with_control(wan, split_prompt=True, soft_edges=True, alpha=0.0), half)
    wan.control.set_boxes([split], (6, 8), 3)
    bias = wan.control.clip_bias(torch.zeros(1, 36, 24))
    assert bias is not None
    subject, end, outside = split.tokens.subjects[0][0], split.tokens.content.stop, split.tokens.outside
    row = bias.view(3, 3, 4, -1)[0, 0].exp()
    assert row[:, subject].tolist() == pytest.approx([0.5, 1, 0.5, 0])
    assert row[:, end].tolist() == pytest.approx([0.5, 1, 0.5, 0])
    assert row[:, outside.start].tolist() == row[:, outside.stop - 1].tolist() == pytest.approx([0.5, 0, 0.5, 1])


def test_the_prompt_outside_is_the_background_phrase_or_the_prompt_without_the_subjects() -> None:
    assert outside_prompt(spec()) == OUTSIDE
    assert outside_prompt(spec(background_phrase="the grass")) == "the grass"
    assert without_phrases("The sks dog and a red cat, in snow", ["red cat", "sks dog"]) == "and , in snow"


@pytest.mark.parametrize("name", ["wan_source", "wan22_source"])
@pytest.mark.parametrize("changes", [{"split_prompt": True}, {"tie_until": 1.0}])
def test_each_option_changes_the_clip_only_with_boxes(
    name: str, changes: dict[str, Any], request: pytest.FixtureRequest
) -> None:
    base = load_base(request.getfixturevalue(name), device="cpu")
    shots = spec(), spec(box_control=False)
    plain = [generate_clip(base, shot) for shot in shots]
    changed = [generate_clip(with_control(base, **changes), shot) for shot in shots]
    assert not torch.equal(plain[0], changed[0])
    assert torch.equal(plain[1], changed[1])
    off = dict.fromkeys(changes, False) if "split_prompt" in changes else {"tie_until": 0.0}
    assert torch.equal(plain[0], generate_clip(with_control(base, **off), shots[0]))


def test_a_split_prompt_takes_twice_the_tokens_of_the_conditional_pass_alone(wan: Base) -> None:
    plans = plan_shot(with_control(wan, split_prompt=True), spec())
    inputs = SamplingInputs.from_prompts(wan, [PROMPT], [""], [0], plans, outside_prompts=[OUTSIDE])
    assert inputs.prompt_embeds.shape[1] == 48
    assert inputs.negative_prompt_embeds.shape[1] == 24
    assert torch.equal(inputs.prompt_embeds[:, 24:], wan.embed([OUTSIDE]))


def embeddings(base: Base, edit: BoxControl | None) -> tuple[Tensor, Tensor]:
    base.control.set_boxes([edit], (6, 8), 3)
    with torch.no_grad():
        cos, sin = base.network.rope(noise(base))
    return cos.view(3, 3, 4, -1), sin.view(3, 3, 4, -1)


def test_a_tied_subject_is_at_the_place_of_its_mean_box_and_nothing_else_moves(wan: Base) -> None:
    plain = embeddings(wan, edit_of(wan, spec()))
    assert all(torch.equal(*pair) for pair in zip(plain, embeddings(wan, None), strict=True))
    edit = edit_of(with_control(wan, tie_until=1.0), spec())
    inside = box_mask(edit.boxes, (3, 4))[0]
    rope = wan.network.rope
    for tied, own in zip(embeddings(wan, edit), plain, strict=True):
        assert torch.equal(tied[~inside], own[~inside])
        assert torch.equal(tied[..., : rope.t_dim], own[..., : rope.t_dim])
        # The box is in its mean place in the middle frame. Angles below 4 in float32: 4 units in the last place.
        for frame in range(3):
            moved = tied[frame, 1:3, frame : frame + 2, rope.t_dim :]
            torch.testing.assert_close(moved, own[1, 1:3, 1:3, rope.t_dim :], rtol=0, atol=4 * 2.0**-22)
    assert not torch.equal(embeddings(wan, edit)[0][0], plain[0][0])


def test_where_two_boxes_overlap_the_last_subject_has_its_place(wan: Base) -> None:
    edit = edit_of(with_control(wan, tie_until=1.0), spec())
    still = [Box(0, 0, 1, 1)] * 3
    both = replace(edit, boxes=[still, *edit.boxes], tokens=replace(edit.tokens, subjects=edit.tokens.subjects * 2))
    inside = box_mask(edit.boxes, (3, 4))[0]
    cos, alone = embeddings(wan, both)[0], embeddings(wan, edit)[0]
    assert torch.equal(cos[inside], alone[inside])


def test_a_box_that_stands_still_is_tied_to_itself(wan: Base) -> None:
    still = spec([Box(0.25, 1 / 3, 0.75, 1)] * 9)
    plain = embeddings(wan, edit_of(wan, still))
    tied = embeddings(wan, edit_of(with_control(wan, tie_until=1.0), still))
    for one, other in zip(tied, plain, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=4 * 2.0**-22)


def test_ties_act_up_to_their_share_and_in_the_conditional_pass_alone(wan: Base) -> None:
    plans = plan_shot(with_control(wan, tie_until=0.5, windows="steps"), spec(num_inference_steps=8))
    assert [plan.boxes is not None and plan.boxes.tied for plan in plans] == [True] * 4 + [False] * 4
    text = wan.embed([PROMPT])
    with torch.no_grad():
        plain = wan.predict(noise(wan), TIME, text, text, 1.0, None)
        tied = wan.predict(noise(wan), TIME, text, text, 1.0, plans[0].boxes)
        guided = wan.predict(noise(wan), TIME, text, text, 3.0, plans[0].boxes)
    assert torch.equal(guided, plain + 3.0 * (tied - plain))


def test_samples_of_one_batch_have_their_own_ties(wan: Base) -> None:
    edit = edit_of(with_control(wan, tie_until=1.0), spec())
    (alone,), (plain,) = (embeddings(wan, each)[0][None] for each in (edit, None))
    wan.control.set_boxes([None, edit, edit], (6, 8), 3)
    cos, _ = wan.network.rope(noise(wan))
    assert torch.equal(cos.view(3, 3, 3, 4, -1), torch.stack([plain, alone, alone]))
