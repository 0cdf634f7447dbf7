"""The real worker loop around small work, steered by the words of a generate job's prompt: see `run`."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from motionbooth.server.worker import main
from motionbooth_protocol.errors import InvalidInput
from motionbooth_protocol.jobs import JobSpec, TrainSpec

if TYPE_CHECKING:
    from motionbooth.work import Reporter


def run(spec: JobSpec, blob_path: Callable[[str], Path], scratch: Path, reporter: Reporter) -> dict[str, Path]:
    """Steps with a checkpoint after each, then a clip of bytes that the seed chooses.

    `steps=N`, `pause=SECONDS` a step, `size=BYTES` of the clip; `die` or `die_once` (killed in the second step),
    `fault`, `invalid`, `memory`; `deaf` (never looks whether it was canceled). A train job's subject is its pictures'
    bytes.
    """
    if isinstance(spec, TrainSpec):
        subject = scratch / "subject.safetensors"
        subject.write_bytes(b"".join(blob_path(picture.image).read_bytes() for picture in spec.subject.pictures))
        return {"subject": subject}
    words = dict(re.findall(r"(\w+)(?:=(\S+))?", spec.prompt))
    (scratch / "worker.pid").write_text(str(os.getpid()))
    checkpoint = scratch / "checkpoint"
    first = len(checkpoint.read_bytes()) if checkpoint.exists() else 0
    steps = int(words.get("steps") or 4)
    for step in range(first, steps):
        if "deaf" not in words:
            reporter.progress("sampling", step, steps, note=f"from {first}")
        misbehave(words, step, first)
        time.sleep(float(words.get("pause") or 0))
        with checkpoint.open("ab") as file:
            file.write(b".")
    clip = scratch / "clip.mp4"
    clip.write_bytes(bytes([spec.seed % 256]) * int(words.get("size") or 1000))
    return {"clip": clip}


def misbehave(words: dict[str, str], step: int, first: int) -> None:
    if ("die" in words and step == max(1, first)) or ("die_once" in words and step == 1 and first == 0):
        os.kill(os.getpid(), signal.SIGKILL)
    if "fault" in words:
        raise ZeroDivisionError("a detail that is no user's business")
    if "invalid" in words:
        raise InvalidInput("The prompt lacks the subject; add it.")
    if "memory" in words:
        bytearray(1 << 62)


if __name__ == "__main__":
    main(run, Path(sys.argv[1]))
