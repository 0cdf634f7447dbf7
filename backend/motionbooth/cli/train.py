"""`motionbooth train`: train a subject without Blender and without a backend."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from motionbooth_protocol.limits import MAX_SEED, MAX_TRAINING_STEPS
from motionbooth_protocol.wording import class_fault, in_words, token_fault

from motionbooth.cli.computing import TrainingMemoryOption
from motionbooth.cli.config import ConfiguredCommand, Key, config_text, field_keys

if TYPE_CHECKING:
    from motionbooth_protocol.jobs import SubjectSpec, TrainSpec

    from motionbooth.jobs.local_training import TrainedSubject
    from motionbooth.pictures.training_set import TrainingSet

RUN_FILE = "run.toml"
DEFAULT_TOKEN = "sks"

_OPTIONS = {"model": "--model", "name": "the name of --out", "learning_rate": "--learning-rate"}


class TrainCommand(ConfiguredCommand):
    """Its file also has the training settings of the base model that are to be others."""

    def more_file_keys(self) -> list[Key]:
        from motionbooth.models.settings import TrainSettings

        return field_keys(TrainSettings)


def _token(value: str | None) -> str | None:
    """Raises BadParameter, which typer reports with the option's name."""
    if value is not None and (fault := token_fault(value)):
        raise typer.BadParameter(f"It {fault}")
    return value


def _class(value: str | None) -> str | None:
    if value is not None and (fault := class_fault(value)):
        raise typer.BadParameter(f"It {fault}")
    return value and value.strip()


def train(
    ctx: typer.Context,
    pictures: Annotated[
        Path,
        typer.Argument(
            help="Folder of 1 to 20 pictures, with masks of the same names in masks/ and captions in NAME.txt; "
            "or diffusion-pipe's dataset.toml."
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            dir_okay=False,
            help="Subject file to write (.safetensors). A folder of the same name holds masks, losses and samples.",
        ),
    ],
    class_word: Annotated[
        str | None,
        typer.Option(
            "--class",
            callback=_class,
            help="Class word of the subject, e.g. dog or robot. Default: that of a folder named like '10_sks dog'.",
        ),
    ] = None,
    token: Annotated[
        str | None,
        typer.Option(callback=_token, help="Rare word that will stand for the subject. Default: the folder's, or sks."),
    ] = None,
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
        Path | None,
        typer.Option(help="Segment Anything checkpoint (file or folder) that finds the subject in all pictures."),
    ] = None,
    sam_sha256: Annotated[
        str | None, typer.Option(help="SHA-256 of an unpublished Segment Anything checkpoint.")
    ] = None,
    accept_masks: Annotated[bool, typer.Option(help="Train even if detected masks look wrong.")] = False,
    tensorboard: Annotated[bool, typer.Option(help="Also write TensorBoard events.")] = False,
    validate_every: Annotated[
        int | None,
        typer.Option(min=0, help="Steps between two sample clips of the subject. 0: none. Default: the model's."),
    ] = None,
    validation_prompts: Annotated[
        list[str] | None,
        typer.Option(
            "--validation-prompt", help="Prompt of the sample clips. Repeat for several. Default: the subject's."
        ),
    ] = None,
    memory: TrainingMemoryOption = "auto",
    config: Annotated[
        Path | None,
        typer.Option(dir_okay=False, help="TOML file with these options and training settings. The command line wins."),
    ] = None,
) -> None:
    """Train a subject on this machine. After Ctrl+C, run the same command again to resume."""
    import msgspec
    from motionbooth_protocol.errors import InvalidInput
    from motionbooth_protocol.jobs import TrainSpec, as_received
    from rich.console import Console

    from motionbooth.finetuning.finetune import DoubtfulMasks, TrainingOptions
    from motionbooth.finetuning.motion import motion_text
    from motionbooth.finetuning.recipes import recipe_named
    from motionbooth.jobs.local_training import train_locally
    from motionbooth.models.subject_card import read_card
    from motionbooth.pictures.finders import MaskFinders
    from motionbooth.pictures.sam import Checkpoint, check_checkpoint
    from motionbooth.pictures.training_set import read_training_set
    from motionbooth.progress.display import DisplayReporter, progress_display

    recipe_named(recipe)
    found = read_training_set(pictures, masks)
    subject = _subject(ctx, found, out.stem)
    try:
        spec = as_received(TrainSpec(subject, model, seed, steps, learning_rate, method, recipe))
    except msgspec.ValidationError as error:
        raise InvalidInput("Invalid settings: {problem}.", problem=in_words(error, _OPTIONS)) from error
    finders = TrainingOptions.of_this_machine().finders if sam is None else MaskFinders(Checkpoint(sam, sam_sha256))
    if finders.sam is not None:
        check_checkpoint(finders.sam)
        if finders.birefnet is None:
            ctx.params |= {"sam": finders.sam.path, "sam_sha256": finders.sam.sha256}
    settings = _changed_settings(ctx)

    def run(accept: bool) -> "TrainedSubject":
        with progress_display(Console(markup=False)) as show:
            options = TrainingOptions(finders, clips, accept, tensorboard, settings, memory)
            return train_locally(spec, found.files, options, out, DisplayReporter(show))

    try:
        trained = run(accept_masks)
    except DoubtfulMasks as doubtful:
        if not sys.stdin.isatty():
            raise
        typer.secho(str(doubtful), fg=typer.colors.YELLOW, err=True)
        typer.confirm("Train with these masks?", abort=True, err=True)
        ctx.params["accept_masks"] = True
        trained = run(True)
    _write_run_file(ctx, spec, settings, trained.folder / RUN_FILE)
    done = "is up to date: it was trained with the same pictures and settings" if trained.existed else "is trained"
    typer.echo(f"{trained.file} {done}. Its masks, losses, samples and settings are in {trained.folder}.")
    if motion := motion_text(read_card(trained.file)):
        typer.echo(f"Motion after training: {motion}.")


def _subject(ctx: typer.Context, found: "TrainingSet", name: str) -> "SubjectSpec":
    """The subject, its class and perhaps its token from the folder's name if there is no --class."""
    from motionbooth_protocol.jobs import SubjectSpec

    from motionbooth.pictures.training_set import check_captions

    token, class_word = ctx.params["token"], ctx.params["class_word"]
    if class_word is None:
        if found.class_word is None:
            raise typer.BadParameter("Name the class word of the subject, such as dog.", param_hint="'--class'")
        class_word, token = _class(found.class_word), token or _token(found.token)
    ctx.params |= {"class_word": class_word, "token": token or DEFAULT_TOKEN}
    subject = SubjectSpec(name, ctx.params["token"], ctx.params["class_word"], found.pictures)
    check_captions(subject)
    return subject


def _changed_settings(ctx: typer.Context) -> dict[str, Any]:
    """The training settings that the file and the command line change. A recipe on the command line beats the file."""
    from msgspec.structs import fields

    from motionbooth.finetuning.recipes import RECIPES
    from motionbooth.models.settings import TrainSettings

    changed = dict(ctx.obj or {})
    source = ctx.get_parameter_source("recipe")
    if source is not None and source.name == "COMMANDLINE":
        changed = {name: value for name, value in changed.items() if name not in RECIPES[ctx.params["recipe"]].changes}
    options = {field.name: ctx.params.get(field.name) for field in fields(TrainSettings)}
    return changed | {name: value for name, value in options.items() if value not in (None, [], ())}


def _write_run_file(ctx: typer.Context, spec: "TrainSpec", settings: dict[str, Any], path: Path) -> None:
    """Everything that the training was done with, so that `train --config` repeats it."""
    from msgspec.structs import asdict

    from motionbooth.finetuning.finetune import method_of, train_settings
    from motionbooth.models.sources import source_named

    base = source_named(spec.model).settings
    values = asdict(train_settings(base, spec, settings)) | {"method": method_of(base, spec)}
    path.write_text(config_text(ctx, values), encoding="utf-8")
