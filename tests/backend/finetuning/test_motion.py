"""Motion after training: measured with the LoRA and without, from the same seeds."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest
import torch
from motionbooth.finetuning.motion import class_motion, motion_text
from motionbooth.finetuning.trainable import set_trainable
from motionbooth.models.base import Base
from motionbooth.models.settings import TrainSettings
from motionbooth.models.subject_card import ClassMotion, SubjectCard
from motionbooth_protocol.text import Text
from torch import Tensor

pytestmark = pytest.mark.numeric

CARD = SubjectCard("Rex", "sks", "dog", "a sks dog", "wan", "0" * 64, "lora", 4, ".*")


@pytest.fixture
def settings(wan: Base) -> TrainSettings:
    return msgspec.structs.replace(wan.settings.lora, motion_clips=1, clip_frames=9)


def test_an_untrained_lora_moves_as_the_base_and_a_trained_one_differently(wan: Base, settings: TrainSettings) -> None:
    set_trainable(wan, settings, "lora", seed=0)
    reported: list[tuple[int, int]] = []
    untrained = class_motion(wan, settings, "dog", lambda done, count: reported.append((done, count)))
    assert untrained.before == untrained.after is not None
    assert reported[-1] == (2 * wan.settings.num_inference_steps, 2 * wan.settings.num_inference_steps)
    with torch.no_grad():
        for name, parameter in wan.network.named_parameters():
            if "lora_B" in name:
                parameter.add_(0.5)
    trained = class_motion(wan, settings, "dog", lambda done, count: None)
    assert trained.before == untrained.before
    assert trained.after != untrained.after


def scenery(frames: Callable[[int], Tensor]) -> Callable[[Tensor], Tensor]:
    """A stand-in for the VAE's decoder, whose clips have a known motion."""
    return lambda latents: torch.stack([frames(f) for f in range(9)])


def test_motion_is_in_pixels_a_frame_and_unknown_without_texture(
    wan: Base, settings: TrainSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_trainable(wan, settings, "lora", seed=0)
    noise = torch.rand(1, 8, 10, generator=torch.Generator().manual_seed(0))
    wide = torch.nn.functional.interpolate(noise[None], size=(48, 96), mode="bicubic")[0].clamp(0, 1) * 2 - 1
    moving = scenery(lambda f: wide[..., 2 * f : 2 * f + 64].expand(3, -1, -1))
    monkeypatch.setattr(type(wan), "to_pixels", lambda self, latents: moving(latents))
    found = class_motion(wan, settings, "dog", lambda done, count: None)
    # Pan of two pixels; the search is off by a few tenths, most at the edges.
    assert found.before == pytest.approx(2, abs=0.4)
    plain = scenery(lambda f: torch.zeros(3, 48, 64))
    monkeypatch.setattr(type(wan), "to_pixels", lambda self, latents: plain(latents))
    assert class_motion(wan, settings, "dog", lambda done, count: None) == ClassMotion(None, None)


def test_it_is_said_for_people_if_it_is_known() -> None:
    reported = motion_text(msgspec.structs.replace(CARD, motion=ClassMotion(0.8, 0.4)))
    assert reported == Text.of(
        "clips of a {subject} move {after:.2f} px per frame, without the LoRA {before:.2f}",
        subject="dog",
        after=0.4,
        before=0.8,
    )
    assert motion_text(CARD) is motion_text(msgspec.structs.replace(CARD, motion=ClassMotion(None, None))) is None
