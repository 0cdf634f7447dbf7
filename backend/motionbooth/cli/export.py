"""`motionbooth export` and `motionbooth import`: a shot for other engines, and their clips as takes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer
from motionbooth_protocol.errors import InvalidInput

from motionbooth.cli.generate import ClassWord, Pictures, ScriptModel, Subjects, Token

ShotFile = Annotated[Path, typer.Argument(help="The shot: the shot.json next to a clip from Blender, or a script.")]


def export(
    shot: ShotFile,
    to: Annotated[
        str,
        typer.Option(help="ati, wan-move, comfyui, vace, ic-lora, cameractrl, recammaster or motionbooth-script."),
    ],
    out: Annotated[Path, typer.Option(file_okay=False, help="Folder to write.")],
    size: Annotated[
        str | None,
        typer.Option(help="Width and height of the engine's clip, such as 832x480 (default: its usual size)."),
    ] = None,
    guide: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="Clip that shows the shot, such as a simple render."),
    ] = None,
    depth: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="Clip of the shot's depth: near is white, far is black."),
    ] = None,
    first_frame: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="Picture of the first frame, for engines that start from it."),
    ] = None,
    pictures: Annotated[
        Path | None,
        typer.Option(exists=True, file_okay=False, help="Folder of the subjects' pictures and masks (vace)."),
    ] = None,
    model: ScriptModel = "toybox",
    token: Token = None,
    class_word: ClassWord = None,
) -> None:
    """Write a shot as the control files of another engine."""
    from rich.console import Console

    from motionbooth.evaluation.generated_shot import read_spec
    from motionbooth.export.formats import SHOT_FILE, Media, export_shot
    from motionbooth.generation.script import Placeholders

    spec = read_spec(shot, model, Placeholders.of(token, class_word))
    if (out / SHOT_FILE).resolve() == shot.resolve():
        raise InvalidInput("{shot} would be replaced by its export. Choose another folder.", shot=shot)
    media = Media(guide, depth, first_frame, pictures)
    steps = export_shot(spec, to, out, media, None if size is None else _size(size))
    Console().print(f"Wrote {out}", *steps, sep="\n\n", markup=False, highlight=False, soft_wrap=True)


def _size(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d{2,5})\s*[x*]\s*(\d{2,5})", text)
    if found is None:
        raise InvalidInput("The size {size} is not a width and a height in pixels, such as 832x480.", size=text)
    return int(found[1]), int(found[2])


def import_(
    clip: Annotated[Path, typer.Argument(help="Clip that another engine generated from the shot.")],
    shot: Annotated[Path, typer.Option(help="The shot: shot.json of its export, or next to a clip from Blender.")],
    out: Annotated[Path, typer.Option(dir_okay=False, help="MP4 file to write.")],
    subject: Subjects = None,
    pictures: Pictures = None,
    model: ScriptModel = "toybox",
    token: Token = None,
    class_word: ClassWord = None,
) -> None:
    """Make a take of another engine's clip: in the shot's length and rate, and measured."""
    from rich.console import Console

    from motionbooth.evaluation.generated_shot import pictures_for, read_spec, report_table
    from motionbooth.export.import_clip import import_clip
    from motionbooth.generation.script import Placeholders

    spec = read_spec(shot, model, Placeholders.of(token, class_word, subject or []))
    seen = {} if pictures is None else pictures_for(spec, pictures)
    generated, report = import_clip(clip, spec, seen, subject or [], out)
    Console(markup=False).print(report_table(report, generated.spec.shot.subjects))
