"""`motionbooth batch`: the extension's batch command."""

import subprocess
import sys

import typer


def batch(context: typer.Context) -> None:
    """Generate every shot of many .blend files with a running backend. `motionbooth batch --help` lists the options."""
    # The extension has another license, so it is started as a program. It declares the options.
    process = subprocess.Popen([sys.executable, "-m", "motionbooth_addon.batch.runner", *context.args])
    while True:
        try:
            raise typer.Exit(process.wait())
        except KeyboardInterrupt:
            continue  # the extension has received it, too, and cancels its jobs
