"""The real backend with a model that only draws: `python drawing_server.py HOME`. It starts `... HOME worker`.

A clip shows a grey background, as bright as the first byte of its style if it has one, and each subject's box in a
color of its own, exactly where it was asked.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import msgspec
import numpy as np
from motionbooth.generation.masters import pack, write_master
from motionbooth.generation.video import write_clip
from motionbooth.pictures.mask_doubts import BORDER, OTHERWISE
from motionbooth.server import worker
from motionbooth.server.serve import serve
from motionbooth.server.settings import ServerSettings
from motionbooth_protocol.jobs import JobSpec, MaskDoubt, TrainSpec
from motionbooth_protocol.messages import ModelInfo
from motionbooth_protocol.text import Text

if TYPE_CHECKING:
    from motionbooth.server.worker import PipeReporter

WIDTH, HEIGHT, FRAMES = 96, 64, 8
GREY = (90, 90, 90)
COLORS = ((200, 60, 20), (20, 90, 220))
STEP_SECONDS = 0.05


def preview() -> bytes:
    """JPEG of three frames side by side."""
    colors = ((20, 20, 230), (20, 200, 20), (230, 40, 20))  # red, green, blue, as OpenCV writes them
    frames = [np.full((171, 256, 3), color, np.uint8) for color in colors]
    return cv2.imencode(".jpg", np.concatenate(frames, axis=1))[1].tobytes()


PREVIEW = preview()


def run(spec: JobSpec, blob_path: Callable[[str], Path], scratch: Path, reporter: PipeReporter) -> dict[str, Path]:
    """A training returns the pictures' bytes as the subject, and the first picture as the sample.

    A class "slow ..." takes a few seconds, the mask of a class "doubtful ..." is doubted, and a clip with seed 999
    takes a minute. A preview has the first frame in red, the middle one in green, the last one in blue.
    """
    if isinstance(spec, TrainSpec):
        for step in range(60 if spec.subject.class_word.startswith("slow") else 1):
            reporter.progress("training", step + 1, 60)
            time.sleep(STEP_SECONDS)
        subject = scratch / "subject.safetensors"
        pictures = [blob_path(picture.image).read_bytes() for picture in spec.subject.pictures]
        subject.write_bytes(b"".join(pictures))
        samples = scratch / "samples.png"
        samples.write_bytes(pictures[0])
        if "doubtful" not in spec.subject.class_word:
            return {"subject": subject, "samples": samples}
        doubts = scratch / "doubts.json"
        doubts.write_bytes(
            msgspec.json.encode(
                [
                    MaskDoubt(
                        Text.of("picture {number} of {count} ({name})", number=1, count=1, name="toy.png"),
                        [BORDER, OTHERWISE],
                    )
                ]
            )
        )
        return {"subject": subject, "samples": samples, "doubts": doubts}
    for step in range(1200 if spec.seed == 999 else 4):
        reporter.progress("sampling", step, 1200 if spec.seed == 999 else 4)
        reporter.preview(PREVIEW, 3 * 256, 171)
        time.sleep(STEP_SECONDS)
    background = blob_path(spec.styles[0].weights).read_bytes()[0] if spec.styles else GREY
    frames = np.full((spec.shot.frames, HEIGHT, WIDTH, 3), background, np.uint8)
    for track, color in zip(spec.shot.subjects, COLORS, strict=False):
        for frame, box in zip(frames, track.boxes, strict=True):
            if box is not None:
                x1, y1, x2, y2 = box.clipped().as_tuple()
                frame[round(y1 * HEIGHT) : round(y2 * HEIGHT), round(x1 * WIDTH) : round(x2 * WIDTH)] = color
    clip = scratch / "clip.mp4"
    write_clip(clip, frames, spec.shot.fps, spec.shot.scene_frames)
    if spec.master is None:
        return {"clip": clip}
    write_master(spec.master, clip, (frames / 255).astype(np.float32), spec.shot)
    return {"clip": clip, "master": pack(spec.master, clip, spec.shot)}


if __name__ == "__main__":
    home = Path(sys.argv[1])
    if sys.argv[2:] == ["worker"]:
        worker.main(run, home)
    else:
        models = [ModelInfo(name="toybox", frames=FRAMES, width=WIDTH, height=HEIGHT, fps=8.0)]
        command = [sys.executable, __file__, str(home), "worker"]
        serve(ServerSettings(home, "tcp://127.0.0.1:*", models, worker_command=command))
