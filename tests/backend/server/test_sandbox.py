"""Workers in a sandbox, where bubblewrap works."""

from __future__ import annotations

import json
import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from following import Following
from motionbooth.generation.video import read_clip
from motionbooth.models.sources import TOYBOX
from motionbooth.server import worker_pipe
from motionbooth.server.attempts import Attempt, AttemptId, JobNumber
from motionbooth.server.ray_worker import RayWorker, cluster_file
from motionbooth.server.sandbox import USER, gpu_groups, gpus, own_user_problem, sandbox_problem, sandboxed
from motionbooth.server.worker_pipe import Finished, report_decoder
from motionbooth_lab.rig.server_process import SMALL_WORKER
from motionbooth_protocol.client import Client, new_job_id
from motionbooth_protocol.connection import Connection
from motionbooth_protocol.errors import Canceled, InvalidInput, JobFailed
from motionbooth_protocol.jobs import GenerateSpec, Picture, SubjectSpec, TrainSpec
from motionbooth_protocol.motion import Box, CameraPath, Shot, SubjectTrack
from PIL import Image, ImageDraw
from refused import refused
from running_backend import RunningBackend, small_job, wait_until

needs_sandbox = pytest.mark.skipif(sandbox_problem() is not None, reason=str(sandbox_problem()))


def started_as_root() -> bool:
    return os.getuid() == 0


needs_own_user = pytest.mark.skipif(
    not started_as_root() or own_user_problem([]) is not None,
    reason="only workers of root get a user of their own" if not started_as_root() else str(own_user_problem([])),
)

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
    "private": works(lambda: open(sys.argv[8]).close()),
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
        tempfile.NamedTemporaryFile(dir="/var/tmp") as private,  # of the backend's user; not in /tmp
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_server(f"{folder}/socket", family=socket.AF_UNIX),
        subprocess.Popen(["sleep", "15"]) as other,
    ):
        port, memory = server.getsockname()[1], 3 * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        arguments = [home, outside, port, other.pid, caches, f"{folder}/socket", memory, private.name]
        command = [sys.executable, "-c", ATTEMPTS, *map(str, arguments)]
        bare = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
        assert all(worked for name, worked in bare.items() if name not in ("root", "python")), "all works without one"
        inside = sandboxed(command, home, readable=[home / "models"], writable=[caches])
        found = json.loads(subprocess.run(inside, capture_output=True, check=True).stdout)
        other.kill()
    works = {"result", "cache", "model", "input", "device"} | (set() if started_as_root() else {"private"})
    assert {name for name, worked in found.items() if worked} == works
    result = home / "scratch" / "clip.mp4"
    assert (result.read_bytes(), result.stat().st_uid) == (b"clip", USER if started_as_root() else os.getuid())


@needs_sandbox
def test_a_worker_can_read_a_model_that_was_fetched_after_its_start_and_cannot_change_it(tmp_path: Path) -> None:
    models = tmp_path / "models"
    models.mkdir()
    act = 'echo began; read line; cat "$1"; echo torn > "$1" || echo refused'
    inner = ["sh", "-c", act, "sh", str(models / "fetched" / "weights")]
    command = sandboxed(inner, tmp_path / "home", [models], [])
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"began\n"
        (models / "fetched").mkdir()
        (models / "fetched" / "weights").write_text("weights\n")
        said, _ = process.communicate(b"\n", timeout=20)
    assert said == b"weights\nrefused\n"


@needs_sandbox
def test_a_server_runs_its_jobs_in_a_sandbox_and_a_cancel_and_a_crash_work_there(backend: RunningBackend) -> None:
    backend.start(SANDBOX="on")
    with backend.client() as client:
        job = new_job_id()
        client.submit(job, small_job("steps=400 pause=0.1"))
        wait_until(lambda: client.get(job).state == "running", 60)
        client.cancel(job)
        with pytest.raises(Canceled):
            client.follow(job)
        job = new_job_id()
        client.submit(job, small_job("die"))
        with refused(JobFailed, signal="SIGKILL"):
            client.follow(job)
    assert Following(backend, "steps=2").done().state == "done"
    assert Following(backend, "steps=4 die_once").done().attempt == 2
    assert backend.stop() == 0


@needs_own_user
def test_workers_of_root_have_a_user_of_their_own_who_continues_with_the_files_of_before(
    backend: RunningBackend, tmp_path: Path
) -> None:
    for number in (1, 2):
        (tmp_path / f"picture {number}").write_bytes(b"pixels %d." % number)
    backend.start()
    with backend.client() as client:
        pictures = [Picture(client.upload(tmp_path / "picture 1"))]
        job, train = new_job_id(), new_job_id()
        client.submit(job, small_job("steps=40 pause=0.1"))
        wait_until(lambda: (file := backend.home / "scratch" / "1" / "checkpoint").exists() and file.stat().st_size)
    backend.stop()
    backend.start(SANDBOX="on")
    assert backend.process is not None
    with backend.client() as client:
        notes: list[str] = []
        clip = client.follow(job, on_progress=lambda progress: notes.append(str(progress.note))).result("clip")
        assert notes
        assert "from 0" not in notes, "it goes on from root's checkpoint"
        assert USER in users_below(backend.process.pid)
        pictures.append(Picture(client.upload(tmp_path / "picture 2")))
        client.submit(train, TrainSpec(SubjectSpec("steps=1", "sks", "toy", pictures), model="small"))
        weights = client.follow(train).result("subject")
        for blob in (clip, weights):
            client.fetch(blob, tmp_path / blob.role)
    assert (tmp_path / "subject").read_bytes() == b"pixels 1.pixels 2."
    assert (tmp_path / "clip").stat().st_size == 1000


@needs_own_user
def test_workers_stay_root_if_they_could_not_read_their_model_otherwise(caplog: pytest.LogCaptureFixture) -> None:
    with tempfile.TemporaryDirectory(dir="/var/tmp") as private:  # a folder that only root can enter
        home, model = Path(private) / "home", Path(private) / "models" / "weights"
        for path in (home / "blobs" / "input", model):
            path.parent.mkdir(parents=True)
            path.write_text("secret")
            path.chmod(0o644 if path == model else 0o600)
        for mode, user in ((0o644, USER), (0o600, 0), (0o644, USER)):
            model.chmod(mode)
            command = ["cat", str(model), str(home / "blobs" / "input")]
            inside = sandboxed(command, home, readable=[model.parent], writable=[])
            assert subprocess.run(inside, capture_output=True, check=True).stdout == b"secretsecret"
            assert (home / "blobs" / "input").stat().st_uid == user
    assert [record.getMessage() for record in caplog.records] == [
        f"workers have the user root: {model} is not readable for others"
    ]


@needs_sandbox
def test_a_worker_on_a_machine_of_a_cluster_has_a_sandbox_where_it_works(tmp_path: Path) -> None:
    """The actor without its cluster. The clip is left for the server, as everywhere."""
    home, log = tmp_path / "home", tmp_path / "home" / "logs" / "worker.log"
    log.parent.mkdir(parents=True)
    cluster_file(log).write_text("this backend")
    arguments = ["-m", "motionbooth.server.ray_sandbox", str(home), "-m", SMALL_WORKER, str(home)]
    actor = RayWorker(arguments, str(log), "this backend", 1)
    id = AttemptId(JobNumber(1), 1)
    actor.command(worker_pipe.encode(Attempt(id, small_job("steps=5 pause=0.2"))))
    wait_until((home / "scratch" / "1" / "checkpoint").exists)
    networks = networks_below(os.getpid()) - {network(os.getpid())}
    assert len(networks) == 1, log.read_text()
    wait_until(lambda: any(isinstance(report_decoder.decode(one), Finished) for one in actor.reports(0, 1.0)[1]))
    (clip,) = (home / "scratch" / "1").glob("*.result")
    assert clip.read_bytes() == bytes(1000)
    assert log.read_text() == ""
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # one of an earlier test that nobody has waited for
            if SMALL_WORKER in process.cmdline():
                process.kill()


@needs_sandbox
@pytest.mark.slow  # it makes the clips of the base model
@pytest.mark.timeout(1500)
def test_a_model_trains_and_generates_in_the_sandbox_and_keeps_the_clips_of_its_base(tmp_path: Path) -> None:
    home, models = tmp_path / "the home", tmp_path / "models"
    shutil.copytree(TOYBOX, models / "own", ignore=shutil.ignore_patterns("prior_clips*"))  # it has none of its own
    picture = Image.new("RGBA", (100, 80))
    ImageDraw.Draw(picture).ellipse((20, 10, 70, 60), fill=(220, 40, 40, 255))
    picture.save(tmp_path / "red.png")
    command = [sys.executable, "-m", "motionbooth.cli", "serve", "--home", str(home), "--sandbox", "--workers", "1"]
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache"), "MOTIONBOOTH_MODELS": str(models)}
    with subprocess.Popen(
        [*command, "--address", "tcp://127.0.0.1:*"], stdout=subprocess.PIPE, env=environment
    ) as serving:
        try:
            wait_until((home / "connection.json").exists, 60)
            with Client(Connection.read(home / "connection.json"), timeout=60) as client:
                subject = SubjectSpec("Red", "sks", "dog", [Picture(client.upload(tmp_path / "red.png"))])
                train, generate = new_job_id(), new_job_id()
                client.submit(train, TrainSpec(subject, "own", steps=1))
                weights = client.follow(train).result("subject").sha256
                assert networks_below(serving.pid) - {network(os.getpid())}, "a worker with a network of its own"
                if started_as_root() and own_user_problem([]) is None:
                    assert USER in users_below(serving.pid)
                (model,) = (one for one in client.models() if one.name == "own")
                track = SubjectTrack(
                    "Red", "dog", [Box(0.3, 0.3, 0.7, 0.8)] * model.frames, token="sks", weights=weights
                )
                camera = CameraPath.still(model.frames)
                shot = Shot("shot", 1, 24, 8, model.width, model.height, camera, [track])
                client.submit(generate, GenerateSpec(shot, "a sks dog", model="own", num_inference_steps=2))
                client.fetch(client.follow(generate).result("clip"), tmp_path / "clip.mp4")
        finally:
            serving.terminate()
            said, _ = serving.communicate(timeout=30)
    assert b"sandbox          on" in said
    frames, _ = read_clip(tmp_path / "clip.mp4")
    assert frames.shape[1:3] == (model.height, model.width)
    assert list((tmp_path / "cache").rglob("*.safetensors")), "the clips of the base model are kept for later trainings"


def network(pid: int) -> str:
    return os.readlink(f"/proc/{pid}/ns/net")


def users_below(pid: int) -> set[int]:
    return {process.uids().real for process in psutil.Process(pid).children(recursive=True)}


def networks_below(pid: int) -> set[str]:
    """The networks of the process and its descendants."""
    return {network(process.pid) for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]}


def test_a_result_that_is_a_link_is_refused_and_the_job_fails(backend: RunningBackend) -> None:
    backend.start()
    with backend.client() as client:
        job = new_job_id()
        client.submit(job, small_job("linked"))
        with refused(JobFailed, reason=..., count=3):
            client.follow(job)
        assert backend.connection_file.is_file(), "what the link led to"
    assert (backend.home / "logs" / "server.log").read_text().count("cannot be taken: it is not a file") == 3
    assert not [path for path in (backend.home / "blobs").rglob("*") if not path.is_dir()]
    assert not list((backend.home / "incoming").iterdir())


def test_a_sandbox_has_the_gpus_and_the_driver_makes_its_device_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    devices, programs = tmp_path / "dev", tmp_path / "programs"
    for folder in ("dri", "nvidia-caps", "shm"):
        (devices / folder).mkdir(parents=True)
    for device in ("kfd", "nvidia0", "nvidiactl", "sda", "tty"):
        (devices / device).touch()
    programs.mkdir()
    (programs / "nvidia-modprobe").write_text(f"#!/bin/sh\n: > '{devices}/nvidia-uvm'\n")
    (programs / "nvidia-modprobe").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    found = [f"{devices}/{name}" for name in ("dri", "kfd", "nvidia-caps", "nvidia-uvm", "nvidia0", "nvidiactl")]
    assert gpus(devices) == [word for path in found for word in ("--dev-bind", path, path)]


def test_workers_with_a_user_of_their_own_have_the_groups_that_may_use_the_gpus(tmp_path: Path) -> None:
    (tmp_path / "dri").mkdir()
    for name, group, mode in (
        ("nvidia0", 0, 0o666), ("dri/renderD128", 109, 0o660), ("dri/card0", 44, 0o660), ("kfd", 109, 0o660),
        ("nvidiactl", 0, 0o660), ("tty", 5, 0o620),
    ):  # fmt: skip
        try:
            os.mknod(tmp_path / name, stat.S_IFCHR)
            os.chown(tmp_path / name, 0, group)
        except PermissionError:
            pytest.skip("making devices of root is not permitted")
        (tmp_path / name).chmod(mode)
    assert gpu_groups(tmp_path) == ["--groups=109,44"]
    assert gpu_groups(tmp_path / "none") == ["--clear-groups"]


@pytest.mark.gpu
@needs_sandbox
def test_a_gpu_computes_in_the_sandbox(tmp_path: Path, gpu: str) -> None:
    code = f"import torch; print(torch.ones(1000, device='{gpu}').sum().item())"
    inside = sandboxed([sys.executable, "-c", code], tmp_path / "home", [], [])
    assert subprocess.run(inside, capture_output=True, text=True, check=True).stdout == "1000.0\n"


def test_a_backend_without_bubblewrap_works_and_says_once_that_there_is_no_sandbox(
    backend: RunningBackend, tmp_path: Path
) -> None:
    (tmp_path / "bare").mkdir()
    backend.start(SANDBOX="auto", PATH=str(tmp_path / "bare"))
    for prompt in ("steps=1", "steps=2"):
        assert Following(backend, prompt).done().state == "done"
    assert "sandbox          off" in (backend.home / "printed.log").read_text()
    log = (backend.home / "logs" / "server.log").read_text()
    assert log.count("workers run without a sandbox: bubblewrap is not installed") == 1


@needs_sandbox
@pytest.mark.parametrize("how", ["kill", "stop"])
def test_no_sandbox_is_left_when_the_server_ends(backend: RunningBackend, how: str) -> None:
    backend.start(SANDBOX="on")
    with backend.client() as client:
        job = new_job_id()
        client.submit(job, small_job("steps=1000 pause=1 deaf"))
        backend.worker_pid()
    assert backend.process is not None
    below = psutil.Process(backend.process.pid).children(recursive=True)
    assert len(below) >= 2, "bubblewrap and the worker"
    getattr(backend, how)()
    gone, left = psutil.wait_procs(below, 10)
    assert (len(gone), left) == (len(below), [])


def test_without_bubblewrap_the_reason_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with refused(InvalidInput, package="bubblewrap"):
        sandboxed(["true"], tmp_path, [], [])


def test_where_namespaces_are_forbidden_the_reason_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bwrap").write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2; exit 1\n")
    (tmp_path / "bwrap").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with refused(InvalidInput, reason="bwrap: No permissions to create new namespace"):
        sandboxed(["true"], tmp_path, [], [])
