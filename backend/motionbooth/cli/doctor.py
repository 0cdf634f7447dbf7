"""`motionbooth doctor`: check a backend's data folder and this machine."""

from typing import Annotated

import typer

from motionbooth.cli.home import DEFAULT_HOME, Home

_COLORS = {"ok": "green", "fixed": "cyan", "warning": "yellow", "fault": "bold red"}


def doctor(
    home: Home = DEFAULT_HOME,
    address: Annotated[str, typer.Option(help="Address that the backend listens on.")] = "tcp://127.0.0.1:5599",
    fix: Annotated[bool, typer.Option("--fix", help="Fix what can be fixed without losing data.")] = False,
) -> None:
    """Check the backend's data folder and this machine, and suggest what to do.

    The exit status is 1 if there is a fault.
    """
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Column, Table

    from motionbooth.doctor.folder import examine_folder
    from motionbooth.doctor.machine import examine_machine

    findings = [*examine_machine(home.absolute(), address), *examine_folder(home.absolute(), fix)]
    table = Table("check", "state", Column("found", overflow="fold"), Column("what to do", overflow="fold"))
    for finding in findings:
        color = _COLORS[finding.state]
        table.add_row(finding.about, f"[{color}]{finding.state}[/]", escape(finding.found), escape(finding.advice))
    Console().print(table)
    if any(finding.state == "fault" for finding in findings):
        raise typer.Exit(1)
