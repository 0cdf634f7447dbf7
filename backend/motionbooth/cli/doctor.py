"""For whoever runs a backend and wonders: `motionbooth doctor`."""

from typing import Annotated

import typer

from motionbooth.cli.home import DEFAULT_HOME, Home

_COLORS = {"ok": "green", "mended": "cyan", "warning": "yellow", "fault": "bold red"}


def doctor(
    home: Home = DEFAULT_HOME,
    address: Annotated[str, typer.Option(help="Where the backend shall listen.")] = "tcp://127.0.0.1:5599",
    mend: Annotated[bool, typer.Option(help="Put right what can be without losing anything.")] = False,
) -> None:
    """Look at the backend's folder and at this machine, and say what to do; exit status 1 where there is a fault."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Column, Table

    from motionbooth.doctor.folder import examine_folder
    from motionbooth.doctor.machine import examine_machine

    findings = [*examine_machine(home.absolute(), address), *examine_folder(home.absolute(), mend)]
    table = Table("", "", Column("found", overflow="fold"), Column("what to do", overflow="fold"))
    for finding in findings:
        color = _COLORS[finding.state]
        state = f"[{color}]{finding.state}[/]"
        table.add_row(finding.about, state, escape(finding.seen), escape(finding.advice))
    Console().print(table)
    if any(finding.state == "fault" for finding in findings):
        raise typer.Exit(1)
