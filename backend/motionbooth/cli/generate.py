"""`motionbooth generate` and `motionbooth evaluate`: work with clips without Blender and without a backend."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer
from motionbooth_protocol.jobs import Guide, Style
from motionbooth_protocol.limits import BACKGROUND_STRENGTH, MAX_SEED, PICTURE_STRENGTH, SUBJECT_STRENGTH
from motionbooth_protocol.masters import Master

from motionbooth.cli.computing import (
    AttentionOption,
    CompileOption,
    DeviceOption,
    MemoryOption,
    PrecisionOption,
)
from motionbooth.models.memory.options import Computing
from motionbooth.models.post_processing import INTERPOLATOR, UPSCALER

Token = Annotated[str | None, typer.Option(help=r"Replaces \[rare token] in a script (default: the subject's).")]
ClassWord = Annotated[
    str | None, typer.Option("--class", help=r"Replaces \[class name] in a script (default: the subject's).")
]

ScriptModel = Annotated[str, typer.Option(help="Base model that a script is read for.")]
Subjects = Annotated[list[Path] | None, typer.Option(help="Trained subject (.safetensors). Repeat for several.")]
Pictures = Annotated[
    Path | None, typer.Option(help="Folder of the subject's pictures and masks, or with one such folder per subject.")
]


def generate(
    script: Annotated[
        Path, typer.Argument(help="JSON file with prompt, phrases, bbox, bbox_proportions and camera_speed.")
    ],
    out: Annotated[Path, typer.Option(dir_okay=False, help="MP4 file to write. Several takes are numbered.")],
    model: Annotated[str, typer.Option(help="Base model.")] = "toybox",
    seed: Annotated[
        int, typer.Option(min=0, max=MAX_SEED, help="Seed of the first take. The other takes count up from it.")
    ] = 0,
    subject: Subjects = None,
    style: Annotated[
        list[Path] | None,
        typer.Option(
            exists=True, dir_okay=False, help="LoRA of another program for the base model. Repeat for several."
        ),
    ] = None,
    seconds: Annotated[
        float | None,
        typer.Option(
            min=0.1,
            help="Duration. Above that of the model's clip, the frames are generated in overlapping windows. "
            "Default: the model's clip",
        ),
    ] = None,
    style_strength: Annotated[
        list[float] | None,
        typer.Option(min=-2, max=2, help="Strength of each style, in their order (default: 1). Repeat for several."),
    ] = None,
    takes: Annotated[int, typer.Option(min=1, help="Number of takes. They are sorted by adherence, best first.")] = 1,
    batch_size: Annotated[
        int, typer.Option(min=1, help="Takes per batch. Faster on a GPU, but needs more memory.")
    ] = 1,
    guide: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="Clip to start from, such as a simple render of the scene, or picture that is the first frame.",
        ),
    ] = None,
    guide_masks: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="Clip that is white where the guide shows a subject."),
    ] = None,
    subject_strength: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, help=f"How closely the subjects follow the guide. 0: not at all. Default: {SUBJECT_STRENGTH}"
        ),
    ] = None,
    background_strength: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help=f"How closely the background follows the guide. Default: {BACKGROUND_STRENGTH}, "
            f"with a picture {PICTURE_STRENGTH}",
        ),
    ] = None,
    interpolator: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            envvar=INTERPOLATOR,
            help="Network for in-betweens, in TorchScript (film_net_fp32.pt). Default: frames are held.",
        ),
    ] = None,
    upscaler: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="Network that enlarges the frames, in safetensors."),
    ] = None,
    master: Annotated[
        Master | None,
        typer.Option(help="Also write the exact frames beside the clip: a movie, or a folder of 16-bit pictures."),
    ] = None,
    token: Token = None,
    class_word: ClassWord = None,
    device: DeviceOption = "auto",
    memory: MemoryOption = "auto",
    precision: PrecisionOption = "auto",
    attention: AttentionOption = "auto",
    compile: CompileOption = False,
) -> None:
    """Generate a clip from a script in the format of the MotionBooth paper's authors, without a backend."""
    from msgspec.structs import replace
    from rich.console import Console

    from motionbooth.generation.script import Placeholders, script_with_subjects
    from motionbooth.jobs.takes import generate_best_of, takes_table
    from motionbooth.progress.display import DisplayReporter, progress_display

    computing = Computing(device, memory, precision, attention, compile)
    computing.check()
    subjects = subject or []
    placeholders = Placeholders.of(token, class_word, subjects)
    spec = script_with_subjects(script, model, seed, subjects, placeholders, seconds)
    spec = replace(spec, styles=_styles(style or [], style_strength or []), master=master)
    for variable, path in ((INTERPOLATOR, interpolator), (UPSCALER, upscaler)):
        if path is not None:
            os.environ[variable] = str(path)
    spec = replace(spec, upscale=upscaler is not None)
    if guide is not None:
        spec = replace(spec, guide=_guide(guide, guide_masks, subject_strength, background_strength))
    elif any(option is not None for option in (guide_masks, subject_strength, background_strength)):
        raise typer.BadParameter("These are options of a guide; name its clip with --guide.")
    console = Console(markup=False)
    with progress_display(console) as show:
        ranked = generate_best_of(spec, takes, batch_size, out, Path, DisplayReporter(show), computing)
    console.print(takes_table(ranked))


def _styles(paths: list[Path], strengths: list[float]) -> list[Style]:
    """Raises BadParameter if only some have a strength."""
    if strengths and len(strengths) != len(paths):
        raise typer.BadParameter(f"Name --style-strength once for each --style ({len(paths)}), or not at all.")
    return [Style(str(path), strength) for path, strength in zip(paths, strengths or [1.0] * len(paths), strict=True)]


def _guide(clip: Path, masks: Path | None, subject: float | None, background: float | None) -> Guide:
    """The guide; a strength of None is the usual one. Raises BadParameter for the masks of a picture."""
    from motionbooth.generation.first_frame import is_picture

    has_picture = is_picture(clip)
    if has_picture and masks is not None:
        raise typer.BadParameter("A guide that is a picture has no masks. Omit --guide-masks.")
    if subject is None:
        subject = SUBJECT_STRENGTH
    if background is None:
        background = PICTURE_STRENGTH if has_picture else BACKGROUND_STRENGTH
    return Guide(str(clip), subject, background, None if masks is None else str(masks))


def evaluate(
    clip: Annotated[Path, typer.Argument(help="Clip that was generated from the shot.")],
    shot: Annotated[Path, typer.Option(help="The shot: the shot.json next to a clip from Blender, or a script.")],
    subject: Subjects = None,
    pictures: Pictures = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", dir_okay=False, help="Write the frame-by-frame report to this JSON file.")
    ] = None,
    model: ScriptModel = "toybox",
    sheet: Annotated[
        Path | None,
        typer.Option(dir_okay=False, help="Write a PNG of the frames with the requested and the detected boxes."),
    ] = None,
    measures: Annotated[
        Path | None,
        typer.Option(
            file_okay=False,
            help="Also measure the paper's figures, with the networks in the folders clip, dino and raft of this one.",
        ),
    ] = None,
    token: Token = None,
    class_word: ClassWord = None,
) -> None:
    """Measure how closely a clip follows its boxes and its camera path."""
    from rich.console import Console

    from motionbooth.evaluation.generated_shot import GeneratedShot, pictures_for, read_spec, report_table
    from motionbooth.evaluation.report import write_report
    from motionbooth.generation.script import Placeholders

    spec = read_spec(shot, model, Placeholders.of(token, class_word, subject or []))
    generated = GeneratedShot.load(clip, spec, {} if pictures is None else pictures_for(spec, pictures))
    for path in subject or []:
        generated = generated.with_subject(path)
    report = generated.report()
    console = Console(markup=False)
    console.print(report_table(report, spec.shot.subjects))
    if measures is not None:
        from motionbooth.evaluation.networks import load_networks
        from motionbooth.evaluation.paper_figures import paper_report, paper_table
        from motionbooth.export.point_tracks import point_tracks

        tracks = point_tracks(spec.shot, (report.width, report.height))
        networks = load_networks(measures)
        report = paper_report(generated.frames, spec, report, generated.pictures, networks, tracks)
        assert report.paper is not None
        console.print(paper_table(report.paper, report.width, report.height))
    if json_file is not None:
        write_report(json_file, report)
    if sheet is not None:
        generated.write_contact_sheet(sheet, report)
