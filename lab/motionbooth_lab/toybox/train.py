"""Train toybox: `python -m motionbooth_lab.toybox.train --out DIR`, on a GPU in bfloat16 or on a CPU in float32.

There are four stages, each limited in wall-clock minutes: the decoder, the denoiser on single pictures, the denoiser on
clips, and the decoder again. Every few minutes the training saves its state, a bundle of the averaged weights in
DIR/bundle and a sheet of samples in DIR/sheets. Losses and frames per second are in DIR/log.jsonl. Run again, the
command resumes where it stopped. `--start-from` initializes the weights from an earlier training or from the shipped
model. A stage of 0 minutes is skipped.
"""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Protocol

import numpy as np
import torch
import typer
from motionbooth.models.sources import TOYBOX
from transformers import CLIPTokenizer

from motionbooth_lab.toybox.autoencoder import build_autoencoder
from motionbooth_lab.toybox.bank import build_bank
from motionbooth_lab.toybox.batches import Batches
from motionbooth_lab.toybox.bundling import OWN_WORDS, load_bundle, save_bundle
from motionbooth_lab.toybox.decoder_stage import DecoderStage
from motionbooth_lab.toybox.denoiser_stage import Denoiser, DenoiserStage, average_copy
from motionbooth_lab.toybox.masters import Masters
from motionbooth_lab.toybox.network import build_scheduler, build_text_encoder, build_unet
from motionbooth_lab.toybox.sheets import decoder_sheet, sample_sheet
from motionbooth_lab.toybox.tokenizer import build_tokenizer

WARM_UP_STEPS = 100
LOG_EVERY_SECONDS = 15.0
WAIT_EVERY_STEPS = 10
SHIPPED = Path("shipped")
"""As --start-from: the model in this repository."""


@dataclass(frozen=True)
class TrainPlan:
    """The command's settings. `minutes`: of the four stages. `pictures`, `clips`: per step."""

    out: Path
    minutes: tuple[float, float, float, float]
    checkpoint_minutes: float
    pictures: int
    clips: int
    characters: int
    toys: int
    textures: int
    seed: int
    device: str
    clip_rate: float = 1e-3
    processes: int = 1
    start_from: Path | None = None


class Stage(Protocol):
    """A stage of the training."""

    masters: Masters

    @property
    def name(self) -> str: ...

    def learning_rate(self, share: float) -> float: ...

    def prepare(self, rng: np.random.Generator) -> Any: ...

    def train_step(self, prepared: Any, rate: float) -> dict[str, Any]: ...


def start_files(start_from: Path) -> tuple[Path, Path]:
    """The folder of the bundle and the file of own words to start from."""
    if start_from == SHIPPED:
        return TOYBOX, Path(__file__).with_name(OWN_WORDS)
    return start_from / "bundle", start_from / OWN_WORDS


class Training:
    """The networks in training, and the loop."""

    def __init__(self, plan: TrainPlan) -> None:
        self.plan = plan
        plan.out.mkdir(parents=True, exist_ok=True)
        device = torch.device(plan.device)
        self.tokenizer: CLIPTokenizer = build_tokenizer(plan.out / "tokenizer")
        torch.manual_seed(plan.seed)
        started = time.monotonic()
        bank = build_bank(plan.characters, plan.toys, plan.textures, plan.seed, device, plan.processes)
        print(f"{len(bank.sprites)} sprites in {time.monotonic() - started:.0f} s", flush=True)
        self.batches = Batches(bank, self.tokenizer)
        self.autoencoder = build_autoencoder()
        self.denoiser = Denoiser(build_unet(), build_text_encoder(self.tokenizer, self.batches.words.size))
        if plan.start_from is not None:
            load_bundle(*start_files(plan.start_from), self.autoencoder, self.denoiser)
        # Half precision only where it is faster; no dropout, so that resuming is deterministic.
        self.denoiser.to(device, torch.bfloat16 if device.type == "cuda" else torch.float32).eval()
        self.autoencoder.to(device)
        self.average = average_copy(self.denoiser)
        self.stage_index, self.steps, self.seconds = 0, 0, 0.0

    def run(self) -> None:
        """Run all stages that are not finished."""
        stage = self.resumed_stage()
        for index in range(self.stage_index, len(self.plan.minutes)):
            budget = self.plan.minutes[index] * 60
            if stage is None:
                self.seconds = 0.0
                stage = self.stage(index)
            if budget:
                self._run_stage(stage, budget)
            stage = None

    def stage(self, index: int) -> Stage:
        """A new stage: 0 decoder, 1 pictures, 2 clips, 3 decoder again."""
        self.stage_index = index
        plan = self.plan
        if index in (0, 3):
            return DecoderStage(self.autoencoder, self.batches.bank, plan.pictures // 2, 2e-3 if index == 0 else 8e-4)
        name = "pictures" if index == 1 else "clips"
        rates = (1.6e-3, 8e-4) if index == 1 else (plan.clip_rate, 2e-5)
        return DenoiserStage(name, self.denoiser, build_scheduler(), self.batches, plan.pictures, plan.clips, rates)

    def _run_stage(self, stage: Stage, budget: float) -> None:
        log, saved, before = Log(self.plan.out / "log.jsonl", stage.name), time.monotonic(), self.seconds
        started = time.monotonic()
        with ThreadPoolExecutor(1) as preparing:
            prepared = preparing.submit(stage.prepare, self.draws(self.steps))
            while (share := self.seconds / budget) < 1:
                ready = prepared.result()
                prepared = preparing.submit(stage.prepare, self.draws(self.steps + 1))
                log.add(self.take_step(stage, ready, share))
                if self.steps % WAIT_EVERY_STEPS == 0 and self.plan.device == "cuda":
                    torch.cuda.synchronize()  # steps are queued: keep the clock in sync
                self.seconds = before + time.monotonic() - started
                log.maybe_write(self.steps, self.seconds)
                if time.monotonic() - saved > self.plan.checkpoint_minutes * 60:
                    self.keep(stage)
                    saved = time.monotonic()
        self.keep(stage)

    def draws(self, step: int) -> np.random.Generator:
        """The generator of a step, seeded by its number, so that a resumed training equals an uninterrupted one."""
        return np.random.default_rng([self.plan.seed, self.stage_index, step])

    def take_step(self, stage: Stage, prepared: Any, share: float) -> dict[str, Any]:
        """Take one optimizer step at a `share` of the stage's time. Returns figures for the log."""
        rate = stage.learning_rate(share) * min(1.0, (stage.masters.steps + 1) / WARM_UP_STEPS)
        figures = stage.train_step(prepared, rate)
        self.steps += 1
        return figures

    def keep(self, stage: Stage) -> None:
        """Save the state to resume from, a bundle and a sample sheet."""
        if isinstance(stage, DenoiserStage):
            stage.masters.average_into(self.average)
        self.save_state(stage)
        save_bundle(self.plan.out, self.autoencoder, self.average, self.tokenizer, build_scheduler())
        sheets = self.plan.out / "sheets"
        sheets.mkdir(exist_ok=True)
        path = sheets / f"{stage.name}_{self.steps:06d}.png"
        if isinstance(stage, DenoiserStage):
            shown = average_copy(self.average)
            parts = (self.autoencoder, build_scheduler(), self.batches.bank, self.batches.words)
            sample_sheet(shown, *parts, path, stage.name == "clips")
        else:
            print(f"decoder: {decoder_sheet(self.autoencoder, self.batches.bank, path):.2f} dB", flush=True)

    def save_state(self, stage: Stage) -> None:
        """Save everything that the next step depends on, atomically."""
        state = {
            "stage": self.stage_index,
            "steps": self.steps,
            "seconds": self.seconds,
            "autoencoder": self.autoencoder.state_dict(),
            "denoiser": self.denoiser.state_dict(),
            "masters": stage.masters.state(),
        }
        partial = self.plan.out / "state.partial"
        torch.save(state, partial)
        partial.replace(self.plan.out / "state.pt")

    def resumed_stage(self) -> Stage | None:
        """The saved stage, or None."""
        path = self.plan.out / "state.pt"
        if not path.exists():
            return None
        state: dict[str, Any] = torch.load(path, map_location=self.plan.device, weights_only=True)
        self.steps, self.seconds = state["steps"], state["seconds"]
        self.autoencoder.load_state_dict(state["autoencoder"])
        self.denoiser.load_state_dict(state["denoiser"])
        stage = self.stage(state["stage"])
        stage.masters.restore(state["masters"])
        if isinstance(stage, DenoiserStage):
            stage.masters.average_into(self.average)
        else:
            self.average.load_state_dict(self.denoiser.float().state_dict())
        return stage


class Log:
    """Averages the figures of many steps and writes them every few seconds as a JSON line and to the terminal."""

    def __init__(self, path: Path, stage: str) -> None:
        self._path, self._stage = path, stage
        self._sums: dict[str, list[Any]] = {}
        self._written = time.monotonic()

    def add(self, figures: dict[str, Any]) -> None:
        for name, value in figures.items():
            self._sums.setdefault(name, []).append(value)

    def maybe_write(self, steps: int, seconds: float) -> None:
        """Write the averages if it is time."""
        passed = time.monotonic() - self._written
        if passed < LOG_EVERY_SECONDS:
            return
        line: dict[str, Any] = {"stage": self._stage, "step": steps, "seconds": round(seconds, 1)}
        frames = sum(self._sums.pop("frames", []))
        line |= {name: round(float(np.mean([float(v) for v in values])), 5) for name, values in self._sums.items()}
        line["frames_a_second"] = round(frames / (time.monotonic() - self._written), 1)
        with self._path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        print(line, flush=True)
        self._sums, self._written = {}, time.monotonic()


def main(
    out: Annotated[Path, typer.Option(help="Folder for the state, log, sample sheets and bundle.")],
    decoder_minutes: float = 20.0,
    picture_minutes: float = 600.0,
    clip_minutes: float = 900.0,
    finish_minutes: float = 20.0,
    checkpoint_minutes: float = 10.0,
    pictures: Annotated[int, typer.Option(help="Pictures per step.")] = 16,
    clips: Annotated[int, typer.Option(help="Clips per step.")] = 4,
    characters: Annotated[int, typer.Option(help="Characters in the bank, with 26 sprites each.")] = 1000,
    toys: Annotated[int, typer.Option(help="Flat toys in the bank.")] = 300,
    textures: Annotated[int, typer.Option(help="Textures per place.")] = 16,
    seed: int = 1,
    device: Annotated[str, typer.Option(help="cuda or cpu.")] = "cuda" if torch.cuda.is_available() else "cpu",
    clip_rate: Annotated[float, typer.Option(help="Initial learning rate on clips.")] = 1e-3,
    processes: Annotated[int, typer.Option(help="Processes for drawing the textures.")] = 1,
    start_from: Annotated[
        Path | None, typer.Option(help='The --out of an earlier training, or "shipped" for the bundled model.')
    ] = None,
) -> None:
    """Train toybox from scratch or from a bundle. Run again to resume."""
    minutes = (decoder_minutes, picture_minutes, clip_minutes, finish_minutes)
    plan = TrainPlan(
        out,
        minutes,
        checkpoint_minutes,
        pictures,
        clips,
        characters,
        toys,
        textures,
        seed,
        device,
        clip_rate,
        processes,
        start_from,
    )
    Training(plan).run()


if __name__ == "__main__":
    typer.run(main)
