"""The promises of every executor, with real worker processes."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
import zmq
from motionbooth.server import ray_pipe, worker_pipe
from motionbooth.server.attempts import Attempt, AttemptId, JobNumber
from motionbooth.server.executor import Device, Executor
from motionbooth.server.local_executor import LocalExecutor
from motionbooth.server.ray_executor import RayExecutor
from motionbooth.server.ray_worker import RayWorker, cluster_file
from motionbooth.server.worker_pipe import Report
from motionbooth_lab.rig.server_process import SMALL_WORKER
from motionbooth_protocol.errors import ErrorReport
from refused import assert_says
from running_backend import is_running, small_job, wait_until

Kind = TypeVar("Kind", bound=Report)


class Running:
    """An executor and its reports so far."""

    def __init__(self, executor: Executor, home: Path) -> None:
        self.executor = executor
        self.home = home
        self.reports: list[Report] = []

    def idle(self) -> list[str]:
        self.reports += self.executor.receive()
        return self.executor.idle()

    def adopt(self) -> dict[str, AttemptId]:
        """What the executor adopts once it has reached its workers."""
        found: list[dict[str, AttemptId]] = []

        def reached() -> bool:
            self.reports += self.executor.receive()
            self.executor.tick()
            if (attempts := self.executor.adopt()) is not None:
                found.append(attempts)
            return bool(found)

        wait_until(reached, 60)
        assert self.executor.problem is None
        assert self.executor.adopt() is None, "nothing new"
        return found[0]

    def start(self, number: int, prompt: str, attempt: int = 1) -> str:
        """Start a job in the first idle slot, which is returned."""
        wait_until(self.idle, 60)
        slot = self.executor.idle()[0]
        self.executor.start(slot, Attempt(attempt_id(number, attempt), small_job(prompt)))
        return slot

    def wait(self, kind: type[Kind], number: int, seconds: float = 60) -> Kind:
        """The first report of this kind."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for report in self.reports:
                if isinstance(report, kind) and report.id.job_number == number:
                    return report
            self.executor.wake.poll(100)
            self.reports += self.executor.receive()
            self.executor.tick()
        raise TimeoutError(f"no {kind.__name__} of job {number}: {self.reports}")

    def worker_of(self, number: int) -> int:
        """The process that runs the job."""
        return int((self.home / "scratch" / str(number) / "worker.pid").read_text())


COMMAND = [sys.executable, "-m", SMALL_WORKER]


def attempt_id(number: int, attempt: int = 1) -> AttemptId:
    return AttemptId(JobNumber(number), attempt)


@pytest.fixture
def running(request: pytest.FixtureRequest, kind: str, home: Path) -> Iterator[Running]:
    """Two workers: on this machine, or on a Ray cluster."""
    with zmq.Context() as context:
        if kind == "local":
            devices = [Device("one", "CPU"), Device("two", "CPU")]
            executor: Executor = LocalExecutor(context, [*COMMAND, str(home)], home / "logs" / "worker.log", devices)
        else:
            executor = on_ray(context, request.getfixturevalue("ray_address"), home)
        running = Running(executor, home)
        running.adopt()
        yield running
        executor.close()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "logs").mkdir()
    return tmp_path


@pytest.fixture(params=["local", pytest.param("ray", marks=pytest.mark.slow)])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def on_ray(
    context: zmq.Context[zmq.Socket[bytes]], address: str, home: Path, workers: int | None = 2, **options: Any
) -> Executor:
    from motionbooth.server.ray_cluster import Cluster

    cluster = Cluster(address, home.name, workers, **options)
    return RayExecutor(context, [*COMMAND, str(home)], home / "logs" / "worker.log", cluster)


def test_an_attempt_reports_progress_previews_and_its_results(running: Running) -> None:
    running.start(1, "steps=3 preview=1000")
    finished = running.wait(worker_pipe.Finished, 1)
    assert [blob.role for blob in finished.results] == ["clip"]
    steps = [report.report.step for report in running.reports if isinstance(report, worker_pipe.Previewed)]
    assert steps == sorted(steps)
    assert steps[-1] == 2, "of previews only the latest counts"
    preview = running.wait(worker_pipe.Previewed, 1).report
    assert (preview.width, preview.height, len(preview.picture), preview.steps) == (64, 48, 1000, 3)


def test_each_slot_runs_one_attempt_at_a_time_and_both_run_together(running: Running) -> None:
    slots = {running.start(number, "steps=40 pause=0.05") for number in (1, 2)}
    assert slots == {device.name for device in running.executor.devices()}
    assert running.executor.idle() == []
    for number in (1, 2):
        running.wait(worker_pipe.Progressed, number)
    assert running.worker_of(1) != running.worker_of(2)
    for number in (1, 2):
        running.wait(worker_pipe.Finished, number)


def test_the_same_process_runs_the_next_job_of_its_slot(running: Running) -> None:
    slots = {}
    for number in range(1, 5):
        slots[number] = running.start(number, "steps=1")
        running.wait(worker_pipe.Finished, number)
    for one in slots:
        for two in slots:
            assert (slots[one] == slots[two]) == (running.worker_of(one) == running.worker_of(two))


def test_a_canceled_attempt_stops_at_its_next_step_and_the_other_continues(running: Running) -> None:
    running.start(1, "steps=1000 pause=0.02")
    running.start(2, "steps=20 pause=0.05")
    running.wait(worker_pipe.Progressed, 1)
    running.executor.cancel(attempt_id(1), grace=20)
    assert running.wait(worker_pipe.Failed, 1, seconds=20).error.code == "canceled"
    running.wait(worker_pipe.Finished, 2)


def test_an_attempt_that_ignores_its_cancel_is_killed_after_the_grace_period(running: Running) -> None:
    running.start(1, "steps=1000 pause=1 deaf preview=10")
    running.wait(worker_pipe.Previewed, 1)
    worker = running.worker_of(1)
    running.executor.cancel(attempt_id(1), grace=0.2)
    assert_says(running.wait(worker_pipe.Exited, 1, seconds=20).error, signal="SIGKILL")
    assert not is_running(worker)


def test_the_death_of_a_worker_is_reported_and_it_is_replaced(running: Running) -> None:
    slot = running.start(1, "steps=9 die")
    assert_says(running.wait(worker_pipe.Exited, 1).error, signal="SIGKILL")
    wait_until(lambda: slot in running.idle(), 60)
    running.executor.start(slot, Attempt(attempt_id(1, 2), small_job("steps=2")))
    running.wait(worker_pipe.Finished, 1)


def test_a_worker_whose_gpu_computes_no_more_is_replaced(running: Running) -> None:
    """After such an error, every call of CUDA fails in that process."""
    slot = running.start(1, "steps=9 gpu_fault")
    assert_says(running.wait(worker_pipe.Exited, 1).error, status=1)
    wait_until(lambda: slot in running.idle(), 60)
    running.executor.start(slot, Attempt(attempt_id(1, 2), small_job("steps=2")))
    running.wait(worker_pipe.Finished, 1)
    assert "device-side assert" in (running.home / "logs" / "worker.log").read_text()


def test_a_cancel_of_an_older_attempt_does_nothing(running: Running) -> None:
    running.start(1, "steps=10 pause=0.02", attempt=2)
    running.executor.cancel(attempt_id(1), grace=0)
    running.wait(worker_pipe.Finished, 1)


def test_a_worker_has_the_environment_of_its_device(tmp_path: Path) -> None:
    with zmq.Context() as context:
        device = Device("one", "CPU", {"CUDA_VISIBLE_DEVICES": "GPU-7"})
        command = ["sh", "-c", f'echo "$CUDA_VISIBLE_DEVICES" > {tmp_path}/seen; exit 3']
        executor = LocalExecutor(context, command, tmp_path / "worker.log", [device])
        ended = Running(executor, tmp_path)
        ended.start(1, "steps=1")
        assert ended.wait(worker_pipe.Exited, 1).error.values == {"status": 3}
        assert (tmp_path / "seen").read_text() == "GPU-7\n"
        executor.close()


_LEVEL = b"\x82\xa8template\xa1x\xa6values\x81\xa1a"
_FAILED = b"\x83\xa4type\xa6Failed\xa2id\x92\x01\x01\xa5error"
SENT = {"no message": b"\xc1", "deep texts": _FAILED + _LEVEL * 200 + b"\xa1x", "endless": _FAILED + _LEVEL * 9000}


@pytest.mark.parametrize("sent", SENT.values(), ids=SENT.keys())
def test_a_worker_that_sends_anything_but_reports_is_not_said_to_lack_memory(tmp_path: Path, sent: bytes) -> None:
    (tmp_path / "sent").write_bytes(len(sent).to_bytes(4, "little") + sent)
    with zmq.Context() as context:
        command = ["sh", "-c", f"cat '{tmp_path}/sent'; sleep 60"]
        executor = LocalExecutor(context, command, tmp_path / "worker.log", [Device("one", "CPU")])
        ended = Running(executor, tmp_path)
        ended.start(1, "steps=1")
        assert "not a report" in str(ended.wait(worker_pipe.Exited, 1).error)
        executor.close()


def test_a_ray_worker_outlives_its_server_and_is_adopted_by_the_next(ray_address: str, home: Path) -> None:
    with zmq.Context() as context:
        first = Running(on_ray(context, ray_address, home), home)
        assert first.adopt() == {}
        slot = first.start(1, "steps=40 pause=0.05")
        first.wait(worker_pipe.Progressed, 1)
        worker = first.worker_of(1)
        first.executor.close()

        second = Running(on_ray(context, ray_address, home), home)
        assert second.adopt() == {slot: (1, 1)}
        assert second.wait(worker_pipe.Finished, 1).id.attempt == 1
        assert second.worker_of(1) == worker
        wait_until(lambda: len(second.idle()) == 2, 60)
        second.executor.close()


def test_an_attempt_sent_to_a_slot_that_the_cluster_gave_up_is_reported_as_lost(home: Path) -> None:
    pytest.importorskip("ray")
    with zmq.Context() as context:
        executor = on_ray(context, "127.0.0.1:1", home)
        assert isinstance(executor, RayExecutor)

        def receive(message: ray_pipe.FromDriver) -> list[Report]:
            return executor._received(worker_pipe.encode(message))

        receive(ray_pipe.Connected({}))
        receive(ray_pipe.Slots([ray_pipe.SlotState("ray-1", "on a box", True)]))
        executor.start("ray-1", Attempt(attempt_id(1), small_job("steps=1")))
        receive(ray_pipe.Slots([]))
        assert executor.idle() == []
        lost = worker_pipe.Lost(attempt_id(1), error=ErrorReport("lost"))
        assert receive(lost) == [lost]
        executor.close()


@pytest.mark.slow
def test_results_reported_while_there_was_no_server_are_not_lost(ray_address: str, home: Path) -> None:
    with zmq.Context() as context:
        first = Running(on_ray(context, ray_address, home), home)
        first.adopt()
        first.start(1, "steps=10 pause=0.05")
        first.executor.close()
        time.sleep(2)
        second = Running(on_ray(context, ray_address, home), home)
        assert list(second.adopt().values()) == [(1, 1)]
        second.wait(worker_pipe.Finished, 1)
        second.executor.close()


@pytest.mark.slow
def test_the_loss_of_an_actor_is_reported_and_it_is_replaced(ray_address: str, home: Path) -> None:
    import ray

    with zmq.Context() as context:
        running = Running(on_ray(context, ray_address, home), home)
        running.adopt()
        slot = running.start(1, "steps=1000 pause=0.05")
        running.wait(worker_pipe.Progressed, 1)
        worker = running.worker_of(1)
        ray.kill(ray.get_actor(slot, namespace=home.name))  # connects this process to the cluster
        ray.shutdown()
        assert running.wait(worker_pipe.Exited, 1).error.code == "error.worker_lost"
        wait_until(lambda: not is_running(worker))
        wait_until(lambda: slot in running.idle(), 60)
        running.executor.close()


@pytest.mark.slow
def test_two_boxes_of_a_cluster_share_the_work_and_one_that_goes_down_costs_its_job_an_attempt(home: Path) -> None:
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    box = {"num_cpus": 2, "include_dashboard": False, "object_store_memory": 80_000_000}
    cluster = Cluster(initialize_head=True, head_node_args=box)
    second = cluster.add_node(num_cpus=2, object_store_memory=80_000_000)
    try:
        with zmq.Context() as context:
            running = Running(on_ray(context, cluster.address, home, workers=None), home)
            running.adopt()
            wait_until(lambda: len(running.idle()) == 2, 60)
            assert len(running.executor.devices()) == 2, "one for each box"
            for number in (1, 2):
                running.start(number, "steps=1000 pause=0.05")
                running.wait(worker_pipe.Progressed, number)
            raylets = [parents(running.worker_of(number))[1] for number in (1, 2)]
            assert raylets[0] != raylets[1]
            threads = environment(running.worker_of(1))["OMP_NUM_THREADS"]
            assert threads == str(os.cpu_count()), "not the single one that Ray sets"

            cluster.remove_node(second)
            lost = 1 if not is_running(raylets[0]) else 2
            assert running.wait(worker_pipe.Exited, lost).error.code == "error.worker_lost"
            running.start(3, "steps=2", attempt=1)
            running.wait(worker_pipe.Finished, 3)
            running.executor.cancel(attempt_id(3 - lost), 0.0)
            running.executor.close()
    finally:
        cluster.shutdown()


@pytest.mark.slow
def test_a_box_that_joins_the_cluster_gets_a_worker_and_one_that_leaves_takes_it_along(home: Path) -> None:
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    box = {"num_cpus": 2, "object_store_memory": 80_000_000}
    cluster = Cluster(initialize_head=True, head_node_args={**box, "include_dashboard": False})
    try:
        with zmq.Context() as context:
            running = Running(on_ray(context, cluster.address, home, workers=None, seconds_between_counts=1.0), home)
            running.adopt()
            wait_until(lambda: len(running.idle()) == 1, 60)
            second = cluster.add_node(**box)
            wait_until(lambda: len(running.idle()) == 2, 60)
            cluster.remove_node(second)
            wait_until(lambda: len(running.idle()) == len(running.executor.devices()) == 1, 60)
            running.executor.close()
    finally:
        cluster.shutdown()


@pytest.mark.slow
def test_actors_that_hang_are_given_up_all_at_once_and_their_jobs_start_elsewhere(ray_address: str, home: Path) -> None:
    """One after the other, three would take three times the 10 seconds that an actor has to answer."""
    with zmq.Context() as context:
        first = Running(on_ray(context, ray_address, home, workers=3), home)
        first.adopt()
        for number in (1, 2, 3):
            first.start(number, "steps=1000 pause=0.05")
            first.wait(worker_pipe.Progressed, number)
        for actor in [parents(first.worker_of(number))[0] for number in (1, 2, 3)]:
            os.kill(actor, signal.SIGSTOP)
        first.executor.close()
        began = time.monotonic()
        second = Running(on_ray(context, ray_address, home, workers=3), home)
        assert second.adopt() == {}
        assert time.monotonic() - began < 28
        second.start(1, "steps=2", attempt=2)
        second.wait(worker_pipe.Finished, 1)
        second.executor.close()


@pytest.mark.slow
def test_a_worker_on_a_box_without_the_backends_folder_gets_no_job_until_it_is_there(
    ray_address: str, home: Path
) -> None:
    with zmq.Context() as context:
        running = Running(on_ray(context, ray_address, home, workers=1, seconds_before_unfit_retry=1.0), home)
        cluster_file(home / "logs" / "worker.log").write_text("another backend")
        running.adopt()
        wait_until(
            lambda: running.idle() or any("all boxes" in one.description for one in running.executor.devices()), 60
        )
        (device,) = running.executor.devices()
        assert running.executor.idle() == []
        cluster_file(home / "logs" / "worker.log").write_text(home.name)
        assert running.start(1, "steps=2") == device.name
        running.wait(worker_pipe.Finished, 1)
        running.executor.close()


def parents(pid: int) -> list[int]:
    """The process that started this one, and the one that started that."""
    found = []
    for _ in range(2):
        pid = int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
        found.append(pid)
    return found


def environment(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/environ").read_text().split("\0")
    return dict(line.split("=", 1) for line in lines if line)


def test_a_box_that_does_not_share_the_backends_folder_says_so_and_runs_nothing(home: Path) -> None:
    """It may have a folder of its own at the same path, from which results would never arrive."""
    worker = RayWorker([*COMMAND[1:], str(home)], str(home / "logs" / "worker.log"), "this backend", 1)
    start = worker_pipe.encode(Attempt(attempt_id(1), small_job("steps=1")))
    for found in (None, "another backend", "this backend"):
        if found is not None:
            cluster_file(home / "logs" / "worker.log").write_text(found)
        box, _, reason = worker.state()
        if found == "this backend":
            assert reason == ""
        else:
            assert box in reason
            assert "all boxes of the cluster share" in reason
            worker.command(start)
            (report,) = worker.reports(0, 1.0)[1]
            assert str(worker_pipe.report_decoder.decode(report).error) == reason
    assert not (home / "scratch").exists()


def test_no_cluster_at_the_address_is_one_sentence_and_the_executor_continues(home: Path) -> None:
    pytest.importorskip("ray")
    with zmq.Context() as context:
        running = Running(on_ray(context, "127.0.0.1:1", home), home)
        wait_until(lambda: running.idle() or "127.0.0.1:1" in str(running.executor.problem), 60)
        assert running.executor.devices() == []
        assert running.executor.adopt() is None, "nothing is known of the attempts there"
        running.executor.close()
