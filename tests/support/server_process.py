"""A real server in a process of its own whose worker does small work: `python server_process.py HOME ADDRESS`.

In the environment: CRASH=before or CRASH=after kills it at the commit that keeps a new job; FILE_LIMIT=BYTES stands for
a full disk: no file can grow beyond it; IDLE_SECONDS=N forgets idle sessions sooner.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
from pathlib import Path

from motionbooth.server import scheduler, serve, sessions, store
from motionbooth_protocol.errors import MotionBoothError
from motionbooth_protocol.messages import ModelInfo

SMALL_WORKER = Path(__file__).with_name("small_worker.py")
SMALL_MODEL = ModelInfo(name="small", frames=8, width=96, height=64, fps=8.0)


class CrashingStore(store.Store):
    """Dies as by a power cut at the commit of the first new job."""

    def _insert(self, *job: object) -> int:
        commit = self.database.commit

        def die_at_commit() -> None:
            if os.environ["CRASH"] == "after":
                commit()
            os.kill(os.getpid(), signal.SIGKILL)

        self.database.commit = die_at_commit  # type: ignore[method-assign]
        return super()._insert(*job)  # type: ignore[arg-type]


def main(home: Path, address: str) -> None:
    if "CRASH" in os.environ:
        serve.Store = CrashingStore  # type: ignore[misc]
    if "FILE_LIMIT" in os.environ:
        limit = int(os.environ["FILE_LIMIT"])
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    if "IDLE_SECONDS" in os.environ:
        sessions._IDLE_SECONDS = float(os.environ["IDLE_SECONDS"])
    scheduler.CANCEL_GRACE_SECONDS = 1.0
    try:
        serve.serve(home, address, [SMALL_MODEL], worker_command=[sys.executable, str(SMALL_WORKER), str(home)])
    except MotionBoothError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
