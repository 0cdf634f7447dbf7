"""Train wantoy on a CPU: `python -m motionbooth_lab.wantoy.train --out DIR`.

The transformer and the text encoder are trained on single pictures, then on clips; the decoder apart, with `--decoder`,
since the encoder is fixed. Every few minutes the training saves its state and a bundle of the averaged weights in
DIR/bundle. Losses are in DIR/log.jsonl. Run again, the command resumes where it stopped.
"""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from torch.utils.data import DataLoader, IterableDataset

from motionbooth_lab.toybox.bank import Bank, build_bank
from motionbooth_lab.toybox.train import Log
from motionbooth_lab.wantoy.batches import Batch, Batches, Words
from motionbooth_lab.wantoy.bundling import save_bundle
from motionbooth_lab.wantoy.decoder import DECODER, started_autoencoder, train_decoder
from motionbooth_lab.wantoy.network import FRAMES, Denoiser
from motionbooth_lab.wantoy.stages import DenoiserTraining
from motionbooth_lab.wantoy.tokenizer import build_tokenizer

CHARACTERS, TOYS, TEXTURES = 40, 200, 8
PICTURES, CLIPS = 16, 6
"""Per step."""

PICTURE_STEP_SHARE = 0.2
"""Share of steps on pictures in the clip stage."""

FIRST_RATE, PICTURE_RATE, CLIP_RATE, LAST_RATE = 2e-3, 1.2e-3, 1.2e-3, 3e-5
WARM_UP_STEPS = 60
CHECKPOINT_SECONDS = 240.0


class Drawing(IterableDataset[Batch]):
    """The batches of the steps from `start` on, drawn in a process beside the training, each from its own generator."""

    def __init__(self, batches: Batches, seed: int, clips: bool, start: int) -> None:
        self._batches, self._seed, self._clips, self._start = batches, seed, clips, start

    def __iter__(self) -> Iterator[Batch]:
        torch.set_num_threads(1)
        step = self._start
        while True:
            rng = np.random.default_rng([self._seed, self._clips, step])
            as_clips = self._clips and rng.random() >= PICTURE_STEP_SHARE
            yield self._batches.draw(*(CLIPS, FRAMES) if as_clips else (PICTURES, 1), rng)
            step += 1


class Training:
    """The networks in training, and the loop. `minutes`: of the pictures and of the clips."""

    def __init__(self, out: Path, minutes: tuple[float, float], bank: Bank, seed: int, compiled: bool = True) -> None:
        torch.manual_seed(seed)
        self.out, self.seed = out, seed
        self.budgets = [60 * each for each in minutes]
        self.tokenizer = build_tokenizer()
        self.batches = Batches(bank, Words(self.tokenizer, len(bank.entries)))
        self.autoencoder = started_autoencoder(bank, seed)
        self.training = DenoiserTraining(Denoiser(self.batches.words.size), compiled)
        self.stage, self.seconds = 0, 0.0
        self.resume()

    def run(self) -> None:
        """Run both stages, or what is left of them."""
        for stage in range(self.stage, 2):
            if stage != self.stage:
                self.stage, self.seconds = stage, 0.0
            self._run_stage()

    def _run_stage(self) -> None:
        budget, before, started = self.budgets[self.stage], self.seconds, time.monotonic()
        saved = started
        drawing = Drawing(self.batches, self.seed, self.stage == 1, self.training.steps)
        log = Log(self.out / "log.jsonl", ("pictures", "clips")[self.stage])
        for batch in DataLoader(drawing, batch_size=None, num_workers=1, prefetch_factor=6):
            if self.seconds >= budget:
                break
            count, _, latent_frames = batch.latents.shape[:3]
            figures = self.training.step(batch, self.rate(self.seconds / budget))
            kind = "clip_loss" if latent_frames > 1 else "picture_loss"
            log.add({kind: figures["loss"], "gradient": figures["gradient"], "frames": float(count * latent_frames)})
            now = time.monotonic()
            self.seconds = before + now - started
            log.maybe_write(self.training.steps, self.seconds)
            if now - saved > CHECKPOINT_SECONDS:
                self.keep()
                saved = now
        self.keep()

    def rate(self, share: float) -> float:
        """The learning rate: falls over the pictures, and over the clips to almost 0, each by half a cosine."""
        high, low = (FIRST_RATE, PICTURE_RATE) if self.stage == 0 else (CLIP_RATE, LAST_RATE)
        warm = min(1.0, (self.training.steps + 1) / WARM_UP_STEPS)
        return warm * (low + (high - low) * (0.5 + 0.5 * float(np.cos(np.pi * min(share, 1.0)))))

    def keep(self) -> None:
        """Save the state to resume from, and a bundle."""
        state = self.training.state() | {"stage": self.stage, "seconds": self.seconds}
        torch.save(state, self.out / "state.partial")
        (self.out / "state.partial").replace(self.out / "state.pt")
        if (self.out / DECODER).exists():
            self.autoencoder.decoder.load_state_dict(torch.load(self.out / DECODER, weights_only=True)["average"])
        save_bundle(self.out / "bundle", self.autoencoder, self.training.average, self.tokenizer)

    def resume(self) -> None:
        """Go on from the saved state, if there is one."""
        if (self.out / "state.pt").exists():
            state = torch.load(self.out / "state.pt", weights_only=True)
            self.training.restore(state)
            self.stage, self.seconds = state["stage"], state["seconds"]


def main(
    out: Annotated[Path, typer.Option(help="Folder for the state, log and bundle.")],
    picture_minutes: float = 15.0,
    clip_minutes: float = 60.0,
    decoder: Annotated[bool, typer.Option(help="Train the decoder instead.")] = False,
    decoder_minutes: float = 20.0,
    seed: int = 1,
) -> None:
    """Train wantoy. Run again to resume."""
    torch.set_num_threads(1)  # the model is small: a second thread mostly waits
    out.mkdir(parents=True, exist_ok=True)
    bank = build_bank(CHARACTERS, TOYS, TEXTURES, seed)
    if decoder:
        train_decoder(out, bank, 60 * decoder_minutes, seed)
    else:
        Training(out, (picture_minutes, clip_minutes), bank, seed).run()


if __name__ == "__main__":
    typer.run(main)
