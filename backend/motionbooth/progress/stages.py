"""What jobs consist of, for one time left of the whole: their stages, measured in passes of the network over one frame.

How stages compare is only a first guess, for what this machine has not done yet: a stage that a job is in, or that an
earlier job of the process was in, is told by its own pace.
"""

from __future__ import annotations

from motionbooth_protocol.jobs import GenerateSpec, TrainSpec

from motionbooth.models.settings import BaseSettings, TrainSettings
from motionbooth.progress.time_left import Stage

BACKWARD = 3.0  # forward and backward, in forward passes
DECODED = (
    3.0  # a frame through the autoencoder: 2.5 TFLOP for Stable Diffusion's at 512 x 512, where its UNet takes 0.8
)
READ = 1.2  # a picture into latents: the autoencoder's encoder takes some 40 % of its decoder's work
ENCODED, MEASURED = 0.2, 1.0  # a frame of the clip written, a frame of the model looked at


def generate_stages(base: BaseSettings, spec: GenerateSpec, takes: int = 1) -> list[Stage]:
    """Of one clip, or of several takes of it."""
    guidance = base.guidance if spec.guidance is None else spec.guidance
    frames = base.frames
    return [
        Stage("loading the model", 1),
        Stage("sampling", takes * (spec.steps or base.steps), _sampling_step(base, guidance)),
        Stage("decoding", takes * frames, DECODED),
        Stage("encoding", takes, ENCODED * spec.shot.scene_frames),
        Stage("measuring", takes, MEASURED * frames),
    ]


def train_stages(
    base: BaseSettings,
    settings: TrainSettings,
    spec: TrainSpec,
    clips_to_generate: int = 0,
    places_to_generate: int = 0,
) -> list[Stage]:
    """Of a subject. `clips_to_generate`, `places_to_generate`: ordinary clips, and those of places, not there yet."""
    placed = len(spec.subject.pictures) * settings.placements
    pictures = settings.pasting.pool if settings.pasting else placed
    images = min(settings.image_batch, pictures)
    clip_frames = {"nothing": 0, "class-pictures": settings.image_batch}.get(settings.preserve, base.frames)
    learning_step = BACKWARD * settings.accumulate * (images + clip_frames)
    sample = settings.validation_steps * _sampling_step(base, base.guidance) + DECODED
    return [
        Stage("loading the model", 1),
        Stage("finding masks", len(spec.subject.pictures)),
        Stage("generating places", places_to_generate * base.steps, _sampling_step(base, base.guidance)),
        Stage("filming ordinary clips", clips_to_generate * base.steps, _sampling_step(base, base.guidance)),
        Stage("encoding pictures", pictures, READ),
        Stage("learning", settings.steps, learning_step, every=settings.validate_every, extra=sample),
    ]


def _sampling_step(base: BaseSettings, guidance: float) -> float:
    return base.frames * (2.0 if guidance > 1 else 1.0)
