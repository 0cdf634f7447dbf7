"""The folder that the backend's commands share."""

from pathlib import Path
from typing import Annotated

import platformdirs
import typer

DEFAULT_HOME = platformdirs.user_data_path("motionbooth")
Home = Annotated[Path, typer.Option(help="The backend's folder for keys, jobs and results.")]
