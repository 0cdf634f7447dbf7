"""The real worker loop around small work, steered by the prompt of a generate job: see `run`."""

from __future__ import annotations

import json
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
    """Words of the prompt: `steps=N`, `pause=SECONDS` (a step), `size=BYTES` (of the clip); `die`, `die_once`, `fault`,
    `invalid`, `memory`, `deaf` (does not look whether it was canceled). The clip is the same for the same seed.
    """
    if isinstance(spec, TrainSpec):
        subject = scratch / "subject.safetensors"
        subject.write_bytes(b"".join(blob_path(picture.image).read_bytes() for picture in spec.subject.pictures))
        return {"subject": subject}
    words = dict(re.findall(r"(\w+)(?:=(\S+))?", spec.prompt))
    checkpoint = scratch / "checkpoint.json"
    first = json.loads(checkpoint.read_text()) if checkpoint.exists() else 0
    steps = int(words.get("steps") or 4)
    for step in range(first, steps):
        if "deaf" not in words:
            reporter.progress("sampling", step, steps, note=f"from {first}")
        misbehave(words, first)
        time.sleep(float(words.get("pause") or 0))
        checkpoint.with_suffix(".new").write_text(json.dumps(step + 1))
        checkpoint.with_suffix(".new").replace(checkpoint)
    clip = scratch / "clip.mp4"
    clip.write_bytes(bytes([spec.seed % 256]) * int(words.get("size") or 1000))
    return {"clip": clip}


def misbehave(words: dict[str, str], first: int) -> None:
    if "die" in words or ("die_once" in words and first == 0):
        if first == 0:
            (Path.cwd() / "unused").exists()
        os.kill(os.getpid(), signal.SIGKILL)
    if "fault" in words:
        raise ZeroDivisionError("secret detail")
    if "invalid" in words:
        raise InvalidInput("The prompt lacks the subject; add it.")
    if "memory" in words:
        bytearray(1 << 62)


if __name__ == "__main__":
    main(run, Path(sys.argv[1]))
