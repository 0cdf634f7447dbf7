"""A real server in a process of its own whose worker runs small work: `python server_process.py HOME [ADDRESS]`.

CRASH=before or CRASH=after in the environment kills it at the commit that keeps a new job.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from motionbooth.server import store
from motionbooth.server.serve import serve
from motionbooth_protocol.messages import ModelInfo

SMALL_WORKER = Path(__file__).with_name("small_worker.py")


def crash_at_the_next_submit(moment: str) -> None:
    """Die as by a power cut, before or after the commit of a new job."""

    class CrashingStore(store.Store):
        def _insert(self, *job: object) -> int:
            number = super()._insert(*job)  # type: ignore[arg-type]
            self._dies = True
            return number

        def _commit(self) -> None:
            dies = getattr(self, "_dies", False)
            if dies and moment == "before":
                os.kill(os.getpid(), signal.SIGKILL)
            super()._commit()
            if dies:
                os.kill(os.getpid(), signal.SIGKILL)

    import motionbooth.server.serve as module

    module.Store = CrashingStore  # type: ignore[misc]


if __name__ == "__main__":
    home = Path(sys.argv[1])
    if "CRASH" in os.environ:
        crash_at_the_next_submit(os.environ["CRASH"])
    serve(
        home,
        sys.argv[2] if len(sys.argv) > 2 else "tcp://127.0.0.1:*",
        models=[ModelInfo(name="small", frames=8, width=96, height=64, fps=8.0)],
        worker_command=[sys.executable, str(SMALL_WORKER), str(home)],
    )
