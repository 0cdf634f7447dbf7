"""For whoever learns a subject without Blender and without a backend: `motionbooth train`."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from motionbooth_protocol.limits import MAX_SEED, MAX_TRAINING_STEPS
from motionbooth_protocol.wording import class_fault, in_words, token_fault

if TYPE_CHECKING:
    from motionbooth.jobs.local_training import Learned

_OPTIONS = {"model": "--model", "name": "the name of --out", "learning_rate": "--learning-rate"}


def _token(value: str) -> str:
    """Raises BadParameter, which typer tells in the option's words."""
    if fault := token_fault(value):
        raise typer.BadParameter(f"It {fault}")
    return value


def _class(value: str) -> str:
    if fault := class_fault(value):
        raise typer.BadParameter(f"It {fault}")
    return value.strip()


def _learning_rate(value: float | None) -> float | None:
    if value is not None and not 0 < value <= 1:
        raise typer.BadParameter(f"It is above 0 and at most 1, for instance 5e-6, and not {value:g}.")
    return value


class Method(StrEnum):
    """Of --method."""

    lora = "lora"
    full = "full"


def train(
    pictures: Annotated[Path, typer.Argument(help="A folder of 1 to 20 pictures; masks of the same names in masks/.")],
    class_word: Annotated[
        str, typer.Option("--class", callback=_class, help="The ordinary word for the subject: dog, toy, robot.")
    ],
    out: Annotated[
        Path, typer.Option(dir_okay=False, help="The subject's file to write, .safetensors; its folder is beside it.")
    ],
    token: Annotated[str, typer.Option(callback=_token, help="The rare word that will mean this subject.")] = "sks",
    model: Annotated[str, typer.Option(help="A base model of this machine.")] = "toybox",
    recipe: Annotated[str, typer.Option(help="How: motionbooth, one of its ablations, dreambooth, customvideo.")] = (
        "motionbooth"
    ),
    method: Annotated[Method | None, typer.Option(help="The model's own choice by default.")] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, max=MAX_TRAINING_STEPS, help="Instead of the model's own number.")
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(callback=_learning_rate, help="Instead of the model's own.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED, help="The same seed learns the same.")] = 0,
    masks: Annotated[Path | None, typer.Option(help="A folder of masks, each named as its picture.")] = None,
    clips: Annotated[Path | None, typer.Option(help="Ordinary clips with captions; else the base films some.")] = None,
    sam: Annotated[Path | None, typer.Option(help="Segment Anything, a file or folder, to find subjects.")] = None,
    sam_sha256: Annotated[str | None, typer.Option(help="Its sha256, where it is none of the published files.")] = None,
    accept_masks: Annotated[bool, typer.Option(help="Train with masks that were found and may be wrong.")] = False,
    tensorboard: Annotated[bool, typer.Option(help="Write events for TensorBoard, too.")] = False,
) -> None:
    """Learn a subject from pictures, here and now. Run again after Ctrl+C, it goes on where it was."""
    import msgspec
    from motionbooth_protocol.errors import InvalidInput
    from motionbooth_protocol.jobs import SubjectSpec, TrainSpec, as_received

    from motionbooth.cli.progress_bars import reporter
    from motionbooth.finetuning.finetune import DoubtfulMasks, Material
    from motionbooth.finetuning.recipes import recipe_named
    from motionbooth.jobs.local_training import train_here
    from motionbooth.pictures.folder import read_folder
    from motionbooth.pictures.sam import Checkpoint, check_checkpoint, chosen_checkpoint

    recipe_named(recipe)
    found, files = read_folder(pictures, masks)
    subject = SubjectSpec(out.stem, token, class_word, found)
    try:
        spec = as_received(TrainSpec(subject, model, seed, steps, learning_rate, method, recipe))
    except msgspec.ValidationError as error:
        raise InvalidInput(f"This cannot be trained: {in_words(error, _OPTIONS)}.") from error
    checkpoint = chosen_checkpoint() if sam is None else Checkpoint(sam, sam_sha256)
    if checkpoint is not None:
        check_checkpoint(checkpoint)

    def trained(accept: bool) -> "Learned":
        with reporter() as shown:
            return train_here(spec, files, Material(checkpoint, clips, accept), out, shown, tensorboard)

    try:
        learned = trained(accept_masks)
    except DoubtfulMasks as doubtful:
        if not sys.stdin.isatty():
            raise
        typer.secho(str(doubtful), fg=typer.colors.YELLOW, err=True)
        typer.confirm("Train with these masks?", abort=True, err=True)
        learned = trained(True)
    made = "is there already, learned from the same pictures in the same way" if learned.was_there else "is learned"
    typer.echo(f"{learned.subject} {made}. Look at {learned.folder} for its masks, losses and samples.")
