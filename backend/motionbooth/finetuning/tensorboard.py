"""Writes the losses and the validation samples of a training for TensorBoard."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from motionbooth_protocol.errors import InvalidInput
from msgspec import structs
from PIL import Image

from motionbooth.finetuning.trainer import StepLosses
from motionbooth.generation.video import Frames


class TensorBoardLog:
    """Event files in a folder, which `tensorboard --logdir FOLDER` shows."""

    def __init__(self, folder: Path) -> None:
        """Raises InvalidInput if TensorBoard is not installed."""
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise InvalidInput(
                "TensorBoard events need its library: pip install 'motionbooth[tensorboard]'. Or omit --tensorboard."
            ) from error
        self._open = lambda first: SummaryWriter(str(folder), purge_step=first)
        self._writer: Any = None

    def write(self, step: int, losses: StepLosses) -> None:
        """Add a step's losses."""
        for name, value in structs.asdict(losses).items():
            if value is not None:
                self._opened(step).add_scalar(f"loss/{name}", value, step)

    def write_sample(self, step: int, number: int, frames: Frames, fps: float) -> None:
        """Add a validation sample (F, H, W, 3), counted from 1: its middle frame, and the clip, which moves there."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        writer = self._opened(step)
        writer.add_image(f"sample {number}/frame", frames[len(frames) // 2], step, dataformats="HWC")
        # TensorBoard has no video but shows a GIF as an image. Its own `add_video` needs moviepy for that.
        height, width = frames.shape[1:3]
        clip = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=_gif(frames, fps))
        writer.file_writer.add_summary(Summary(value=[Summary.Value(tag=f"sample {number}/clip", image=clip)]), step)

    def _opened(self, step: int) -> Any:
        """The writer. When it is opened, what an earlier run wrote of this step and later ones is hidden."""
        if self._writer is None:
            self._writer = self._open(step)
        return self._writer

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


def _gif(frames: Frames, fps: float) -> bytes:
    """An animated GIF that starts again at its end."""
    first, *others = (Image.fromarray(frame) for frame in frames)
    file = io.BytesIO()
    first.save(file, "GIF", save_all=True, append_images=others, duration=round(1000 / fps), loop=0)
    return file.getvalue()
