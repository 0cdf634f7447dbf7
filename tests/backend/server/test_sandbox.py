"""Workers in a sandbox, where bubblewrap works."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from following import Following
from motionbooth.server.sandbox import sandbox_problem, sandboxed
from motionbooth_protocol.client import new_job_id
from motionbooth_protocol.errors import InvalidInput, JobFailed, MotionBoothError
from running_backend import RunningBackend, small_job, wait_until

needs_sandbox = pytest.mark.skipif(sandbox_problem() is not None, reason=str(sandbox_problem()))

ATTEMPTS = """
import json, mmap, os, socket, sys
from pathlib import Path

def works(act):
    try:
        act()
    except OSError:
        return False
    return True

home, outside, port = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
print(json.dumps({
    "result": works(lambda: (home / "scratch" / "clip.mp4").write_bytes(b"clip")),
    "cache": works(lambda: (Path(sys.argv[5]) / "clips").write_bytes(b"clips")),
    "model": works(lambda: (home / "models" / "weights").read_bytes()),
    "changed model": works(lambda: (home / "models" / "weights").write_bytes(b"changed")),
    "input": works(lambda: (home / "blobs" / "input").read_bytes()),
    "changed input": works(lambda: (home / "blobs" / "input").write_bytes(b"changed")),
    "device": works(lambda: open("/dev/urandom", "rb").close()),
    "key": works(lambda: (home / "keys" / "server.secret").read_bytes()),
    "store": works(lambda: (home / "jobs.sqlite").read_bytes()),
    "outside": works(lambda: outside.open("r+b").close()),
    "python": os.access(sys.prefix, os.W_OK),
    "network": works(lambda: socket.create_connection(("127.0.0.1", port), 2).close()),
    "socket": works(lambda: socket.socket(socket.AF_UNIX).connect(sys.argv[6])),
    "others": works(lambda: os.kill(int(sys.argv[4]), 0)),
    # MAP_NORESERVE: as much as one likes, but for the limit
    "memory": works(lambda: mmap.mmap(-1, int(sys.argv[7]), mmap.MAP_PRIVATE | 0x4000).close()),
    "root": os.getuid() == 0 or int(Path("/proc/self/status").read_text().split("CapEff:")[1].split()[0], 16) > 0,
}))
"""


@needs_sandbox
def test_a_worker_can_reach_its_files_and_nothing_else(tmp_path: Path) -> None:
    home, outside = tmp_path / "the home", tmp_path / "outside"
    for name in ("keys/server.secret", "jobs.sqlite", "blobs/input", "models/weights", "scratch/clip.mp4"):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text("secret")
    outside.write_text("as it was")
    caches = tmp_path / "caches"
    caches.mkdir()
    with (
        tempfile.TemporaryDirectory(dir="/tmp") as folder,  # the path of a socket is short
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_server(f"{folder}/socket", family=socket.AF_UNIX),
        subprocess.Popen(["sleep", "15"]) as other,
    ):
        port, memory = server.getsockname()[1], 3 * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        arguments = [home, outside, port, other.pid, caches, f"{folder}/socket", memory]
        command = [sys.executable, "-c", ATTEMPTS, *map(str, arguments)]
        bare = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
        assert all(worked for name, worked in bare.items() if name not in ("root", "python")), "without a sandbox all of it works"
        inside = sandboxed(command, home, readable=[home / "models"], writable=[caches])
        found = json.loads(subprocess.run(inside, capture_output=True, check=True).stdout)
        other.kill()
    assert {name for name, worked in found.items() if worked} == {"result", "cache", "model", "input", "device"}
    result = home / "scratch" / "clip.mp4"
    assert (result.read_bytes(), result.stat().st_uid) == (b"clip", os.getuid()), "the server's"


@needs_sandbox
def test_a_server_runs_its_jobs_in_a_sandbox_and_a_cancel_and_a_crash_work_there(backend: RunningBackend) -> None:
    backend.start(SANDBOX="1")
    with backend.client() as client:
        job = new_job_id()
        client.submit(job, small_job("steps=400 pause=0.1"))
        wait_until(lambda: client.get(job).state == "running", 60)
        client.cancel(job)
        with pytest.raises(MotionBoothError, match="canceled"):
            client.follow(job)
        job = new_job_id()
        client.submit(job, small_job("die"))
        with pytest.raises(JobFailed, match="SIGKILL"):
            client.follow(job)
    assert Following(backend, "steps=2").done().state == "done"
    assert Following(backend, "steps=4 die_once").done().attempt == 2
    assert backend.stop() == 0


def test_without_bubblewrap_the_reason_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InvalidInput, match="bubblewrap is not installed"):
        sandboxed(["true"], tmp_path, [], [])


def test_where_namespaces_are_forbidden_the_reason_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bwrap").write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2; exit 1\n")
    (tmp_path / "bwrap").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(InvalidInput, match="No permissions to create new namespace"):
        sandboxed(["true"], tmp_path, [], [])
