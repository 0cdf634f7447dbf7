"""Motion after learning: how much clips of the subject's class move with its LoRA and without.

A LoRA that was trained on pictures can make clips stand still; the prior-preservation loss is meant to prevent that.
"""

from __future__ import annotations

import numpy as np
from motionbooth_protocol.text import Text
from msgspec import structs

from motionbooth.evaluation.camera_adherence import scenery_flows_px
from motionbooth.finetuning.prior_preservation import generated_clips
from motionbooth.generation.sampling import decode
from motionbooth.models.base import Base
from motionbooth.models.settings import TrainSettings
from motionbooth.models.subject_card import ClassMotion, SubjectCard
from motionbooth.models.subject_weights import without_lora
from motionbooth.progress.reporting import OnProgress


def class_motion(base: Base, settings: TrainSettings, class_word: str, on_step: OnProgress) -> ClassMotion:
    """Compare `settings.motion_clips` clips of "a dog" from the same seeds, with the base's LoRA and without."""
    steps = settings.motion_clips * base.settings.num_inference_steps
    with without_lora(base.network):
        before = _mean_flow_px(base, settings, class_word, lambda done, _: on_step(done, 2 * steps))
    after = _mean_flow_px(base, settings, class_word, lambda done, _: on_step(steps + done, 2 * steps))
    return ClassMotion(before, after)


def motion_text(card: SubjectCard) -> Text | None:
    """The motion after training for people; None if it was not measured."""
    if card.motion is None or card.motion.before is None or card.motion.after is None:
        return None
    template = "clips of a {subject} move {after:.2f} px per frame, without the LoRA {before:.2f}"
    return Text.of(template, subject=card.class_word, after=card.motion.after, before=card.motion.before)


def _mean_flow_px(base: Base, settings: TrainSettings, class_word: str, on_step: OnProgress) -> float | None:
    """Mean length of the optical flow in pixels a frame, where there is texture; None if there is none."""
    settings = structs.replace(settings, prior_clips=settings.motion_clips)
    captions = [f"a {class_word}"] * settings.motion_clips
    lengths = []
    for _, latents in generated_clips(base, settings, captions, range(len(captions)), on_step):
        frames = decode(base, latents[None])[0].numpy()
        lengths += [np.linalg.norm(flow.motion, axis=1) for flow in scenery_flows_px(frames, [None] * len(frames))]
    every = np.concatenate(lengths)
    return float(every.mean()) if len(every) else None
