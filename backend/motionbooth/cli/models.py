"""`motionbooth convert-lavie`: convert a published checkpoint to a base model."""

from pathlib import Path
from typing import Annotated

import typer


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
