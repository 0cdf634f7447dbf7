"""The parts of `bench gpu`, run one after the other and continued from an earlier run's file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from motionbooth_protocol.errors import InvalidInput
from rich.console import Console

from motionbooth.bench.gpu.card import accelerator, card_of
from motionbooth.bench.gpu.checkout import bench_control_on, bench_tests
from motionbooth.bench.gpu.kernels import bench_kernels
from motionbooth.bench.gpu.networks import bench_wan, bench_zeroscope
from motionbooth.bench.gpu.part import Part, run_part
from motionbooth.bench.gpu.precision import bench_precision
from motionbooth.bench.gpu.report import GpuReport, continued
from motionbooth.bench.measures import BenchResult, publish, write_json

PARTS: Mapping[str, Part] = {
    "precision": Part(bench_precision, "float32, float16, bfloat16"),
    "zeroscope": Part(bench_zeroscope, "float16; float32 in training"),
    "wan-1.3b": Part(bench_wan, "bfloat16; float32 in training"),
    "kernels": Part(bench_kernels, "float16 for Zeroscope, bfloat16 for Wan"),
    "tests": Part(bench_tests, "float32, float16, bfloat16"),
    "control": Part(bench_control_on, "float16 for toybox, bfloat16 for wantoy"),
}


def bench_gpu(
    chosen: Sequence[str] = (),
    json_file: Path | None = None,
    fresh: bool = False,
    device: torch.device | None = None,
    parts: Mapping[str, Part] = PARTS,
) -> GpuReport:
    """Run the chosen ones of `parts`, by default all, on `device`, by default the one that torch would use.

    The report is written to `json_file` after each part. A part that is done there already, on the same card and with
    the same version, is not run again unless `fresh`. Raises InvalidInput for an unknown part, without an accelerator,
    or if the file has anything else in it.
    """
    if unknown := set(chosen) - set(parts):
        raise InvalidInput("There is no part {part}. The parts are {parts}.", part=min(unknown), parts=", ".join(parts))
    device = device or accelerator()
    report = continued(json_file, card_of(device), fresh)
    write_json(report, json_file)  # now, in case that it cannot be written
    console = Console(stderr=True, highlight=False)
    for name in dict.fromkeys(chosen or parts):
        if not fresh and name in report.parts and report.parts[name].state == "done":
            console.print(f"{name}: in {json_file} already")
            continue
        console.print(f"{name} ...")
        report.parts[name] = run_part(name, parts[name], device)
        write_json(report, json_file)
    return report


def publish_report(report: GpuReport, markdown: bool = False) -> None:
    """Print the table, and below it how long each part took and what failed; or the row of the README's table."""
    if markdown:
        print(report.row())
        return
    publish(BenchResult("gpu", report.measures), None)
    card = report.card
    console = Console(highlight=False)
    console.print(f"{card.name}, {card.kind}, {card.memory_gb:.1f} GB, driver {card.driver}, torch {card.torch}")
    for name, part in report.parts.items():
        console.print(f"{name}: {part.state} in {part.seconds:.0f} s ({part.dtype})")
        for reason in part.reasons:
            console.print(f"  {reason}", style="red", markup=False)
    console.print(f"all parts: {sum(part.seconds for part in report.parts.values()):.0f} s")
