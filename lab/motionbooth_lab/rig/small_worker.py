"""The real worker loop with small jobs that follow commands in the prompt: see `run`."""

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
from motionbooth_protocol.text import Text

if TYPE_CHECKING:
    from motionbooth.server.worker import PipeReporter


def run(spec: JobSpec, blob_path: Callable[[str], Path], scratch: Path, reporter: PipeReporter) -> dict[str, Path]:
    """Run a few steps with a checkpoint after each, then write a clip or a subject.

    The clip's bytes depend on the seed, the subject's bytes are those of its pictures. The prompt of a generate job or
    the subject's name of a train job holds the commands: `steps=N`, `pause=SECONDS` per step, `size=BYTES` of the clip,
    `checkpoint=BYTES`, `preview=BYTES` and `log=BYTES` per step; `die` or `die_once` (killed in the second step),
    `die_once_in=STAGE` (loading, working, encoding); `fault`, `invalid`, `unreadable`, `memory`, `gpu_memory`
    and `gpu_fault` (errors); `deaf` (never checks whether it was canceled); `hang` (in a call that holds the
    interpreter's lock); `linked` (the clip is a link to another file).
    """
    is_train = isinstance(spec, TrainSpec)
    commands = dict(re.findall(r"(\w+)(?:=(\S+))?", spec.subject.name if isinstance(spec, TrainSpec) else spec.prompt))
    (scratch / "worker.pid").write_text(str(os.getpid()))
    die_once_in("loading", commands, scratch)
    checkpoint = scratch / "checkpoint"
    size = int(commands.get("checkpoint") or 1)
    first = checkpoint.stat().st_size // size if checkpoint.exists() else 0
    steps = int(commands.get("steps") or 4)
    for step in range(first, steps):
        if "deaf" not in commands:
            reporter.progress(
                "training" if is_train else "sampling", step, steps, note=Text.of("from {first}", first=first)
            )
        if "preview" in commands:
            reporter.preview(bytes([step]) * int(commands["preview"]), 64, 48)
        if "log" in commands:
            sys.stderr.write("." * (int(commands["log"]) - 1) + "\n")
        misbehave(commands, step, first)
        if step > 0:
            die_once_in("working", commands, scratch)
        time.sleep(float(commands.get("pause") or 0))
        with checkpoint.open("ab", buffering=0) as file:
            file.write(b"." * size)
    die_once_in("encoding", commands, scratch)
    if isinstance(spec, TrainSpec):
        result = scratch / "subject.safetensors"
        result.write_bytes(b"".join(blob_path(picture.image).read_bytes() for picture in spec.subject.pictures))
        return {"subject": result}
    result = scratch / "clip.mp4"
    if "linked" in commands:
        result.symlink_to(scratch.parents[1] / "connection.json")
        return {"clip": result}
    result.write_bytes(bytes([spec.seed % 256]) * int(commands.get("size") or 1000))
    return {"clip": result}


def die_once_in(stage: str, commands: dict[str, str], scratch: Path) -> None:
    died = scratch / "died"
    if commands.get("die_once_in") == stage and not died.exists():
        died.touch()
        os.kill(os.getpid(), signal.SIGKILL)


def misbehave(commands: dict[str, str], step: int, first: int) -> None:
    if ("die" in commands and step == max(1, first)) or ("die_once" in commands and step == 1 and first == 0):
        os.kill(os.getpid(), signal.SIGKILL)
    if "fault" in commands:
        raise ZeroDivisionError("an internal detail")
    if "hang" in commands:
        re.fullmatch("(a|aa)+b", "a" * 200)  # takes ages, during which no other thread runs
    if "invalid" in commands:
        raise InvalidInput("The prompt lacks the subject; add it.")
    if "unreadable" in commands:
        read(Path(__file__).with_name("weights"))
    if "memory" in commands:
        bytearray(1 << 62)
    if "gpu_memory" in commands:
        raise OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
    if "gpu_fault" in commands:
        raise RuntimeError("CUDA error: device-side assert triggered\nCUDA kernel errors might be reported later")


def read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidInput("{path} cannot be read ({reason}).", path=path, reason=error) from error


class OutOfMemoryError(RuntimeError):
    """Named like torch's own error, without importing torch."""


if __name__ == "__main__":
    main(run, Path(sys.argv[1]))
