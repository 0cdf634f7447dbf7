"""For whoever sets up base models: `motionbooth convert-lavie`."""

from pathlib import Path
from typing import Annotated

import typer


def convert_lavie(
    checkpoint: Annotated[Path, typer.Argument(help="lavie_base.pt, as published.")],
    out: Annotated[Path, typer.Argument(help="The new folder, e.g. lavie in your folder of models.")],
    sd14: Annotated[Path, typer.Option(help="Stable Diffusion 1.4 in diffusers' layout: its VAE and text encoder.")],
) -> None:
    """Make a base model of LaVie's checkpoint, and prove that it is LaVie's."""
    from motionbooth.models.lavie.convert import convert_lavie

    convert_lavie(checkpoint, sd14, out)
    typer.echo(f"{out} is LaVie-base, every weight accounted for.")
