"""The paper's figures of a clip: R-CLIP, R-DINO, CLIP-T, T-Cons and flow error, by networks that everyone has.

Likeness is the mean cosine between each crop and each picture of the subject. A picture is cropped to its mask, and
everything outside the mask is gray; a frame is cropped to the requested box (`r_`, the paper's "region") or to the box
in which the subject was found (`found_`). Crops are padded with gray to squares, because the networks' own processors
cut squares out of wide pictures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
from motionbooth_protocol.jobs import GenerateSpec
from motionbooth_protocol.motion import Box
from motionbooth_protocol.phrases import phrase_spans
from msgspec import Struct
from numpy.typing import NDArray
from rich.table import Table

from motionbooth.evaluation.flow_error import FlowError, Tracks, flow_error, track_error
from motionbooth.evaluation.networks import (
    DIS_CARD,
    OWN_CARDS,
    Embedder,
    FlowFinder,
    NetworkCard,
    Networks,
    PointTracker,
    dis_flow,
)
from motionbooth.evaluation.report import MotionReport, box_mask
from motionbooth.pictures.masks import MaskedPicture

GRAY = 127
Rgb = NDArray[np.uint8]


class SubjectLikeness(Struct, frozen=True):
    """Mean cosines (-1..1) with the subject's pictures; None without the network, pictures or frames that show it."""

    name: str
    r_clip: float | None = None
    r_dino: float | None = None
    found_clip: float | None = None
    found_dino: float | None = None


class PaperFigures(Struct, frozen=True):
    """The figures of a clip, and what measured them."""

    networks: list[NetworkCard]
    missing: dict[str, str]
    """Measuring networks that are not here, each with the command that gets it."""
    subjects: list[SubjectLikeness]
    clip_t: float | None
    """CLIP-T: mean cosine of the frames with the prompt, without the subjects' tokens, which CLIP does not know."""
    t_cons: float | None
    """T-Cons: mean cosine of consecutive frames, by CLIP."""
    flow: list[FlowError]
    frames: int
    """How many frames were measured."""
    tracks_px: float | None = None
    """The track error by CoTracker, if it is here; see `FlowError.tracks_px`."""


class PaperReport(MotionReport, frozen=True):
    """A motion report with the paper's figures beside its own."""

    paper: PaperFigures | None = None


def paper_report(
    frames: NDArray[np.uint8],
    spec: GenerateSpec,
    motion: MotionReport,
    pictures: Mapping[str, Sequence[MaskedPicture]],
    networks: Networks,
    tracks: Tracks | None = None,
) -> PaperReport:
    """The report of a clip with the paper's figures. `frames`: the model's (F, H, W, 3) uint8 RGB.

    `motion`: the report of the same frames. `pictures`: of each subject, by the name of its track. `tracks`: of the
    shot's points, in pixels of these frames.
    """
    found = {subject.name: [frame.found for frame in subject.frames] for subject in motion.subjects}
    clip_t = t_cons = None
    if networks.clip is not None:
        embeddings = networks.clip.pictures(list(frames))
        clip_t = float((embeddings @ networks.clip.text(prompt_without_tokens(spec))).mean())
        t_cons = float((embeddings[:-1] * embeddings[1:]).sum(1).mean()) if len(frames) > 1 else None
    subjects = spec.shot.subjects
    nowhere: list[Box | None] = [None] * len(frames)
    hidden = [
        [box for track in subjects for box in (track.boxes[f], found.get(track.name, nowhere)[f]) if box is not None]
        for f in range(len(frames))
    ]
    finders: list[tuple[str, FlowFinder]] = [(DIS_CARD.name, dis_flow)]
    if networks.raft is not None:
        finders.append((networks.raft.card.name, networks.raft))
    figures = PaperFigures(
        networks=[*networks.cards, DIS_CARD, *OWN_CARDS],
        missing=networks.missing,
        subjects=[
            _likeness(frames, track.name, track.boxes, found.get(track.name, nowhere), pictures[track.name], networks)
            for track in subjects
            if pictures.get(track.name)
        ],
        clip_t=clip_t,
        t_cons=t_cons,
        flow=[flow_error(name, finder, frames, hidden, spec.shot.camera, tracks) for name, finder in finders],
        frames=len(frames),
        tracks_px=_tracked(frames, networks.cotracker, tracks),
    )
    return PaperReport(**msgspec.structs.asdict(motion), paper=figures)


def _tracked(frames: Rgb, tracker: PointTracker | None, tracks: Tracks | None) -> float | None:
    if tracker is None or tracks is None or not tracks.visible.size:
        return None
    return track_error(tracker(frames, tracks.points[0]), tracks)


def prompt_without_tokens(spec: GenerateSpec) -> str:
    """The prompt with each subject's phrase reduced to its class: "a dog runs" for "a sks dog runs"."""
    prompt = spec.prompt
    for track in spec.shot.subjects:
        for start, end in reversed(phrase_spans(prompt, track.phrase)):
            prompt = prompt[:start] + track.class_word + prompt[end:]
    return prompt


def _likeness(
    frames: Rgb,
    name: str,
    asked: Sequence[Box | None],
    found: Sequence[Box | None],
    pictures: Sequence[MaskedPicture],
    networks: Networks,
) -> SubjectLikeness:
    shown = [masked_crop(picture) for picture in pictures]

    def cosine(network: Embedder | None, boxes: Sequence[Box | None]) -> float | None:
        crops = [
            box_crop(frame, box.clipped())
            for frame, box in zip(frames, boxes, strict=True)
            if box is not None and box.visible
        ]
        if network is None or not crops:
            return None
        return float((network.pictures(crops) @ network.pictures(shown).T).mean())

    return SubjectLikeness(
        name,
        r_clip=cosine(networks.clip, asked),
        r_dino=cosine(networks.dino, asked),
        found_clip=cosine(networks.clip, found),
        found_dino=cosine(networks.dino, found),
    )


def masked_crop(picture: MaskedPicture) -> Rgb:
    """The subject's bounds in a picture as a square (S, S, 3), gray outside its mask."""
    rows, columns = np.nonzero(picture.mask)
    part = slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1)
    masked = np.where(picture.mask[..., None] > 0, picture.rgb, GRAY).astype(np.uint8)
    return _square(masked[part])


def box_crop(frame: Rgb, box: Box) -> Rgb:
    """The pixels that a box touches, in shares of the frame (H, W, 3), as a square (S, S, 3)."""
    inside = box_mask(box, (frame.shape[0], frame.shape[1]))
    return _square(frame[np.ix_(inside.any(1), inside.any(0))])


def _square(pixels: Rgb) -> Rgb:
    height, width = pixels.shape[:2]
    side = max(height, width)
    square = np.full((side, side, 3), GRAY, np.uint8)
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = pixels
    return square


def paper_table(figures: PaperFigures, width: int, height: int) -> Table:
    """The figures as a table for people, with the meaning and the network of each."""
    table = Table(title="the paper's figures")
    table.add_column("measure")
    table.add_column("value", justify="right")
    table.add_column("meaning", style="dim", overflow="fold")  # commands with long addresses
    for subject in figures.subjects:
        for field, title, meaning in (
            ("r_clip", "R-CLIP", "CLIP: cosine of the requested boxes with the pictures"),
            ("r_dino", "R-DINO", "DINO: the same"),
            ("found_clip", "CLIP, where found", "CLIP: cosine of the boxes where it was found with the pictures"),
            ("found_dino", "DINO, where found", "DINO: the same"),
        ):
            table.add_row(f"{subject.name}: {title}", _cosine(getattr(subject, field)), meaning)
    table.add_row("CLIP-T", _cosine(figures.clip_t), "CLIP: cosine of the frames with the prompt")
    table.add_row("T-Cons", _cosine(figures.t_cons), "CLIP: cosine of consecutive frames")
    frame = f"px a frame, of {width} x {height} px"
    for flow in figures.flow:
        table.add_row("flow error, scenery", _pixels(flow.scenery_px), f"{flow.network}: {frame}")
        table.add_row("flow error, all pixels", _pixels(flow.all_px), f"{flow.network}: {frame}")
        table.add_row(
            "track error", _pixels(flow.tracks_px), f"{flow.network}: of points followed from the first frame"
        )
    if figures.tracks_px is not None:
        table.add_row("track error", _pixels(figures.tracks_px), "CoTracker: the same")
    for card in figures.networks:
        table.add_row(card.name, "", network_text(card))
    for name, command in figures.missing.items():
        table.add_row(name, "missing", f"get it with: {command}")
    return table


def network_text(card: NetworkCard) -> str:
    """What measured, in a line: its id, the sha256 of its weights, and whether it is the product's own."""
    return card.id + (f", sha256 {card.sha256}" if card.sha256 else "") + (", the product's own" if card.own else "")


def _cosine(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _pixels(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} px"
