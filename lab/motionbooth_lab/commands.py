"""The benches that only a checkout has, as commands of `motionbooth bench`."""

from pathlib import Path
from typing import Annotated, Literal

import typer
from motionbooth.cli.bench import JsonFile


def training(
    json_file: JsonFile = None,
    rounds: Annotated[int, typer.Option(min=1, help="Repetitions. The figures are medians.")] = 5,
    large: Annotated[
        bool, typer.Option(help="Use latents of 40 x 72 cells instead of 20 x 36 (five times slower).")
    ] = False,
    model: Annotated[Literal["zeroscope", "wan"], typer.Option(help="Kind of network.")] = "zeroscope",
) -> None:
    """Measure the time and memory that fine-tuning needs beyond the plain network."""
    from motionbooth.bench.measures import publish

    from motionbooth_lab.bench import sampling_wan, training, training_wan

    if model == "wan":
        publish(training_wan.bench_training_wan(rounds, (40, 72) if large else sampling_wan.LATENTS), json_file)
    else:
        publish(training.bench_training(rounds, (40, 72) if large else training.LATENTS), json_file)


def sampling(
    json_file: JsonFile = None,
    rounds: Annotated[int, typer.Option(min=1, help="Repetitions. The figures are medians.")] = 5,
    large: Annotated[
        bool, typer.Option(help="Use latents of 40 x 72 cells instead of 20 x 36 (about half an hour).")
    ] = False,
    model: Annotated[Literal["zeroscope", "wan"], typer.Option(help="Kind of network.")] = "zeroscope",
) -> None:
    """Measure the time and memory that control adds to a denoising step of diffusers."""
    from motionbooth.bench.measures import publish

    from motionbooth_lab.bench import sampling, sampling_wan

    if model == "wan":
        publish(sampling_wan.bench_sampling_wan((40, 72) if large else sampling_wan.LATENTS, rounds), json_file)
    else:
        publish(sampling.bench_sampling((40, 72) if large else sampling.LATENTS, rounds), json_file)


def control(
    json_file: JsonFile = None,
    pictures: Annotated[
        Path | None, typer.Option(file_okay=False, help="Write contact sheets of the clips to this folder.")
    ] = None,
    all_words: Annotated[
        bool | None,
        typer.Option(
            "--suppress-all-words/--suppress-subjects-words",
            help="Words that a box suppresses outside it (default: the model's choice).",
        ),
    ] = None,
    subjects: Annotated[
        Path | None,
        typer.Option(
            file_okay=False,
            exists=True,
            help="Measure the subjects in this folder (one folder of photographs each) instead.",
        ),
    ] = None,
    model: Annotated[Literal["toybox", "wantoy"], typer.Option(help="The bundled model to measure.")] = "toybox",
    kinds_only: Annotated[
        bool, typer.Option("--kinds-only", help="Measure the model's own kinds only, and train no subjects.")
    ] = False,
    kinds: Annotated[int, typer.Option(min=1, max=32, help="Clips of the model's own kinds.")] = 32,
    bundle: Annotated[
        Path | None,
        typer.Option(file_okay=False, exists=True, help="Other weights of the model; implies --kinds-only."),
    ] = None,
    split_prompt: Annotated[
        bool, typer.Option("--split-prompt", help="Cells outside the boxes have a prompt without the subject.")
    ] = False,
    tie_until: Annotated[
        float | None, typer.Option(min=0, max=1, help="Tie subjects across frames up to this share of the window.")
    ] = None,
) -> None:
    """Measure box adherence, camera adherence and identity of a bundled model, with and without control."""
    from motionbooth.bench.measures import publish

    from motionbooth_lab.bench.bundled import Model
    from motionbooth_lab.bench.control import UNSEEN, bench_control

    settings = {
        "suppress": None if all_words is None else "content" if all_words else "subject",
        "split_prompt": split_prompt or None,
        "tie_until": tie_until,
    }
    changed = tuple((name, value) for name, value in settings.items() if value is not None)
    unseen = 0 if kinds_only or bundle is not None else UNSEEN
    publish(bench_control(Model(model, changed, bundle), pictures, subjects, unseen, kinds), json_file)


def guide(
    json_file: JsonFile = None,
    pictures: Annotated[
        Path | None, typer.Option(file_okay=False, help="Write a contact sheet of the clips to this folder.")
    ] = None,
    model: Annotated[Literal["toybox", "wantoy"], typer.Option(help="The bundled model to measure.")] = "toybox",
) -> None:
    """Measure what a guide keeps and what it leaves free, over its strengths. Needs the bpy module."""
    from motionbooth.bench.measures import publish

    from motionbooth_lab.bench.guide import bench_guide

    publish(bench_guide(pictures, model), json_file)


def camera(
    json_file: JsonFile = None,
    seeds: Annotated[int, typer.Option(min=1, max=32, help="Clips for each camera move.")] = 8,
    pictures: Annotated[
        Path | None, typer.Option(file_okay=False, help="Write a contact sheet of the clips to this folder.")
    ] = None,
    model: Annotated[Literal["toybox", "wantoy"], typer.Option(help="The bundled model to measure.")] = "toybox",
) -> None:
    """Measure how closely the scenery follows pans, zooms, rolls and mixed camera moves. Needs the bpy module."""
    from motionbooth.bench.measures import publish

    from motionbooth_lab.bench.bundled import Model
    from motionbooth_lab.bench.camera import bench_camera

    publish(bench_camera(range(seeds), pictures, Model(model)), json_file)


def windows(
    json_file: JsonFile = None,
    cases: Annotated[int, typer.Option(min=1, max=32, help="Long clips.")] = 6,
    model: Annotated[Literal["toybox", "wantoy"], typer.Option(help="The bundled model to measure.")] = "toybox",
) -> None:
    """Measure clips that are longer than the model's: their seams, and how closely they follow boxes and camera."""
    from motionbooth.bench.measures import publish

    from motionbooth_lab.bench.bundled import Model
    from motionbooth_lab.bench.windows import bench_windows

    publish(bench_windows(cases, Model(model)), json_file)


def identity(
    json_file: JsonFile = None,
    tuning: Annotated[
        bool, typer.Option("--tuning", help="Show the subjects on which the constants were chosen instead.")
    ] = False,
) -> None:
    """Measure whether the built-in measure of identity recognizes a subject, two equal ones, and nothing else."""
    from motionbooth.bench.measures import publish

    from motionbooth_lab.bench.recognition import bench_identity

    publish(bench_identity(tuning), json_file)


def masters(json_file: JsonFile = None) -> None:
    """Measure how exactly each master gives back the decoded frames of a generated clip and of hard ones."""
    from motionbooth.bench.measures import publish

    from motionbooth_lab.bench.masters import bench_masters

    publish(bench_masters(), json_file)


def extension(json_file: JsonFile = None) -> None:
    """Measure the extension's speed in Blender and how exactly it reads a shot. Needs the bpy module."""
    from motionbooth.bench.measures import publish

    from motionbooth_lab.bench.extension import bench_extension

    publish(bench_extension(), json_file)


def server(json_file: JsonFile = None) -> None:
    """Measure the server: transfers, submissions, many clients, many jobs, and the faults that it survives."""
    from motionbooth.bench.measures import publish

    from motionbooth_lab.bench.server import bench_server

    publish(bench_server(), json_file)


def scheduler(
    json_file: JsonFile = None,
    jobs: Annotated[
        int, typer.Option(min=1000, help="Jobs in each simulation and in the last part's queue.")
    ] = 100_000,
    folder: Annotated[
        Path | None,
        typer.Option(exists=True, file_okay=False, help="Folder for the job store, on the disk to measure."),
    ] = None,
) -> None:
    """Simulate the waiting times with 1, 8, 64 and 512 workers, and measure how many workers a server can serve."""
    from motionbooth.bench.measures import publish

    from motionbooth_lab.bench.scheduler import bench_scheduler

    publish(bench_scheduler(jobs, folder), json_file)


def ablation(
    json_file: JsonFile = None,
    subjects: Annotated[int, typer.Option(min=1, max=10, help="How many of bench control's subjects.")] = 2,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Steps of each training (default: the model's own number).")
    ] = None,
    recipe: Annotated[list[str] | None, typer.Option(help="Only this recipe; repeat the option for several.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of each subject, for the intervals.")] = 1,
    fresh: Annotated[bool, typer.Option("--fresh", help="Ignore the cached results of earlier runs.")] = False,
) -> None:
    """Compare the training recipes on the same pictures and seeds: what does each loss contribute?

    Every result is cached as soon as it is finished. If the bench is interrupted, run it again to continue.
    """
    from motionbooth.bench.measures import publish
    from motionbooth.finetuning.recipes import RECIPES, recipe_named

    from motionbooth_lab.bench.ablation import bench_ablation

    chosen = [name for name in recipe or RECIPES if recipe_named(name)]
    publish(bench_ablation(subjects, steps, chosen, seeds, fresh), json_file)


def fuzz(
    json_file: JsonFile = None,
    messages: Annotated[
        int, typer.Option(min=1000, help="Messages for the decoder, and as many for a session.")
    ] = 1_000_000,
    seconds: Annotated[float, typer.Option(min=1, help="Time limit for each of the two.")] = 600.0,
    seed: Annotated[int, typer.Option(min=0, help="Random seed. The same seed sends the same messages.")] = 0,
) -> None:
    """Send malformed messages to the decoder and to a server. All must be rejected without harm."""
    from motionbooth.bench.measures import publish

    from motionbooth_lab.rig.fuzz import bench_fuzz

    publish(bench_fuzz(messages, seconds, seed), json_file)


def soak(
    minutes: Annotated[float, typer.Option(min=0.1, help="Duration of the fault injection.")] = 60.0,
    jobs_per_minute: Annotated[
        float, typer.Option(min=0, help="Jobs of all clients together. 0: as many as possible.")
    ] = 0.0,
    seed: Annotated[int, typer.Option(min=0, help="Random seed of the faults.")] = 0,
    json_file: JsonFile = None,
) -> None:
    """Inject random faults into a real server (killed processes, a faulty network). No job may be lost."""
    from motionbooth.bench.measures import publish
    from rich.console import Console

    from motionbooth_lab.rig.soak import soak as run_soak

    publish(run_soak(minutes, seed, jobs_per_minute, Console()), json_file)


def memory(json_file: JsonFile = None) -> None:
    """Compare the memory that each memory plan is predicted to need with what it needs, on the CPU."""
    from motionbooth.bench.measures import publish

    from motionbooth_lab.bench.memory_plans import bench_memory

    publish(bench_memory(), json_file)


def add_benches(bench: typer.Typer) -> None:
    """Add the commands of this module to `motionbooth bench`."""
    for command in (
        training,
        sampling,
        memory,
        control,
        guide,
        camera,
        windows,
        identity,
        masters,
        extension,
        server,
        scheduler,
        ablation,
        fuzz,
        soak,
    ):
        bench.command()(command)
