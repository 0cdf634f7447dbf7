"""Starts a worker on a machine of a cluster, in a sandbox if there can be one: `python -m ... HOME ARGUMENTS`.

ARGUMENTS make this machine's Python the worker of the backend whose folder is HOME.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from motionbooth.models.sources import caches, model_folders
from motionbooth.server.sandbox import own_user_problem, sandbox_problem, sandboxed


def main(home: Path, arguments: list[str]) -> None:
    """Become the worker. Its models and caches are those of this machine."""
    command, models = [sys.executable, *arguments], model_folders()
    problem: object = sandbox_problem()
    if problem is None and os.geteuid() == 0:
        # Other machines of the cluster may give the backend's files to the workers' own user.
        problem = own_user_problem(models)
    if problem is None:
        command = sandboxed(command, home, models, caches())
    else:
        print(f"A worker runs without a sandbox: {problem}.", file=sys.stderr, flush=True)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
