"""The README matches the code and the benchmark results."""

from __future__ import annotations

import json
import re
from pathlib import Path

import msgspec
import pytest
from motionbooth.bench.gpu.report import GpuReport, table_heading
from motionbooth.cli.app import app
from typer.main import get_command

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), ROOT / "shared" / "motionbooth_protocol" / "README.md"]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_to_a_file_and_a_heading(document: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)]+)\)", document.read_text(encoding="utf-8"))
    for link in links:
        path, _, anchor = link.partition("#")
        target = document.parent / path if path else document
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def anchors(document: Path) -> set[str]:
    """The anchors of its headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_file_in_the_file_guide_exists() -> None:
    """The first cell names folders (".../" is the extension; others are siblings), the second one files."""
    guide = README.split("## File guide")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (`[^|]+) \| ([^|]+) \|$", guide, re.MULTILINE)
    assert len(rows) > 15
    for first, second in rows:
        names = [name.replace(".../", "blender_addon/motionbooth_addon/") for name in re.findall(r"`([^`]+)`", first)]
        folders = [ROOT / names[0], *(ROOT / Path(names[0]).parent / name for name in names[1:])]
        assert [folder for folder in folders if not folder.exists()] == []
        files = re.findall(r"`([^`]+)`", second)
        assert [file for file in files if not any((folder / file).exists() for folder in folders)] == []


def test_every_command_is_in_the_readme() -> None:
    commands = get_command(app).commands  # type: ignore[attr-defined]
    assert [name for name in commands if f"motionbooth {name}" not in README] == []


def test_every_figure_in_the_readmes_tables_equals_the_benchs_result() -> None:
    """`bench sampling --model wan` is in docs/bench_sampling_wan.json."""
    heading = r"^\*\*`motionbooth bench ([a-z-]+)(?: --model ([a-z]+))?[^`]*`\*\*"
    parts = re.split(heading, README, flags=re.MULTILINE)[1:]
    stated = {
        (f"{bench}-{model}" if model else bench, name): value
        for bench, model, part in zip(parts[::3], parts[1::3], parts[2::3], strict=True)
        for name, value in re.findall(r"^\| `([a-z0-9_]+)` \| ([-+.,e0-9]+) \|", part, re.MULTILINE)
    }
    measured = {
        (path.stem.removeprefix("bench_").replace("_", "-"), measure["name"]): formatted(measure["value"])
        for path in (ROOT / "docs").glob("bench_*.json")
        for measure in json.loads(path.read_text()).get("measures", [])
    }
    measured["extension", "overlay_ms"] = measured.pop(("overlay", "overlay_ms"))  # by the window test
    benches = {
        "control",
        "camera",
        "windows",
        "identity",
        "masters",
        "memory",
        "sampling",
        "training",
        "server",
        "extension",
        "scheduler",
        "fuzz",
        "soak",
        "real-size",
    }
    assert {bench for bench, _ in stated} == benches | {
        "control-wantoy",
        "real-size-wan",
        "sampling-wan",
        "training-wan",
    }
    assert {figure: measured.get(figure) for figure in stated} == stated


def test_a_row_in_the_table_of_cards_is_the_output_of_a_run() -> None:
    """Others have no figures. The result in docs of an earlier version, which named no card, has no row."""
    table = README.split("## Cards")[1].split("\n## ")[0]
    assert table_heading() in table
    rows = [line for line in table.splitlines() if line.startswith("| ") and line != table_heading()]
    results = [json.loads(path.read_text()) for path in (ROOT / "docs").glob("bench_gpu_*.json")]
    measured = {msgspec.convert(result, GpuReport).row() for result in results if "card" in result}
    assert {row for row in rows if re.search(r"\| [^|-]", row[1:])} == measured


def formatted(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
