"""Train wantoy on a CPU or a GPU: `python -m motionbooth_lab.wantoy.train --out DIR`.

The transformer and the text encoder are trained on single pictures, then on clips; the decoder apart, with `--decoder`,
since the encoder is fixed. Every few minutes the training saves its state and a bundle of the averaged weights in
DIR/bundle. Losses are in DIR/log.jsonl. Run again, the command resumes where it stopped.
"""

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from diffusers import AutoencoderKLWan
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from motionbooth_lab.toybox.bank import Bank, build_bank
from motionbooth_lab.toybox.train import Log
from motionbooth_lab.wantoy.batches import Batch, Batches, Script, Scripts, Words
from motionbooth_lab.wantoy.bundling import save_bundle
from motionbooth_lab.wantoy.decoder import DECODER, started_autoencoder, train_decoder
from motionbooth_lab.wantoy.network import FRAMES, Denoiser
from motionbooth_lab.wantoy.stages import DenoiserTraining
from motionbooth_lab.wantoy.tokenizer import build_tokenizer

TOYS = 200

PICTURE_STEP_SHARE = 0.2
"""Share of steps on pictures in the clip stage."""

FIRST_RATE, PICTURE_RATE, CLIP_RATE, LAST_RATE = 2e-3, 1.2e-3, 1.2e-3, 3e-5
WARM_UP_STEPS = 60
CHECKPOINT_SECONDS = 240.0
WAIT_EVERY_STEPS = 10


@dataclass(frozen=True)
class Plan:
    """The command's settings. `minutes`: of the pictures and of the clips. `pictures`, `clips`: per step."""

    out: Path
    minutes: tuple[float, float]
    pictures: int = 16
    clips: int = 6
    seed: int = 1
    device: str = "cpu"
    processes: int = 1
    compiled: bool = True


@dataclass(frozen=True)
class Drawing(IterableDataset[Script | Batch]):
    """What the steps from `start` on show, each from its own generator, drawn in processes beside the training.

    `batches`: composes on the CPU; None if the training composes. `as_clips`: of the clip stage.
    """

    scripts: Scripts
    batches: Batches | None
    plan: Plan
    as_clips: bool
    start: int

    def __iter__(self) -> Iterator[Script | Batch]:
        torch.set_num_threads(1)
        worker = get_worker_info()
        first, stride = (worker.id, worker.num_workers) if worker is not None else (0, 1)
        for step in itertools.count(self.start + first, stride):
            rng = np.random.default_rng([self.plan.seed, self.as_clips, step])
            clips = self.as_clips and rng.random() >= PICTURE_STEP_SHARE
            script = self.scripts.draw(*(self.plan.clips, FRAMES) if clips else (self.plan.pictures, 1), rng)
            yield script if self.batches is None else self.batches.compose(script)


class Training:
    """The networks in training, and the loop."""

    def __init__(self, plan: Plan, bank: Bank) -> None:
        torch.manual_seed(plan.seed)
        self.plan = plan
        self.tokenizer = build_tokenizer()
        self.scripts = Scripts(bank, Words(self.tokenizer, len(bank.entries)))
        self.batches = Batches(bank.to(plan.device))
        self._bank = bank
        self.training = DenoiserTraining(Denoiser(self.scripts.words.size).to(plan.device), plan.compiled)
        self.stage, self.seconds = 0, 0.0
        self.resume()

    @cached_property
    def autoencoder(self) -> AutoencoderKLWan:
        """With the linear decoder, which takes a few seconds to fit."""
        return started_autoencoder(self._bank, self.plan.seed)

    def run(self) -> None:
        """Run both stages, or what is left of them."""
        for stage in range(self.stage, 2):
            if stage != self.stage:
                self.stage, self.seconds = stage, 0.0
            self._run_stage()

    def _run_stage(self) -> None:
        budget, before, started = 60 * self.plan.minutes[self.stage], self.seconds, time.monotonic()
        saved = started
        drawing = self.drawing()
        log = Log(self.plan.out / "log.jsonl", ("pictures", "clips")[self.stage])
        for drawn in DataLoader(drawing, batch_size=None, num_workers=self.plan.processes, prefetch_factor=4):
            if self.seconds >= budget:
                break
            batch = self.batches.compose(drawn) if isinstance(drawn, Script) else drawn
            count, _, latent_frames = batch.latents.shape[:3]
            figures = self.training.step(batch, self.rate(self.seconds / budget))
            kind = "clip_loss" if latent_frames > 1 else "picture_loss"
            log.add({kind: figures["loss"], "gradient": figures["gradient"], "frames": float(count * latent_frames)})
            if self.training.steps % WAIT_EVERY_STEPS == 0 and self.plan.device == "cuda":
                torch.cuda.synchronize()  # steps are queued: keep the clock in sync
            now = time.monotonic()
            self.seconds = before + now - started
            log.maybe_write(self.training.steps, self.seconds)
            if now - saved > CHECKPOINT_SECONDS:
                self.keep()
                saved = now
        self.keep()

    def drawing(self) -> Drawing:
        """What the next steps show."""
        on_cpu = self.batches if self.plan.device == "cpu" else None
        return Drawing(self.scripts, on_cpu, self.plan, self.stage == 1, self.training.steps)

    def rate(self, share: float) -> float:
        """The learning rate: falls over the pictures, and over the clips to almost 0, each by half a cosine."""
        high, low = (FIRST_RATE, PICTURE_RATE) if self.stage == 0 else (CLIP_RATE, LAST_RATE)
        warm = min(1.0, (self.training.steps + 1) / WARM_UP_STEPS)
        return warm * (low + (high - low) * (0.5 + 0.5 * float(np.cos(np.pi * min(share, 1.0)))))

    def keep(self) -> None:
        """Save the state to resume from, and a bundle."""
        state = self.training.state() | {"stage": self.stage, "seconds": self.seconds}
        torch.save(state, self.plan.out / "state.partial")
        (self.plan.out / "state.partial").replace(self.plan.out / "state.pt")
        if (self.plan.out / DECODER).exists():
            self.autoencoder.decoder.load_state_dict(torch.load(self.plan.out / DECODER, weights_only=True)["average"])
        save_bundle(self.plan.out / "bundle", self.autoencoder, self.training.average, self.tokenizer)

    def resume(self) -> None:
        """Go on from the saved state, if there is one."""
        if (self.plan.out / "state.pt").exists():
            state = torch.load(self.plan.out / "state.pt", map_location=self.plan.device, weights_only=True)
            self.training.restore(state)
            self.stage, self.seconds = state["stage"], state["seconds"]


def main(
    out: Annotated[Path, typer.Option(help="Folder for the state, log and bundle.")],
    picture_minutes: float = 15.0,
    clip_minutes: float = 60.0,
    pictures: Annotated[int, typer.Option(help="Pictures per step.")] = 16,
    clips: Annotated[int, typer.Option(help="Clips per step.")] = 6,
    characters: Annotated[int, typer.Option(help="Characters in the bank, with 26 sprites each.")] = 40,
    textures: Annotated[int, typer.Option(help="Textures per place.")] = 8,
    device: Annotated[str, typer.Option(help="cuda or cpu.")] = "cuda" if torch.cuda.is_available() else "cpu",
    processes: Annotated[int, typer.Option(help="Processes for drawing the bank and the batches.")] = 1,
    decoder: Annotated[bool, typer.Option(help="Train the decoder instead.")] = False,
    decoder_minutes: float = 20.0,
    seed: int = 1,
) -> None:
    """Train wantoy. Run again to resume."""
    torch.set_num_threads(1)  # the model is small: a second thread mostly waits
    torch.set_float32_matmul_precision("high")  # on a GPU
    out.mkdir(parents=True, exist_ok=True)
    bank = build_bank(characters, TOYS, textures, seed, processes=processes)
    if decoder:
        train_decoder(out, bank, 60 * decoder_minutes, seed)
        return
    compiled = device == "cpu"  # on a GPU, compilation would take a large share of a short training
    minutes = (picture_minutes, clip_minutes)
    Training(Plan(out, minutes, pictures, clips, seed, device, processes, compiled), bank).run()


if __name__ == "__main__":
    typer.run(main)
