"""CameraCtrl as a rival of `motionbooth bench paper`: its own checkout, called as a process.

    python -m motionbooth.bench.cameractrl PYTHON CHECKOUT OPTIONS... SHOT CLIP

PYTHON is the command of the Python in CameraCtrl's own environment, such as "conda run -n cameractrl python". OPTIONS
are those of its inference.py that name its models; the trajectory, the prompt and the seed are of the shot.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from motionbooth_protocol.errors import MotionBoothError

from motionbooth.evaluation.generated_shot import read_spec
from motionbooth.export.camera_files import cameractrl_options
from motionbooth.export.formats import FORMATS, Media, export_shot


def main(python: str, checkout: str, *others: str) -> None:
    """Generate the shot into the clip. Exits with a message, or with CameraCtrl's own error, if that fails."""
    *options, shot, clip = others
    size = FORMATS["cameractrl"].size
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        try:
            export_shot(read_spec(Path(shot), ""), "cameractrl", folder, Media(), size)
        except MotionBoothError as error:
            sys.exit(str(error))
        command = [*shlex.split(python), "inference.py", *options, *cameractrl_options(folder, size)]
        ran = subprocess.run(command, cwd=checkout, check=False)
        if ran.returncode != 0:
            sys.exit(ran.returncode)
        made = sorted((folder / "clips").rglob("*.mp4"))
        if not made:
            sys.exit("CameraCtrl wrote no clip.")
        shutil.move(made[0], clip)


if __name__ == "__main__":
    main(*sys.argv[1:])
