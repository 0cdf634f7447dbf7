"""Writes the losses of a training for TensorBoard."""

from __future__ import annotations

from pathlib import Path

from motionbooth_protocol.errors import InvalidInput
from msgspec import structs

from motionbooth.finetuning.trainer import StepLosses


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
        self._writer: SummaryWriter | None = None

    def write(self, step: int, losses: StepLosses) -> None:
        """Add a step. The first call hides what an earlier run wrote of this step and later ones."""
        if self._writer is None:
            self._writer = self._open(step)
        for name, value in structs.asdict(losses).items():
            if value is not None:
                self._writer.add_scalar(f"loss/{name}", value, step)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
