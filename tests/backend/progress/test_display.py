"""The progress of a job in a terminal."""

from __future__ import annotations

import io

from motionbooth.progress.display import StageBars
from motionbooth_protocol.reports import ProgressReport
from motionbooth_protocol.text import Text
from rich.console import Console
from rich.progress import Progress


def test_a_note_shows_file_names_as_they_are() -> None:
    console = Console(file=io.StringIO(), width=120)
    with Progress(console=console) as bars:
        note = Text.of("{picture} is dark", picture="hero [final] [/old].png")
        StageBars(bars).show(ProgressReport("training", 0, 10, None, note))
    assert isinstance(console.file, io.StringIO)
    assert "Note: hero [final] [/old].png is dark." in console.file.getvalue()
