"""Which of the mask finders on a machine finds the subject in a picture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from motionbooth.pictures.birefnet import BirefnetFinder
from motionbooth.pictures.images import Mask, Rgb
from motionbooth.pictures.masks import NO_HINT, Finder, Hint
from motionbooth.pictures.sam import Checkpoint, SamFinder


@dataclass(frozen=True)
class MaskFinders:
    """The finders that there are. Without any, GrabCut finds the subject."""

    sam: Checkpoint | None = None
    birefnet: Path | None = None
    """The folder of the fetched model."""

    @property
    def paths(self) -> list[Path]:
        """Where their weights are."""
        return [*([self.sam.path] if self.sam else []), *([self.birefnet] if self.birefnet else [])]

    def finder(self) -> Finder | None:
        """BiRefNet for pictures without a hint, Segment Anything for those with one; None for GrabCut."""
        sam = None if self.sam is None else SamFinder(self.sam)
        birefnet = None if self.birefnet is None else BirefnetFinder(self.birefnet)
        if sam is None or birefnet is None:
            return sam or birefnet

        def find(rgb: Rgb, hint: Hint) -> Mask:
            return birefnet(rgb, hint) if hint == NO_HINT else sam(rgb, hint)

        return find
