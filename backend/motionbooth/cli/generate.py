"""For work without Blender and without a backend: `motionbooth generate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from motionbooth_protocol.limits import MAX_SEED

Token = Annotated[str | None, typer.Option(help="For a script's placeholder [rare token]; else the subject's own.")]
ClassWord = Annotated[
    str | None, typer.Option("--class", help="For a script's placeholder [class name]; else the subject's own.")
]


def generate(
    out: Annotated[
        Path, typer.Option(dir_okay=False, help="The clip to write, .mp4; the names of several takes begin like it.")
    ],
    script: Annotated[
        Path | None, typer.Argument(help="JSON: prompt, phrases, bbox, bbox_proportions, camera_speed.")
    ] = None,
    script_file: Annotated[Path | None, typer.Option("--script", help="The same, as an option.")] = None,
    model: Annotated[str, typer.Option(help="A base model of this machine.")] = "toybox",
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Of the first take; the others count up.")] = 0,
    subject: Annotated[list[Path] | None, typer.Option(help="A trained subject (safetensors); once for each.")] = None,
    takes: Annotated[int, typer.Option(min=1, help="How many to film, the best first.")] = 1,
    together: Annotated[
        int, typer.Option(min=1, help="Takes in one batch: quicker on a GPU, needs its memory, differs in last bits.")
    ] = 1,
    token: Token = None,
    class_word: ClassWord = None,
) -> None:
    """Film a script of the MotionBooth paper's authors here and now, without a backend."""
    from motionbooth_protocol.errors import InvalidInput
    from rich.console import Console

    from motionbooth.cli.progress_bars import reporter
    from motionbooth.generation.script import Words, script_with_subjects
    from motionbooth.jobs.takes import film_best_of, takes_table

    chosen = script or script_file
    if chosen is None or (script and script_file):
        raise InvalidInput("Name one script: motionbooth generate SCRIPT.json --out CLIP.mp4")
    subjects = subject or []
    spec = script_with_subjects(chosen, model, seed, subjects, Words.of(token, class_word, subjects))
    with reporter() as shown:
        filmed = film_best_of(spec, takes, together, out, Path, shown)
    Console().print(takes_table(filmed))


def evaluate(
    clip: Annotated[Path, typer.Argument(help="Any clip that was filmed from the shot.")],
    shot: Annotated[Path, typer.Option(help="What was asked: the shot.json beside a clip from Blender, or a script.")],
    subject: Annotated[list[Path] | None, typer.Option(help="A trained subject (safetensors); once for each.")] = None,
    pictures: Annotated[
        Path | None, typer.Option(help="Pictures of the subject with masks, or a folder of them for each subject.")
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", dir_okay=False, help="Write the report, frame by frame.")
    ] = None,
    model: Annotated[str, typer.Option(help="The base model that a script was filmed with.")] = "toybox",
    sheet: Annotated[
        Path | None, typer.Option(dir_okay=False, help="Draw asked and found boxes over the frames, PNG.")
    ] = None,
    token: Token = None,
    class_word: ClassWord = None,
) -> None:
    """Measure on a clip's pixels how well subjects kept to their boxes and the camera to its path."""
    from rich.console import Console

    from motionbooth.evaluation.report import write_report
    from motionbooth.evaluation.shot_folder import FilmedShot, asked_in, pictures_for, report_table

    asked = asked_in(shot, model, token, class_word, subject or [])
    filmed = FilmedShot.load(clip, asked, {} if pictures is None else pictures_for(asked, pictures))
    for path in subject or []:
        filmed = filmed.knowing(path)
    report = filmed.report()
    Console().print(report_table(report, filmed.asked.shot.subjects))
    if json_file is not None:
        write_report(json_file, report)
    if sheet is not None:
        filmed.write_contact_sheet(sheet, report)
