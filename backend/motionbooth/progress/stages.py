"""The stages that jobs consist of, their work measured in passes of the network over one frame.

These proportions are a first guess for the time left. A stage that is running, or that an earlier job of the process
has run, is estimated from its own pace.
"""

from __future__ import annotations

from motionbooth_protocol.jobs import GenerateSpec, TrainSpec
from motionbooth_protocol.long_shots import windows_of

from motionbooth.models import post_processing
from motionbooth.models.settings import BaseSettings, TrainSettings
from motionbooth.progress.time_left import Stage

LOADING = "loading the model"
MASKS = "finding masks"
BACKGROUNDS = "generating backgrounds"
PRIOR_CLIPS = "generating prior-preservation clips"
READING_CLIPS = "reading clips"
PICTURES = "encoding pictures"
TRAINING = "training"
SAMPLING = "sampling"
DECODING = "decoding"
ENCODING = "encoding"
MASTER = "writing the master"
MEASURING = "measuring"

BACKWARD = 3.0  # forward and backward pass, in forward passes
# A frame through the VAE's decoder: 2.5 TFLOP for Stable Diffusion's at 512 x 512, where its UNet takes 0.8.
DECODED = 3.0
INTERPOLATED, UPSCALED = 1.0, 10.0  # a frame of the clip made by FILM, by an ESRGAN
ENCODED, MEASURED = 0.2, 1.0  # a frame of the clip written, a frame of the model measured


def generate_stages(base: BaseSettings, spec: GenerateSpec, takes: int = 1, frame_step: int = 1) -> list[Stage]:
    """The stages of generating one clip, or several takes of it. `frame_step`: as in ModelInfo."""
    guidance_scale = base.guidance_scale if spec.guidance_scale is None else spec.guidance_scale
    steps = spec.num_inference_steps or base.num_inference_steps
    master_frames = takes * spec.shot.scene_frames if spec.master else 0
    interpolates = not spec.hold_frames and post_processing.named_file(post_processing.INTERPOLATOR) is not None
    finished = INTERPOLATED * interpolates + UPSCALED * spec.upscale
    windows, frames = windows_of(spec.shot.frames, base.frames, frame_step), spec.shot.frames
    return [
        Stage(LOADING, 1),
        Stage(SAMPLING, takes * steps * len(windows), _sampling_step(base.frames, guidance_scale)),
        Stage(DECODING, takes * frames, DECODED),
        Stage(ENCODING, takes * spec.shot.scene_frames, ENCODED + finished),
        Stage(MASTER, master_frames, ENCODED + finished),
        Stage(MEASURING, takes, MEASURED * frames),
    ]


def train_stages(
    base: BaseSettings, settings: TrainSettings, spec: TrainSpec, prior_clips: int = 0, backgrounds: int = 0
) -> list[Stage]:
    """The stages of training a subject. `prior_clips`, `backgrounds`: how many are not cached and must be generated."""
    subject_pictures = len(spec.subject.pictures)
    pictures = settings.pasting.pool if settings.pasting else subject_pictures * settings.placements
    images = min(settings.image_batch, pictures)
    clip_frames = settings.clip_frames or base.frames
    prior_frames = {"nothing": 0, "class-pictures": settings.image_batch}.get(settings.prior_preservation, clip_frames)
    training_step = BACKWARD * settings.gradient_accumulation * (images + prior_frames)
    sampling_step = _sampling_step(clip_frames, base.guidance_scale)
    motion_clips = settings.motion_clips if (spec.method or base.method) == "lora" else 0
    sample = settings.validation_inference_steps * sampling_step + DECODED * clip_frames
    validation = sample * max(1, len(settings.validation_prompts))
    return [
        Stage(LOADING, 1),
        Stage(MASKS, subject_pictures),
        Stage(BACKGROUNDS, backgrounds * base.num_inference_steps, sampling_step),
        Stage(PRIOR_CLIPS, prior_clips * base.num_inference_steps, sampling_step),
        Stage(PICTURES, pictures),  # short, and a small model's encoder does not compare with its network
        Stage(TRAINING, settings.steps, training_step, every=settings.validate_every, extra=validation),
        Stage(MEASURING, 2 * motion_clips * base.num_inference_steps, sampling_step),
    ]


def _sampling_step(frames: int, guidance_scale: float) -> float:
    return frames * (2.0 if guidance_scale > 1 else 1.0)
