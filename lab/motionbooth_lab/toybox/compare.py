"""Compare recipes of toybox's training: `python -m motionbooth_lab.toybox.compare --out DIR --seconds 25`.

Each recipe trains a denoiser from scratch for the same wall-clock time, on the same bank and the same random draws. All
are then asked for pictures of the same twenty characters by their own words, in the same boxes and with the same noise,
and `judging` measures whether these show them. Recipes of clips continue from a recipe of pictures.

Results are in DIR/compare.json, pictures in DIR/compare.png, weights in DIR/weights. Run again, the command trains only
what is missing. `--clip-bundles` writes the recipes of clips as bundles for `motionbooth bench control --bundle`.
"""

import json
import time
import traceback
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from torch import Tensor, nn

from motionbooth_lab.toybox.autoencoder import LATENT_CHANNELS, SPREAD, build_autoencoder
from motionbooth_lab.toybox.bank import Bank, build_bank
from motionbooth_lab.toybox.batches import Batch, Batches
from motionbooth_lab.toybox.bundling import load_decoder, save_bundle
from motionbooth_lab.toybox.compose import Composed
from motionbooth_lab.toybox.decoder_stage import DecoderStage
from motionbooth_lab.toybox.denoiser_stage import Denoiser, DenoiserStage, average_copy
from motionbooth_lab.toybox.judging import Codec, Judge, write_sheet
from motionbooth_lab.toybox.network import build_scheduler, build_text_encoder, build_unet
from motionbooth_lab.toybox.tokenizer import build_tokenizer
from motionbooth_lab.toybox.train import SHIPPED, WAIT_EVERY_STEPS, WARM_UP_STEPS, Stage, start_files

ALL_CHANNELS = tuple(range(LATENT_CHANNELS))
FOUR_CHANNELS = (0, 1, 6, 9)
"""Mean color and one detail of luma, like the first toybox's."""


@dataclass(frozen=True)
class Recipe:
    """What differs from the recipe of the shipped model.

    `pictures`, `clips`: durations of the two stages, in units of `--seconds`. `begins_with`: the recipe whose weights
    the clip stage continues, instead of training on pictures first. `equalized`: all channels with the same deviation.
    """

    name: str
    pictures: float = 1.0
    clips: float = 0.0
    begins_with: str = ""
    channels: tuple[int, ...] = ALL_CHANNELS
    equalized: bool = False
    with_muon: bool = False
    min_snr: bool = True
    edits: bool = True
    shared_noise: bool = True
    is_compiled: bool = False


CLIPS = 1.5
RECIPES = (
    Recipe("shipped"),
    Recipe("four-channels", channels=FOUR_CHANNELS),
    Recipe("equalized", equalized=True),
    Recipe("muon", with_muon=True),
    Recipe("plain-loss", min_snr=False),
    Recipe("no-edits", edits=False),
    Recipe("clips", 0, CLIPS, "shipped"),
    Recipe("clips-own-noise", 0, CLIPS, "shipped", shared_noise=False),
    Recipe("clips-no-edits", 0, CLIPS, "no-edits", edits=False),
    Recipe("clips-fewer-pictures", 0.25, CLIPS + 0.75),
    Recipe("compiled", is_compiled=True),
)


@dataclass(frozen=True)
class Plan:
    """The command's settings."""

    out: Path
    seconds: float
    pictures: int
    clips: int
    characters: int
    toys: int
    textures: int
    processes: int
    seed: int
    device: str
    judged: int
    decoder_seconds: float


class RecipeBatches:
    """Batches in a recipe's latents."""

    def __init__(self, batches: Batches, codec: Codec) -> None:
        self.bank, self._batches, self._codec = batches.bank, batches, codec

    def draw(self, count: int, frames: int, rng: np.random.Generator, dtype: torch.dtype) -> Batch:
        batch = self._batches.draw(count, frames, rng, dtype)
        noise = batch.noise[:, list(self._codec.channels)].contiguous()
        return replace(batch, latents=self._codec.latents_of(batch.latents), noise=noise)


class NarrowDecoderStage(DecoderStage):
    """Trains a decoder that sees only a codec's channels; the others are zero."""

    codec: Codec

    def prepare(self, rng: np.random.Generator) -> tuple[Composed, Tensor]:
        composed, latents = super().prepare(rng)
        return composed, self.codec.full(self.codec.latents_of(latents)[:, :, None])[:, :, 0]


class Comparison:
    """The bank, and what has been trained and judged."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.device = plan, torch.device(plan.device)
        self.dtype = torch.bfloat16 if self.device.type == "cuda" else torch.float32
        self.weights = plan.out / "weights"
        self.weights.mkdir(parents=True, exist_ok=True)
        self._path = plan.out / "compare.json"
        self.results: dict[str, Any] = json.loads(self._path.read_text()) if self._path.exists() else {}
        self.tokenizer = build_tokenizer(plan.out / "tokenizer")
        started = time.monotonic()
        self.bank: Bank = build_bank(plan.characters, plan.toys, plan.textures, plan.seed, self.device, plan.processes)
        print(f"{len(self.bank.sprites)} sprites in {time.monotonic() - started:.0f} s", flush=True)
        self.judge = Judge(self.bank, Batches(self.bank, self.tokenizer).words, plan.seed, plan.judged)
        self.decoder = build_autoencoder().to(self.device)
        load_decoder(start_files(SHIPPED)[0], self.decoder)

    def codec_of(self, recipe: Recipe) -> Codec:
        spread = np.array(SPREAD)[list(recipe.channels)]
        gains = np.sqrt(SPREAD[0] / spread) if recipe.equalized else np.ones(len(spread))
        return Codec(recipe.channels, tuple(map(float, gains)))

    def decoder_of(self, recipe: Recipe) -> nn.Module:
        """The shipped model's decoder, or one that is trained for the recipe's fewer channels."""
        if recipe.channels == ALL_CHANNELS:
            return self.decoder.decoder
        path = self.weights / f"{recipe.name}-decoder.pt"
        autoencoder = build_autoencoder().to(self.device)
        if path.exists():
            autoencoder.load_state_dict(torch.load(path, map_location=self.device, weights_only=True))
            return autoencoder.decoder
        stage = NarrowDecoderStage(autoencoder, self.bank, self.plan.pictures // 2)
        stage.codec = self.codec_of(recipe)
        steps, seconds, _ = self._run(stage, self.plan.decoder_seconds, 0)
        print(f"decoder of {recipe.name}: {steps} steps in {seconds:.0f} s", flush=True)
        torch.save(autoencoder.state_dict(), path)
        return autoencoder.decoder

    def denoiser_of(self, recipe: Recipe, name: str = "") -> Denoiser:
        """With the weights of `name`, or untrained ones, which are the same for all recipes."""
        torch.manual_seed(self.plan.seed)
        words = Batches(self.bank, self.tokenizer).words.size
        denoiser = Denoiser(build_unet(len(recipe.channels)), build_text_encoder(self.tokenizer, words))
        if name:
            denoiser.load_state_dict(torch.load(self.weights / f"{name}.pt", map_location="cpu", weights_only=True))
        return denoiser.to(self.device, self.dtype).eval()

    def train(self, recipe: Recipe) -> dict[str, Any]:
        """Train the recipe and save its averaged weights. Returns figures about the training."""
        figures: dict[str, Any] = {}
        denoiser = self.denoiser_of(recipe, recipe.begins_with)
        if recipe.is_compiled:
            denoiser.unet.compile()
        batches = RecipeBatches(
            Batches(self.bank, self.tokenizer, recipe.edits, recipe.shared_noise), self.codec_of(recipe)
        )
        average = average_copy(denoiser)
        stages = (("pictures", recipe.pictures, (1.6e-3, 8e-4)), ("clips", recipe.clips, (1e-3, 2e-5)))
        for number, (name, share, rates) in enumerate(stages, 1):
            if not share:
                continue
            stage = DenoiserStage(
                name,
                denoiser,
                build_scheduler(),
                batches,  # type: ignore[arg-type]
                self.plan.pictures,
                self.plan.clips,
                rates,
                min_snr=recipe.min_snr,
                with_muon=recipe.with_muon,
            )
            steps, seconds, log = self._run(stage, self.plan.seconds * share, number)
            samples = sum(each["frames"] for each in log)
            last = [float(each["loss"]) for each in log[-max(len(log) // 5, 1) :]]
            figures[name] = {
                "steps": steps,
                "seconds": round(seconds, 1),
                "frames": int(samples),
                "frames_a_second": round(samples / seconds, 1),
                "loss": round(float(np.mean(last)), 5),
            }
            torch.save(average_copy(denoiser).state_dict(), self.weights / f"{recipe.name}-raw.pt")
            for each in (average, denoiser):
                stage.masters.average_into(each)
            del stage
        torch.save(average.state_dict(), self.weights / f"{recipe.name}.pt")
        return figures

    def _run(self, stage: Stage, budget: float, number: int) -> tuple[int, float, list[dict[str, Any]]]:
        """Take steps for `budget` seconds from the end of the first step on. Returns steps, seconds and the log."""
        log: list[dict[str, Any]] = []
        seconds = 0.0
        with ThreadPoolExecutor(1) as preparing:
            prepared = preparing.submit(stage.prepare, self._draws(number, 0))
            started = time.monotonic()
            while seconds < budget:
                ready = prepared.result()
                prepared = preparing.submit(stage.prepare, self._draws(number, len(log) + 1))
                rate = stage.learning_rate(seconds / budget) * min(1.0, (stage.masters.steps + 1) / WARM_UP_STEPS)
                log.append(stage.train_step(ready, rate))
                if self.device.type == "cuda" and (len(log) % WAIT_EVERY_STEPS == 0 or len(log) == 1):
                    torch.cuda.synchronize()  # steps are queued: keep the clock in sync
                if len(log) == 1:
                    started = time.monotonic()
                seconds = time.monotonic() - started
            prepared.result()
        return len(log), seconds, log

    def _draws(self, stage: int, step: int) -> np.random.Generator:
        return np.random.default_rng([self.plan.seed, stage, step])

    def run(self, recipes: list[Recipe], judging: bool = True) -> bool:
        """Train, and if `judging` judge, what is missing. A recipe that fails is reported, and the others go on.

        Returns whether none failed.
        """
        succeeded = True
        for recipe in recipes:
            try:
                if not (self.weights / f"{recipe.name}.pt").exists():
                    self.results[recipe.name] = self.train(recipe)
                    self._save()
                if judging and "judged" not in self.results[recipe.name]:
                    self._judge(recipe)
                print(f"{recipe.name}: {json.dumps(self.results[recipe.name])}", flush=True)
            except Exception:  # hours of the other recipes are not to be lost
                succeeded = False
                print(f"{recipe.name} failed:\n{traceback.format_exc()}", flush=True)
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
        if judging:
            write_sheet(self.plan.out / "compare.png", self.judge.pictures, self._shown(recipes))
        return succeeded

    def _judge(self, recipe: Recipe) -> None:
        codec, decoder = self.codec_of(recipe), self.decoder_of(recipe)
        found = self.results[recipe.name]
        for key, name in (("judged", recipe.name), ("judged_raw", f"{recipe.name}-raw")):
            if not (self.weights / f"{name}.pt").exists():
                continue
            frames = self.judge.generated(self.denoiser_of(recipe, name), codec, decoder)
            found[key] = self.judge.judged(frames)
            if key == "judged":
                np.save(self.weights / f"{recipe.name}.npy", frames)
        found["ceiling"] = self.judge.judged(self.judge.through(codec, decoder))
        found["chance"] = {"face": self.judge.chance(self.judge.through(codec, decoder))}
        found["ceiling_linear"] = self.judge.judged(self.judge.through(codec, None))
        self._save()

    def _shown(self, recipes: list[Recipe]) -> Iterator[np.ndarray]:
        for recipe in recipes:
            if (path := self.weights / f"{recipe.name}.npy").exists():
                yield np.load(path)

    def write_bundles(self, recipes: list[Recipe]) -> None:
        """The recipes of clips as bundles, in half precision."""
        for recipe in recipes:
            if recipe.clips and (self.weights / f"{recipe.name}.pt").exists():
                denoiser = self.denoiser_of(recipe, recipe.name).float().cpu()
                folder = self.plan.out / "bundles" / recipe.name
                save_bundle(folder, self.decoder.cpu(), denoiser, self.tokenizer, build_scheduler())

    def _save(self) -> None:
        self._path.write_text(json.dumps(self.results, indent=2) + "\n")


def chosen_recipes(names: Sequence[str]) -> list[Recipe]:
    """The recipes of these names, and those that they begin with. Raises typer.BadParameter for an unknown name."""
    known = {each.name: each for each in RECIPES}
    if unknown := [name for name in names if name not in known]:
        raise typer.BadParameter(f"There is no recipe {unknown[0]}. The recipes are {', '.join(known)}.")
    wanted = {*names, *(known[name].begins_with for name in names)}
    return [each for each in RECIPES if each.name in wanted]


def main(
    out: Annotated[Path, typer.Option(help="Folder for results, pictures and weights.")],
    seconds: Annotated[float, typer.Option(min=0.1, help="Of each recipe's stage of pictures.")] = 25.0,
    decoder_seconds: Annotated[float, typer.Option(help="Of training a decoder for fewer channels.")] = 10.0,
    pictures: Annotated[int, typer.Option(help="Pictures per step.")] = 256,
    clips: Annotated[int, typer.Option(help="Clips per step.")] = 32,
    characters: Annotated[int, typer.Option(help="Characters in the bank.")] = 400,
    toys: Annotated[int, typer.Option(help="Flat toys in the bank.")] = 200,
    textures: Annotated[int, typer.Option(help="Textures per place.")] = 12,
    processes: Annotated[int, typer.Option(help="Processes for drawing the bank.")] = 1,
    seed: int = 1,
    device: Annotated[str, typer.Option(help="cuda or cpu.")] = "cuda" if torch.cuda.is_available() else "cpu",
    judged: Annotated[int, typer.Option(min=1, help="Pictures that each recipe is asked for.")] = 120,
    recipe: Annotated[list[str] | None, typer.Option(help="Only this recipe; repeat the option for several.")] = None,
    train_only: Annotated[bool, typer.Option("--train-only", help="Judge nothing yet.")] = False,
    clip_bundles: Annotated[bool, typer.Option("--clip-bundles", help="Write the clip recipes as bundles.")] = False,
) -> None:
    """Train and judge the recipes, one after the other. Run again to go on."""
    chosen = chosen_recipes(recipe or [each.name for each in RECIPES])
    comparison = Comparison(
        Plan(
            out, seconds, pictures, clips, characters, toys, textures, processes, seed, device, judged, decoder_seconds
        )
    )
    succeeded = comparison.run(chosen, not train_only)
    if clip_bundles:
        comparison.write_bundles(chosen)
    if not succeeded:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
