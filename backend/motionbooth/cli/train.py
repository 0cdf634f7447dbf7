"""`motionbooth train`: train a subject without Blender and without a backend."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from motionbooth_protocol.limits import MAX_SEED, MAX_TRAINING_STEPS
from motionbooth_protocol.wording import class_fault, in_words, token_fault

if TYPE_CHECKING:
    from motionbooth.jobs.local_training import TrainedSubject

_OPTIONS = {"model": "--model", "name": "the name of --out", "learning_rate": "--learning-rate"}


def _token(value: str) -> str:
    """Raises BadParameter, which typer reports with the option's name."""
    if fault := token_fault(value):
        raise typer.BadParameter(f"It {fault}")
    return value


def _class(value: str) -> str:
    if fault := class_fault(value):
        raise typer.BadParameter(f"It {fault}")
    return value.strip()


def train(
    pictures: Annotated[
        Path, typer.Argument(help="Folder of 1 to 20 pictures. Masks of the same names can be in masks/.")
    ],
    class_word: Annotated[
        str, typer.Option("--class", callback=_class, help="Class word of the subject, e.g. dog, toy or robot.")
    ],
    out: Annotated[
        Path,
        typer.Option(
            dir_okay=False,
            help="Subject file to write (.safetensors). A folder of the same name holds masks, losses and samples.",
        ),
    ],
    token: Annotated[str, typer.Option(callback=_token, help="Rare word that will stand for the subject.")] = "sks",
    model: Annotated[str, typer.Option(help="Base model.")] = "toybox",
    recipe: Annotated[
        str, typer.Option(help="Recipe: motionbooth, one of its ablations, dreambooth or customvideo.")
    ] = ("motionbooth"),
    method: Annotated[
        Literal["lora", "full"] | None, typer.Option(help="Fine-tuning method (default: the model's).")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, max=MAX_TRAINING_STEPS, help="Training steps (default: the model's).")
    ] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Learning rate (default: the model's).")] = None,
    seed: Annotated[
        int, typer.Option(min=0, max=MAX_SEED, help="Random seed. The same seed gives the same result.")
    ] = 0,
    masks: Annotated[Path | None, typer.Option(help="Folder of masks, each named like its picture.")] = None,
    clips: Annotated[
        Path | None,
        typer.Option(help="Folder of prior-preservation clips with captions (default: the base model generates them)."),
    ] = None,
    sam: Annotated[
        Path | None, typer.Option(help="Segment Anything checkpoint (file or folder) for finding the subject.")
    ] = None,
    sam_sha256: Annotated[
        str | None, typer.Option(help="SHA-256 of an unpublished Segment Anything checkpoint.")
    ] = None,
    accept_masks: Annotated[bool, typer.Option(help="Train even if detected masks look wrong.")] = False,
    tensorboard: Annotated[bool, typer.Option(help="Also write TensorBoard events.")] = False,
) -> None:
    """Train a subject on this machine. After Ctrl+C, run the same command again to resume."""
    import msgspec
    from motionbooth_protocol.errors import InvalidInput
    from motionbooth_protocol.jobs import SubjectSpec, TrainSpec, as_received
    from rich.console import Console

    from motionbooth.finetuning.finetune import DoubtfulMasks, TrainingOptions
    from motionbooth.finetuning.motion import motion_text
    from motionbooth.finetuning.recipes import recipe_named
    from motionbooth.jobs.local_training import train_locally
    from motionbooth.models.sources import fetched_folder
    from motionbooth.models.subject_card import read_card
    from motionbooth.pictures.folder import read_folder
    from motionbooth.pictures.sam import Checkpoint, check_checkpoint, chosen_checkpoint
    from motionbooth.progress.display import DisplayReporter, progress_display

    recipe_named(recipe)
    found, files = read_folder(pictures, masks)
    subject = SubjectSpec(out.stem, token, class_word, found)
    try:
        spec = as_received(TrainSpec(subject, model, seed, steps, learning_rate, method, recipe))
    except msgspec.ValidationError as error:
        raise InvalidInput("Invalid settings: {problem}.", problem=in_words(error, _OPTIONS)) from error
    checkpoint = chosen_checkpoint(fetched_folder("sam")) if sam is None else Checkpoint(sam, sam_sha256)
    if checkpoint is not None:
        check_checkpoint(checkpoint)

    def run(accept: bool) -> "TrainedSubject":
        with progress_display(Console()) as show:
            options = TrainingOptions(checkpoint, clips, accept, tensorboard)
            return train_locally(spec, files, options, out, DisplayReporter(show))

    try:
        trained = run(accept_masks)
    except DoubtfulMasks as doubtful:
        if not sys.stdin.isatty():
            raise
        typer.secho(str(doubtful), fg=typer.colors.YELLOW, err=True)
        typer.confirm("Train with these masks?", abort=True, err=True)
        trained = run(True)
    done = "is up to date: it was trained with the same pictures and settings" if trained.existed else "is trained"
    typer.echo(f"{trained.file} {done}. Its masks, losses and samples are in {trained.folder}.")
    if motion := motion_text(read_card(trained.file)):
        typer.echo(f"Motion after training: {motion}.")
