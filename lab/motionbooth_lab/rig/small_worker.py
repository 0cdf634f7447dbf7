"""The real worker loop around small work, steered by words: see `run`."""

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
    from motionbooth.server.worker import PipeReporter


def run(spec: JobSpec, blob_path: Callable[[str], Path], scratch: Path, reporter: PipeReporter) -> dict[str, Path]:
    """Steps with a checkpoint after each, then a clip of bytes that the seed chooses, or a subject of its pictures'.

    The words are those of a generate job's prompt, or of a train job's subject's name: `steps=N`, `pause=SECONDS` a
    step, `size=BYTES` of the clip, `checkpoint=BYTES` of a step's; `die` or `die_once` (killed in the second step),
    `die_once_in=STAGE` (loading, working, encoding), `fault`, `invalid`, `memory`, `gpu_memory`; `deaf` (never looks
    whether it was canceled); `preview=BYTES`, one a step.
    """
    is_train = isinstance(spec, TrainSpec)
    words = dict(re.findall(r"(\w+)(?:=(\S+))?", spec.subject.name if isinstance(spec, TrainSpec) else spec.prompt))
    (scratch / "worker.pid").write_text(str(os.getpid()))
    die_once_in("loading", words, scratch)
    checkpoint = scratch / "checkpoint"
    size = int(words.get("checkpoint") or 1)
    first = checkpoint.stat().st_size // size if checkpoint.exists() else 0
    steps = int(words.get("steps") or 4)
    for step in range(first, steps):
        if "deaf" not in words:
            reporter.progress("learning" if is_train else "sampling", step, steps, note=f"from {first}")
        if "preview" in words:
            reporter.preview(bytes([step]) * int(words["preview"]), 64, 48)
        misbehave(words, step, first)
        if step > 0:
            die_once_in("working", words, scratch)
        time.sleep(float(words.get("pause") or 0))
        with checkpoint.open("ab", buffering=0) as file:
            file.write(b"." * size)
    die_once_in("encoding", words, scratch)
    if isinstance(spec, TrainSpec):
        result = scratch / "subject.safetensors"
        result.write_bytes(b"".join(blob_path(picture.image).read_bytes() for picture in spec.subject.pictures))
        return {"subject": result}
    result = scratch / "clip.mp4"
    result.write_bytes(bytes([spec.seed % 256]) * int(words.get("size") or 1000))
    return {"clip": result}


def die_once_in(stage: str, words: dict[str, str], scratch: Path) -> None:
    died = scratch / "died"
    if words.get("die_once_in") == stage and not died.exists():
        died.touch()
        os.kill(os.getpid(), signal.SIGKILL)


def misbehave(words: dict[str, str], step: int, first: int) -> None:
    if ("die" in words and step == max(1, first)) or ("die_once" in words and step == 1 and first == 0):
        os.kill(os.getpid(), signal.SIGKILL)
    if "fault" in words:
        raise ZeroDivisionError("a detail that is no user's business")
    if "invalid" in words:
        raise InvalidInput("The prompt lacks the subject; add it.")
    if "memory" in words:
        bytearray(1 << 62)
    if "gpu_memory" in words:
        raise OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")


class OutOfMemoryError(RuntimeError):
    """Named as torch's own, without loading torch."""


if __name__ == "__main__":
    main(run, Path(sys.argv[1]))
