"""`motionbooth models`: published models on this machine; `convert-lavie`: a checkpoint to a base model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

models = typer.Typer(help="Fetch, check and remove published models.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(help="Our name of the model, such as zeroscope or wan-1.3b.")]


@models.command("list")
def list_models() -> None:
    """List the models that can be used here, and those that can be fetched."""
    from rich.console import Console
    from rich.filesize import decimal
    from rich.markup import escape
    from rich.table import Column, Table

    from motionbooth.models.published import published, title_of
    from motionbooth.models.sources import fetched_folder, sources

    bases = {name: (source.info.title, source.folder) for name, source in sources().items()}
    others = {name: (title_of(name), folder) for name in published() if (folder := fetched_folder(name)) is not None}
    here = {**others, **bases}
    table = Table("name", "model", "kind", "size", Column("where", overflow="fold"))
    for name, (title, folder) in here.items():
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        kind = published()[name].kind if name in published() else "base model"
        table.add_row(escape(name), escape(title), kind, decimal(size), escape(str(folder)))
    for name, model in published().items():
        if name not in here:
            table.add_row(f"[dim]{name}[/]", title_of(name), model.kind, "", f"[dim]motionbooth models get {name}[/]")
    Console().print(table)


@models.command()
def get(
    name: Name,
    source: Annotated[
        str | None,
        typer.Option("--from", help="A mirror of the hub (https://...), or a folder with the model. Default: the hub."),
    ] = None,
    accept_license: Annotated[
        bool, typer.Option("--accept-license", help="Accept the model's license without being asked.")
    ] = False,
) -> None:
    """Fetch a model: shows its size and license first, resumes an interrupted download, and checks every file."""
    from motionbooth_protocol.errors import Canceled
    from rich.console import Console
    from rich.filesize import decimal

    from motionbooth.models.downloads import copy, fetch
    from motionbooth.models.offers import offer
    from motionbooth.models.sources import models_folder

    console = Console(markup=False)
    if source is not None and "://" not in source:
        console.print(f"Copied and checked: {copy(name, Path(source))}", highlight=False, soft_wrap=True)
        return
    found = offer(name, source)
    hubs = " and ".join(part.origin.hub for part in found.parts)
    said = [f"{hubs}, {decimal(found.size)} in {len(found.manifest.files)} files, into {models_folder()}."]
    said += [f"License of {part.origin.hub}: {part.license}" for part in found.parts]
    console.print("\n".join(said), highlight=False, soft_wrap=True)
    if not accept_license and not typer.confirm("Do you accept the license and fetch the model?"):
        raise Canceled("Nothing was fetched.")
    with console.status("") as status:
        folder = fetch(found, lambda stage: status.update(stage))
    console.print(f"Fetched and checked: {folder}", highlight=False, soft_wrap=True)


@models.command()
def check(
    name: Name,
    vram: Annotated[
        float | None,
        typer.Option(
            min=0.1, max=10_000, help="Instead: say how the model fits a card with so many GB, before it is fetched."
        ),
    ] = None,
) -> None:
    """Check the files of a fetched model by their sizes and sha256. The exit status is 1 if any is damaged."""
    if vram is not None:
        from motionbooth.finetuning.memory_plan import training_fit_line
        from motionbooth.models.memory.estimate import fit_line, known_source

        source = known_source(name)
        typer.echo(f"{fit_line(source, vram)} {training_fit_line(source, vram)}")
        return

    from rich.console import Console

    from motionbooth.models.downloads import check_sound
    from motionbooth.models.sources import folder_named

    folder = folder_named(name)
    with Console(stderr=True).status("") as status:
        check_sound(name, folder, lambda path: status.update(f"checking {path}"))
    Console().print(f"All files of {name} are as they were published.", highlight=False)


@models.command("remove")
def remove_model(
    name: Name, yes: Annotated[bool, typer.Option("--yes", help="Do not ask before removing.")] = False
) -> None:
    """Remove a model that was fetched with `models get`."""
    from motionbooth_protocol.errors import Canceled

    from motionbooth.models.downloads import remove

    if not yes and not typer.confirm(f"Remove the model {name} from this machine?"):
        raise Canceled("Nothing was removed.")
    typer.echo(f"Removed {remove(name)}.")


def convert_lavie(
    checkpoint: Annotated[Path, typer.Argument(help="The published lavie_base.pt.")],
    out: Annotated[Path, typer.Argument(help="Folder to create, e.g. lavie in your models folder.")],
    sd14: Annotated[
        Path, typer.Option(help="Stable Diffusion 1.4 as a diffusers folder, for its VAE and text encoder.")
    ],
) -> None:
    """Convert the LaVie checkpoint to a base model and check every weight."""
    from motionbooth.models.lavie.convert import convert_lavie

    convert_lavie(checkpoint, sd14, out)
    typer.echo(f"Wrote LaVie-base to {out}. Every weight was matched.")
