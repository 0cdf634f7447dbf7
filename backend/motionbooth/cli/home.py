"""The backend's data folder, which its commands share."""

from pathlib import Path
from typing import Annotated

import platformdirs
import typer
from motionbooth_protocol.errors import NotFound

DEFAULT_HOME = platformdirs.user_data_path("motionbooth")
Home = Annotated[Path, typer.Option(file_okay=False, help="The backend's data folder (keys, jobs, results).")]


def existing(home: Path) -> Path:
    """The absolute path of an existing data folder. Raises NotFound: commands that only read must not create one."""
    if not (home / "keys").is_dir() and not (home / "authorized").is_dir():
        raise NotFound(
            "There is no backend in {home}. Check --home. `motionbooth serve` creates one there at its first start.",
            home=home,
        )
    return home.absolute()
