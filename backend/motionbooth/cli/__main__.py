"""`python -m motionbooth.cli`, the same as the program `motionbooth`."""

from motionbooth.cli.app import app

app()
