"""The results of `motionbooth bench paper` as Markdown and LaTeX, beside the paper's figures."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from msgspec import Struct

from motionbooth.evaluation.networks import NetworkCard
from motionbooth.evaluation.paper_figures import PaperReport, network_text
from motionbooth.evaluation.report import mean_of

FIGURES = {
    "r_clip": "R-CLIP",
    "r_dino": "R-DINO",
    "clip_t": "CLIP-T",
    "t_cons": "T-Cons",
    "flow": "flow error",
    "tracks": "track error",
    "iou": "IoU",
    "identity": "identity",
    "median_flow": "median flow error",
}
TABLES = {"subject": tuple(FIGURES), "camera": ("clip_t", "t_cons", "flow", "tracks", "median_flow")}
TITLES = {"subject": "Subjects with boxes and a camera", "camera": "Camera alone"}

PAPER: Mapping[tuple[str, str, str], Mapping[str, float]] = {
    ("subject", "zeroscope", "motionbooth"): {"r_clip": 0.667, "r_dino": 0.306, "flow": 0.252},
    ("subject", "lavie", "motionbooth"): {"r_clip": 0.739, "r_dino": 0.504, "flow": 0.259},
    ("camera", "zeroscope", "camera control"): {"flow": 0.190},
    ("camera", "lavie", "camera control"): {"flow": 0.296},
}
"""MotionBooth's own figures in the paper (arXiv 2406.17758), by table, base model and method."""

NOTES = (
    "Flow errors are in percent of the clip's width per frame of the shot: the mean end-point error over the scenery "
    "by {flow}, and the error of the scenery's median motion by DIS (the product's own figure). Track errors are in "
    "percent of the width, too: the mean distance of points that {tracker} follows from where the shot asks for them. "
    "A clip with fewer frames than the shot is measured at its own, so T-Cons compares frames that are further apart.",
    "Recipes other than motionbooth are settings of the product's own trainer, not their authors' code.",
    "The paper's figures are of its own pictures, pairs and measuring networks; how its flow error is normalized is "
    "not known here. Empty: not run here, or not in the paper.",
)


class Row(Struct, frozen=True):
    """The means over the clips of a method. `figures`: by the names in FIGURES; None if no clip has it."""

    table: str
    model: str
    method: str
    clips: int
    of: int
    """How many clips the row is to have."""
    figures: dict[str, float | None] = {}


class Results(Struct, frozen=True):
    """All rows, and what measured them."""

    pairs: str
    subjects: list[str]
    networks: list[NetworkCard]
    rows: list[Row]


def row_of(table: str, model: str, method: str, reports: Sequence[tuple[PaperReport, int]], of: int) -> Row:
    """The means of the measured clips, each with the number of frames that its shot has."""
    figures = [_figures(report, frames) for report, frames in reports]
    means = {name: mean_of([each[name] for each in figures]) for name in TABLES[table]}
    return Row(table, model, method, len(reports), of, means)


def _figures(report: PaperReport, frames: int) -> dict[str, float | None]:
    paper = report.paper
    assert paper is not None
    fewer = (paper.frames - 1) / (frames - 1)  # from each frame of the clip to each frame of the shot
    best = next((flow for flow in paper.flow if flow.network == "RAFT"), paper.flow[0])
    likeness = paper.subjects[0] if paper.subjects else None
    subject = report.subjects[0] if report.subjects else None
    return {
        "r_clip": None if likeness is None else likeness.r_clip,
        "r_dino": None if likeness is None else likeness.r_dino,
        "clip_t": paper.clip_t,
        "t_cons": paper.t_cons,
        "flow": _percent(best.scenery_px, report.width, fewer),
        "tracks": _percent(best.tracks_px if paper.tracks_px is None else paper.tracks_px, report.width),
        "iou": None if subject is None else subject.iou,
        "identity": None if subject is None else subject.identity,
        "median_flow": _percent(report.flow_error_px, report.width, fewer),
    }


def _percent(pixels: float | None, width: int, factor: float = 1.0) -> float | None:
    return None if pixels is None else 100 * pixels / width * factor


def markdown(results: Results) -> str:
    """The tables, with the networks and notes below them."""
    parts = ["# The paper's tables"]
    for table in TABLES:
        head, *rows = _cells(results, table)
        lines = [head, ["---"] * 3 + ["---:"] * (len(head) - 3), *rows]
        parts += [f"## {TITLES[table]}", "\n".join(f"| {' | '.join(line)} |" for line in lines)]
    parts += ["\n".join(f"- {note}" for note in _notes(results))]
    return "\n\n".join(parts) + "\n"


def latex(results: Results) -> str:
    """The same as two tabulars, and the networks and notes as text; needs no package."""
    parts = []
    for table in TABLES:
        head, *rows = [[_escaped(cell) for cell in line] for line in _cells(results, table)]
        lines = [" & ".join(line) + r" \\" for line in (head, *rows)]
        parts += [
            f"% {TITLES[table]}",
            r"\begin{tabular}{lll" + "r" * (len(head) - 3) + "}",
            r"\hline",
            lines[0],
            r"\hline",
            *lines[1:],
            r"\hline",
            r"\end{tabular}",
            "",
        ]
    notes = [rf"\item {_breakable(_escaped(note))}" for note in _notes(results)]
    return "\n".join([*parts, r"\begin{itemize}", *notes, r"\end{itemize}"]) + "\n"


def _cells(results: Results, table: str) -> list[list[str]]:
    """The table's lines of text, the head first; the paper's figures are in a line below the method's own."""
    names = TABLES[table]
    lines = [["base model", "method", "clips", *(FIGURES[name] for name in names)]]
    for row in results.rows:
        if row.table == table:
            clips = str(row.clips) if row.clips == row.of else f"{row.clips} of {row.of}"
            lines.append([row.model, row.method, clips if row.of else "", *_texts(row.figures, names)])
            if printed := PAPER.get((table, row.model, row.method)):
                lines.append([row.model, f"{row.method}, in the paper", "", *_texts(printed, names)])
    return lines


def _texts(figures: Mapping[str, float | None], names: Sequence[str]) -> list[str]:
    values = [figures.get(name) for name in names]
    return ["" if value is None else f"{value:.3f}" for value in values]


def _notes(results: Results) -> list[str]:
    here = {card.name for card in results.networks}
    flow = "RAFT" if "RAFT" in here else "DIS"
    tracker = "CoTracker" if "CoTracker" in here else flow
    subjects = f"Subjects: {', '.join(results.subjects)}."
    cards = [f"{card.name}: {network_text(card)}." for card in results.networks]
    return [subjects, results.pairs, *(note.format(flow=flow, tracker=tracker) for note in NOTES), *cards]


def _breakable(text: str) -> str:
    """With a sha256 in parts of 16 digits, between which a line may end."""
    return re.sub(r"[0-9a-f]{16}(?=[0-9a-f])", r"\g<0>\\allowbreak ", text)


def _escaped(text: str) -> str:
    return "".join(f"\\{character}" if character in "&%$#_{}" else character for character in text)
