"""`motionbooth bench paper`: the paper's tables, with the user's subjects, base models and measuring networks.

The subject table has each recipe of the trainer on every subject, box pair, camera and seed; the camera table has the
camera pairs without a subject, with the method's camera control and with its rivals. Every trained subject, clip and
measurement is a file in the output folder, so an interrupted bench continues where it stopped. What has other inputs
than the file there is done again.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec
from motionbooth_protocol.client import Client
from motionbooth_protocol.connection import Connection
from motionbooth_protocol.jobs import GenerateSpec, spec_digest
from motionbooth_protocol.motion import SubjectTrack
from rich.console import Console
from rich.progress import Progress

from motionbooth.bench.paper_cells import (
    PAIRS,
    Cell,
    Extent,
    Pairs,
    Subject,
    camera_cells,
    subject_cells,
    subjects_in,
)
from motionbooth.bench.paper_engines import Backend, Engine, Finish, ThisProcess, run_rival
from motionbooth.bench.paper_tables import Results, Row, latex, markdown, row_of
from motionbooth.evaluation.networks import Networks, load_networks
from motionbooth.evaluation.paper_figures import PaperReport, paper_report
from motionbooth.evaluation.report import shot_report
from motionbooth.export.engine_shot import engine_shot
from motionbooth.export.point_tracks import point_tracks
from motionbooth.finetuning.recipes import recipe_named
from motionbooth.generation.video import read_clip, spread_evenly
from motionbooth.models.sources import file_sha256

RIVALS = ("AnimateDiff", "CameraCtrl")
"""Other systems that the paper compares camera control with. Each has an empty row unless a rival's name begins so."""

Item = TypeVar("Item")


class Measured(msgspec.Struct, frozen=True):
    """A cell's file: its report, and a digest of all that it depends on."""

    inputs: str
    report: PaperReport


@dataclass(frozen=True)
class PaperBench:
    """A run of the bench in the folder `out`. `on_cell` is called with (cells done, all cells)."""

    extent: Extent
    subjects: Sequence[Subject]
    pairs: Pairs
    networks: Networks
    engine: Engine
    out: Path
    on_cell: Callable[[int, int], None] = lambda done, count: None

    def run(self) -> Results:
        """Do what is missing. Also if it is interrupted, write results.json, .md and .tex. Raises MotionBoothError."""
        for recipe in self.extent.recipes:
            recipe_named(recipe)
        cells = [*self._cells()]
        reports: dict[Path, PaperReport] = {}
        try:
            self._train()
            for cell, finish in _ahead(cells, self._begin, self.engine.ahead):
                finish()
                reports[cell.path] = self._measure(cell)
                self.on_cell(len(reports), len(cells))
        finally:
            results = self._results(cells, reports)
            self._write(results)
        return results

    def _cells(self) -> Iterator[Cell]:
        for model in self.extent.models:
            info, _ = self.engine.model(model)
            for recipe in self.extent.recipes:
                for subject in self.subjects:
                    yield from subject_cells(self.extent, self.pairs, info, recipe, subject)
            yield from camera_cells(self.extent, self.pairs, info)

    def _weights(self, model: str, recipe: str, subject: Subject) -> Path:
        return self.out / "trained" / model / recipe / f"{subject.name}.safetensors"

    def _train(self) -> None:
        wanted = [
            (model, recipe, subject)
            for model in self.extent.models
            for recipe in self.extent.recipes
            for subject in self.subjects
        ]

        def begin(each: tuple[str, str, Subject]) -> Finish:
            model, recipe, subject = each
            spec, files = subject.training(model, recipe, self.extent.training_steps)
            out = self._weights(*each)
            note = out.with_suffix(".inputs")
            inputs = f"{spec_digest(spec)} {self.engine.model(model)[1]}"
            if out.is_file() and note.is_file() and note.read_text(encoding="utf-8") == inputs:
                return lambda: None
            finish = self.engine.begin(spec, files, out)

            def finish_and_note() -> None:
                finish()
                note.write_text(inputs, encoding="utf-8")

            return finish_and_note

        for _, finish in _ahead(wanted, begin, self.engine.ahead):
            finish()

    def _begin(self, cell: Cell) -> Finish:
        """Begin to generate the cell's clip, if it is not there."""
        clip = self._file(cell, ".mp4")
        note = clip.with_suffix(".inputs")
        inputs = self._inputs(cell)
        if clip.is_file() and note.is_file() and note.read_text(encoding="utf-8") == inputs:
            return lambda: None
        if cell.method in self.extent.rivals:
            command = self.extent.rivals[cell.method]

            def generate() -> None:
                run_rival(command, cell.spec, clip)
        else:
            spec, files = self._with_weights(cell)
            generate = self.engine.begin(spec, files, clip)

        def finish() -> None:
            generate()
            note.write_text(inputs, encoding="utf-8")

        return finish

    def _with_weights(self, cell: Cell) -> tuple[GenerateSpec, dict[str, Path]]:
        """The cell's spec with its trained subject, and the file of the subject by its sha256."""
        if cell.subject is None:
            return cell.spec, {}
        path = self._weights(cell.model, cell.method, cell.subject)
        sha256 = file_sha256(path)
        shot = cell.spec.shot
        tracks: list[SubjectTrack] = [msgspec.structs.replace(track, weights=sha256) for track in shot.subjects]
        shot = msgspec.structs.replace(shot, subjects=tracks)
        return msgspec.structs.replace(cell.spec, shot=shot), {sha256: path}

    def _inputs(self, cell: Cell) -> str:
        """What the cell's clip depends on."""
        spec, _ = self._with_weights(cell)
        return f"{spec_digest(spec)} {self.engine.model(cell.model)[1]} {self.extent.rivals.get(cell.method, '')}"

    def _measure(self, cell: Cell) -> PaperReport:
        """The report of the cell's clip, from its file if it was measured before by the same networks."""
        clip, file = self._file(cell, ".mp4"), self._file(cell, ".json")
        subject = cell.subject
        pictures = (
            [] if subject is None else [picture.rgb.tobytes() + picture.mask.tobytes() for picture in subject.pictures]
        )
        weights = [card.sha256 for card in self.networks.cards]
        inputs = _sha256(repr([cell.asked, weights]).encode(), clip.read_bytes(), *pictures)
        try:
            known = msgspec.json.decode(file.read_bytes(), type=Measured)
            if known.inputs == inputs:
                return known.report
        except (FileNotFoundError, msgspec.DecodeError):
            pass
        frames, _ = read_clip(clip)
        frames = spread_evenly(frames, min(len(frames), cell.asked.shot.frames))
        height, width = frames.shape[1:3]
        shot = engine_shot(cell.asked.shot, len(frames), (width, height))
        names = [track.name for track in shot.subjects]
        appearances = {} if subject is None else dict.fromkeys(names, subject.appearance)
        views = {} if subject is None else dict.fromkeys(names, subject.views)
        shown = {} if subject is None else dict.fromkeys(names, subject.pictures)
        motion = shot_report(frames, shot, appearances, views)
        tracks = point_tracks(shot, (width, height))
        asked = msgspec.structs.replace(cell.asked, shot=shot)
        report = paper_report(frames, asked, motion, shown, self.networks, tracks)
        file.write_bytes(msgspec.json.encode(Measured(inputs, report)))
        return report

    def _file(self, cell: Cell, suffix: str) -> Path:
        return self.out / "clips" / cell.path.parent / f"{cell.path.name}{suffix}"

    def _results(self, cells: Sequence[Cell], reports: dict[Path, PaperReport]) -> Results:
        groups: dict[tuple[str, str, str], list[Cell]] = {}
        for cell in cells:
            groups.setdefault((cell.table, cell.model, cell.method), []).append(cell)
        rows = [
            row_of(*key, [(reports[c.path], c.asked.shot.frames) for c in group if c.path in reports], len(group))
            for key, group in groups.items()
        ]
        rows += [
            Row("camera", model, rival, 0, 0)
            for model in self.extent.models
            for rival in RIVALS
            if not any(name.startswith(rival) for name in self.extent.rivals)
        ]
        measured = next(iter(reports.values()), None)
        cards = [] if measured is None or measured.paper is None else measured.paper.networks
        return Results(self.pairs.about, [subject.name for subject in self.subjects], cards, rows)

    def _write(self, results: Results) -> None:
        self.out.mkdir(parents=True, exist_ok=True)
        json = msgspec.json.format(msgspec.json.encode(results), indent=2) + b"\n"
        (self.out / "results.json").write_bytes(json)
        (self.out / "results.md").write_text(markdown(results), encoding="utf-8")
        (self.out / "results.tex").write_text(latex(results), encoding="utf-8")


def bench_paper(
    extent: Extent, subjects: Path, measures: Path, out: Path, pairs: Path | None = None, connection: Path | None = None
) -> None:
    """Run the bench on a backend (`connection`) or in this process, and print its tables. Raises MotionBoothError."""
    read = Pairs.read(pairs or PAIRS)
    found, networks, console = subjects_in(subjects), load_networks(measures), Console(markup=False)
    for name, command in networks.missing.items():
        console.print(f"{name} is missing, and its figures stay empty. Get it with: {command}", soft_wrap=True)
    with Progress(console=console, transient=True) as progress, ExitStack() as stack:
        bar = progress.add_task("training subjects", total=None)
        engine: Engine = ThisProcess()
        if connection is not None:
            engine = Backend(stack.enter_context(Client(Connection.read(connection))))

        def on_cell(done: int, count: int) -> None:
            progress.update(bar, description="clips", completed=done, total=count)
            if not console.is_terminal:
                console.print(f"{done} of {count} clips are measured.")

        results = PaperBench(extent, found, read, networks, engine, out, on_cell).run()
    console.print(markdown(results), highlight=False, soft_wrap=True)
    console.print(f"The tables are in {out}: results.json, results.md and results.tex.", soft_wrap=True)


def _ahead(items: Iterable[Item], begin: Callable[[Item], Finish], ahead: int) -> Iterator[tuple[Item, Finish]]:
    """Each item with what finishes it, in order; `ahead` of them are begun before the first is finished."""
    begun: deque[tuple[Item, Finish]] = deque()
    for item in items:
        begun.append((item, begin(item)))
        if len(begun) >= ahead:
            yield begun.popleft()
    yield from begun


def _sha256(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()
