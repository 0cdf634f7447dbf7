"""Train toybox from nothing: `python -m motionbooth.models.toybox.train --out DIR`.

Four stages, each for a number of minutes by the clock: the decoder, the denoiser on single pictures, the denoiser on
clips, and the decoder again. Every few minutes the state is saved, a bundle of the averaged weights is written to
DIR/bundle, and a sheet of samples to DIR/sheets. Started again, it goes on where it stopped. Losses are in
DIR/log.jsonl. With `--start-from BUNDLE` a finished bundle is trained further; a stage of 0 minutes is left out.
"""

import json
import os
import time
from dataclasses import dataclass
from multiprocessing import parent_process
from pathlib import Path
from typing import Annotated, Any, Protocol

import numpy as np
import torch
import torch.distributed as dist
import typer
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn
from transformers import CLIPTokenizer

from motionbooth.models.toybox.autoencoder import build_autoencoder
from motionbooth.models.toybox.bundling import load_bundle, save_bundle
from motionbooth.models.toybox.dataset import DrawnClips, load_or_draw
from motionbooth.models.toybox.decoder_stage import DecoderStage
from motionbooth.models.toybox.denoiser_stage import Denoiser, DenoiserStage, average_copy
from motionbooth.models.toybox.network import build_scheduler, build_text_encoder, build_unet
from motionbooth.models.toybox.ranks import Ranks, StageClock
from motionbooth.models.toybox.sheets import decoder_sheet, sample_sheet
from motionbooth.models.toybox.tokenizer import build_tokenizer

GRADIENT_CLIP = 1.0
WARM_UP_STEPS = 100
EMA_EVERY_STEPS, EMA_DECAY = 4, 0.992
LOG_EVERY_SECONDS = 15.0

_MOVE_AVERAGE = torch.optim.swa_utils.get_ema_multi_avg_fn(EMA_DECAY)


@dataclass(frozen=True)
class TrainPlan:
    """What the command line asks for. Times in minutes."""

    out: Path
    decoder_minutes: float
    picture_minutes: float
    clip_minutes: float
    finish_minutes: float
    checkpoint_minutes: float
    clips: int
    pixel_clips: int
    processes: int
    seed: int
    start_from: Path | None = None


class Stage(Protocol):
    """One part of the training, as the loop below sees it."""

    @property
    def name(self) -> str: ...

    @property
    def trained(self) -> nn.Module: ...

    @property
    def evaluated(self) -> nn.Module: ...

    @property
    def optimizer(self) -> torch.optim.Optimizer: ...

    def learning_rate(self, share: float) -> float: ...

    def loss(self, rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]: ...


class Training:
    """All that is trained, in one of the processes."""

    def __init__(self, plan: TrainPlan, ranks: Ranks) -> None:
        self.plan, self.ranks = plan, ranks
        plan.out.mkdir(parents=True, exist_ok=True)
        if ranks.is_first and plan.start_from is None:
            build_tokenizer(plan.out / "tokenizer")
        ranks.barrier()
        self.tokenizer = CLIPTokenizer.from_pretrained((plan.start_from or plan.out) / "tokenizer")
        torch.manual_seed(plan.seed)
        self.autoencoder = build_autoencoder()
        self.denoiser = Denoiser(build_unet(), build_text_encoder(self.tokenizer))
        if plan.start_from is not None:
            load_bundle(plan.start_from, self.autoencoder, self.denoiser)
        self.average = average_copy(self.denoiser)
        self.clips = self._drawn_clips()
        self.stage_index, self.step, self.seconds = 0, 0, 0.0

    def _drawn_clips(self) -> DrawnClips:
        plan, rank = self.plan, self.ranks.rank
        path = plan.out / f"clips_{rank}_of_{self.ranks.size}.npz"
        share = self.ranks.size
        return load_or_draw(path, [plan.seed, rank], plan.clips // share, plan.pixel_clips // share, self.tokenizer)

    def run(self) -> None:
        """All stages that are not finished yet."""
        stage = self.resumed_stage()
        plan = self.plan
        budgets = (plan.decoder_minutes, plan.picture_minutes, plan.clip_minutes, plan.finish_minutes)
        for index in range(self.stage_index, len(budgets)):
            if stage is None:
                stage = self.stage(index)
                self.step, self.seconds = 0, 0.0
            self._run_stage(stage, budgets[index] * 60)
            stage = None
        self.ranks.barrier()

    def stage(self, index: int) -> Stage:
        """A stage from its start: 0 the decoder, 1 pictures, 2 clips, 3 the decoder again."""
        self.stage_index = index
        if index in (0, 3):
            return DecoderStage(self.autoencoder, self.clips)
        empty = self.tokenizer("", padding="max_length", return_tensors="pt").input_ids
        name = "pictures" if index == 1 else "clips"
        return DenoiserStage(name, self.denoiser, self.average, build_scheduler(), self.clips, empty)

    def _run_stage(self, stage: Stage, budget: float) -> None:
        clock = StageClock(self.ranks, self.seconds, budget)
        log, saved = Log(self.plan.out / "log.jsonl", stage.name), time.monotonic()
        stage.trained.train()
        while (share := clock.tick()) < 1:
            _end_with_parent()
            log.add(self.take_step(stage, share))
            self.seconds = clock.seconds
            due = time.monotonic() - saved > self.plan.checkpoint_minutes * 60
            if self.ranks.is_first:
                log.maybe_write(self.step, self.seconds)
            if self._agree(due):
                self._keep(stage)
                saved = time.monotonic()
        self._keep(stage)

    def _agree(self, due: bool) -> bool:
        """The first process decides for all."""
        flag = torch.tensor(float(due and self.ranks.is_first))
        return float(self.ranks.average(flag)) > 0

    def take_step(self, stage: Stage, share: float) -> dict[str, float]:
        """One optimiser step, a `share` of the stage's time being spent; returns figures for the log.

        All chance is seeded by the step's number, so that a resumed training goes on as an unbroken one would.
        """
        seed = [self.plan.seed, self.stage_index, self.step, self.ranks.rank]
        rng = np.random.default_rng(seed)
        torch.manual_seed(int(rng.integers(2**31)))
        for group in stage.optimizer.param_groups:
            group["lr"] = stage.learning_rate(share) * min(1.0, (self.step + 1) / WARM_UP_STEPS)
        stage.optimizer.zero_grad(set_to_none=True)
        loss, figures = stage.loss(rng)
        loss.backward()
        self.ranks.average_gradients(stage.trained.parameters())
        norm = nn.utils.clip_grad_norm_(stage.trained.parameters(), GRADIENT_CLIP)
        stage.optimizer.step()
        if self.step % EMA_EVERY_STEPS == 0:
            _follow(stage.evaluated, stage.trained)
        self.step += 1
        return {"loss": loss.item(), "gradient": float(norm), **figures}

    def _keep(self, stage: Stage) -> None:
        """The state to resume from, a bundle and a sheet of samples; by the first process."""
        if self.ranks.is_first:
            self.save_state(stage)
            self._show(stage)
        self.ranks.barrier()

    def save_state(self, stage: Stage) -> None:
        """Write down all that the next step depends on, at once or not at all."""
        state = {
            "stage": self.stage_index,
            "step": self.step,
            "seconds": self.seconds,
            "autoencoder": self.autoencoder.state_dict(),
            "denoiser": self.denoiser.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": stage.optimizer.state_dict(),
        }
        partial = self.plan.out / "state.partial"
        torch.save(state, partial)
        partial.replace(self.plan.out / "state.pt")

    def _show(self, stage: Stage) -> None:
        with torch.random.fork_rng():
            sheets = self.plan.out / "sheets"
            sheets.mkdir(exist_ok=True)
            path = sheets / f"{stage.name}_{self.step:06d}.png"
            if isinstance(stage, DecoderStage):
                print(f"decoder: {decoder_sheet(self.autoencoder, path):.2f} dB on unseen clips", flush=True)
            bundle = self.plan.out / "bundle"
            save_bundle(bundle, self.autoencoder, self.average, self.tokenizer, build_scheduler())
            if isinstance(stage, DenoiserStage):
                sample_sheet(bundle, path, is_clips=stage.name == "clips", seed=self.plan.seed)

    def resumed_stage(self) -> Stage | None:
        """The stage that was written down, as it was; None where nothing was."""
        path = self.plan.out / "state.pt"
        if not path.exists():
            return None
        state: dict[str, Any] = torch.load(path, weights_only=True)
        self.stage_index, self.step, self.seconds = state["stage"], state["step"], state["seconds"]
        self.autoencoder.load_state_dict(state["autoencoder"])
        self.denoiser.load_state_dict(state["denoiser"])
        self.average.load_state_dict(state["average"])
        stage = self.stage(self.stage_index)
        stage.optimizer.load_state_dict(state["optimizer"])
        return stage


class Log:
    """Averages of the figures of many steps, one JSON line every few seconds, and the same on the terminal."""

    def __init__(self, path: Path, stage: str) -> None:
        self._path, self._stage = path, stage
        self._sums: dict[str, list[float]] = {}
        self._written = time.monotonic()

    def add(self, figures: dict[str, float]) -> None:
        for name, value in figures.items():
            self._sums.setdefault(name, []).append(value)

    def maybe_write(self, step: int, seconds: float) -> None:
        """Write what has gathered, if it is time."""
        passed = time.monotonic() - self._written
        if passed < LOG_EVERY_SECONDS:
            return
        line = {"stage": self._stage, "step": step, "seconds": round(seconds, 1)}
        line |= {name: round(float(np.mean(values)), 5) for name, values in self._sums.items()}
        if "frames" in self._sums:
            line["frames_a_second"] = round(sum(self._sums["frames"]) / passed, 1)
        with self._path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        print(line, flush=True)
        self._sums, self._written = {}, time.monotonic()


def _end_with_parent() -> None:
    """Leave no process behind: a parent that was killed cannot end its children itself."""
    parent = parent_process()
    if parent is not None and not parent.is_alive():
        raise SystemExit("the training was stopped; start it again to go on from its last checkpoint")


def _follow(average: nn.Module, trained: nn.Module) -> None:
    """Move the running average towards the weights; the decoder is its own average."""
    if average is not trained:
        _MOVE_AVERAGE(list(average.parameters()), list(trained.parameters()), None)


def _work(rank: int, plan: TrainPlan) -> None:
    torch.set_num_threads(1)
    if plan.processes > 1:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        meeting = plan.out / f"meeting_{os.getppid()}"
        dist.init_process_group("gloo", init_method=f"file://{meeting.resolve()}", rank=rank, world_size=plan.processes)
    Training(plan, Ranks(rank, plan.processes)).run()
    if plan.processes > 1:
        dist.destroy_process_group()


def main(
    out: Annotated[Path, typer.Option(help="Folder of the state, the log, the sheets and the bundle.")],
    decoder_minutes: float = 6.0,
    picture_minutes: float = 40.0,
    clip_minutes: float = 45.0,
    finish_minutes: float = 6.0,
    checkpoint_minutes: float = 5.0,
    clips: Annotated[int, typer.Option(help="Drawn clips in all.")] = 16000,
    pixel_clips: Annotated[int, typer.Option(help="How many of them the decoder sees.")] = 3000,
    processes: int = 2,
    seed: int = 1,
    start_from: Annotated[Path | None, typer.Option(help="A finished bundle to train further.")] = None,
) -> None:
    """Train toybox from nothing or from a bundle, or go on where it stopped."""
    out.mkdir(parents=True, exist_ok=True)
    minutes = (decoder_minutes, picture_minutes, clip_minutes, finish_minutes, checkpoint_minutes)
    plan = TrainPlan(out, *minutes, clips, pixel_clips, processes, seed, start_from)
    spawn(_work, args=(plan,), nprocs=processes)


if __name__ == "__main__":
    typer.run(main)
