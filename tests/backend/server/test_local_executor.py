"""What every executor promises, with real worker processes."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import pytest
import zmq
from motionbooth.server import worker_pipe
from motionbooth.server.local_executor import Executor, LocalExecutor, Place, Report
from motionbooth.server.ray_worker import RayWorker, mark
from motionbooth.server.store import Work
from motionbooth_lab.rig.server_process import SMALL_WORKER
from motionbooth_protocol.errors import Unreachable
from running_backend import is_running, small_job, wait_until

Kind = TypeVar("Kind", bound=Report)


class Running:
    """An executor with the places that it has, and what it reported so far."""

    def __init__(self, executor: Executor, home: Path) -> None:
        self.executor = executor
        self.home = home
        self.reports: list[Report] = []

    def idle(self) -> list[str]:
        self.reports += self.executor.receive()
        return self.executor.idle()

    def start(self, number: int, prompt: str, attempt: int = 1) -> str:
        """Start a job at the first idle place, which is returned."""
        wait_until(self.idle, 60)
        place = self.executor.idle()[0]
        self.executor.start(place, Work(number, attempt, small_job(prompt)))
        return place

    def wait(self, kind: type[Kind], number: int, seconds: float = 60) -> Kind:
        """The first report of this kind."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for report in self.reports:
                if isinstance(report, kind) and report.number == number:
                    return report
            self.executor.wake.poll(100)
            self.reports += self.executor.receive()
            self.executor.tick()
        raise TimeoutError(f"no {kind.__name__} of job {number}: {self.reports}")

    def worker_of(self, number: int) -> int:
        """The process that runs the job."""
        return int((self.home / "scratch" / str(number) / "worker.pid").read_text())


COMMAND = [sys.executable, "-m", SMALL_WORKER]


@pytest.fixture
def running(request: pytest.FixtureRequest, kind: str, home: Path) -> Iterator[Running]:
    """Two workers: on this machine, or on a Ray cluster."""
    with zmq.Context() as context:
        if kind == "local":
            places = [Place("one", "CPU"), Place("two", "CPU")]
            executor: Executor = LocalExecutor(context, [*COMMAND, str(home)], home / "logs" / "worker.log", places)
        else:
            executor = on_ray(context, request.getfixturevalue("ray_address"), home)
        executor.adopt()
        yield Running(executor, home)
        executor.close()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "logs").mkdir()
    return tmp_path


@pytest.fixture(params=["local", pytest.param("ray", marks=pytest.mark.slow)])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def on_ray(context: zmq.Context[zmq.Socket[bytes]], address: str, home: Path, workers: int | None = 2) -> Executor:
    from motionbooth.server.ray_executor import Cluster, RayExecutor

    cluster = Cluster(address, home.name, workers)
    return RayExecutor(context, [*COMMAND, str(home)], home / "logs" / "worker.log", cluster)


def test_an_attempt_tells_how_far_it_is_shows_pictures_and_gives_its_results(running: Running) -> None:
    running.start(1, "steps=3 preview=1000")
    finished = running.wait(worker_pipe.Finished, 1)
    assert [blob.role for blob in finished.results] == ["clip"]
    steps = [report.report.step for report in running.reports if isinstance(report, worker_pipe.Pictured)]
    assert steps == sorted(steps)
    assert steps[-1] == 2, "of pictures only the latest counts"
    pictured = running.wait(worker_pipe.Pictured, 1).report
    assert (pictured.width, pictured.height, len(pictured.picture), pictured.steps) == (64, 48, 1000, 3)


def test_each_place_runs_one_attempt_at_a_time_and_both_run_together(running: Running) -> None:
    places = {running.start(number, "steps=40 pause=0.05") for number in (1, 2)}
    assert places == {place.name for place in running.executor.places()}
    assert running.executor.idle() == []
    for number in (1, 2):
        running.wait(worker_pipe.Advanced, number)
    assert running.worker_of(1) != running.worker_of(2)
    for number in (1, 2):
        running.wait(worker_pipe.Finished, number)


def test_the_same_process_does_the_next_job_at_its_place(running: Running) -> None:
    places = {}
    for number in range(1, 5):
        places[number] = running.start(number, "steps=1")
        running.wait(worker_pipe.Finished, number)
    for one in places:
        for two in places:
            assert (places[one] == places[two]) == (running.worker_of(one) == running.worker_of(two))


def test_a_canceled_attempt_stops_at_its_next_step_and_the_other_goes_on(running: Running) -> None:
    running.start(1, "steps=1000 pause=0.02")
    running.start(2, "steps=20 pause=0.05")
    running.wait(worker_pipe.Advanced, 1)
    running.executor.cancel(1, 1, grace=20)
    assert running.wait(worker_pipe.Failed, 1, seconds=20).code == "canceled"
    running.wait(worker_pipe.Finished, 2)


def test_an_attempt_that_does_not_heed_its_cancel_is_killed_after_the_grace(running: Running) -> None:
    running.start(1, "steps=1000 pause=1 deaf preview=10")
    running.wait(worker_pipe.Pictured, 1)
    worker = running.worker_of(1)
    running.executor.cancel(1, 1, grace=0.2)
    assert "SIGKILL" in running.wait(worker_pipe.Exited, 1, seconds=20).reason
    assert not is_running(worker)


def test_a_worker_that_dies_is_told_and_another_takes_its_place(running: Running) -> None:
    place = running.start(1, "steps=9 die")
    assert "SIGKILL" in running.wait(worker_pipe.Exited, 1).reason
    wait_until(lambda: place in running.idle(), 60)
    running.executor.start(place, Work(1, 2, small_job("steps=2")))
    running.wait(worker_pipe.Finished, 1)


def test_a_cancel_of_an_older_attempt_does_nothing(running: Running) -> None:
    running.start(1, "steps=10 pause=0.02", attempt=2)
    running.executor.cancel(1, 1, grace=0)
    running.wait(worker_pipe.Finished, 1)


def test_a_worker_has_the_environment_of_its_place(tmp_path: Path) -> None:
    with zmq.Context() as context:
        place = Place("one", "CPU", {"CUDA_VISIBLE_DEVICES": "GPU-7"})
        command = ["sh", "-c", f'echo "$CUDA_VISIBLE_DEVICES" > {tmp_path}/seen; exit 3']
        executor = LocalExecutor(context, command, tmp_path / "worker.log", [place])
        ended = Running(executor, tmp_path)
        ended.start(1, "steps=1")
        assert "status 3" in ended.wait(worker_pipe.Exited, 1).reason
        assert (tmp_path / "seen").read_text() == "GPU-7\n"
        executor.close()


def test_a_ray_worker_goes_on_without_its_server_and_is_adopted_by_the_next(ray_address: str, home: Path) -> None:
    with zmq.Context() as context:
        first = Running(on_ray(context, ray_address, home), home)
        assert first.executor.adopt() == {}
        place = first.start(1, "steps=40 pause=0.05")
        first.wait(worker_pipe.Advanced, 1)
        worker = first.worker_of(1)
        first.executor.close()

        second = Running(on_ray(context, ray_address, home), home)
        assert second.executor.adopt() == {place: (1, 1)}
        assert second.wait(worker_pipe.Finished, 1).attempt == 1
        assert second.worker_of(1) == worker
        wait_until(lambda: len(second.idle()) == 2, 60)
        second.executor.close()


@pytest.mark.slow
def test_results_that_came_while_there_was_no_server_are_not_lost(ray_address: str, home: Path) -> None:
    with zmq.Context() as context:
        first = Running(on_ray(context, ray_address, home), home)
        first.executor.adopt()
        first.start(1, "steps=10 pause=0.05")
        first.executor.close()
        time.sleep(2)
        second = Running(on_ray(context, ray_address, home), home)
        assert list(second.executor.adopt().values()) == [(1, 1)]
        second.wait(worker_pipe.Finished, 1)
        second.executor.close()


@pytest.mark.slow
def test_an_actor_that_is_lost_is_told_and_another_takes_its_place(ray_address: str, home: Path) -> None:
    import ray

    with zmq.Context() as context:
        running = Running(on_ray(context, ray_address, home), home)
        running.executor.adopt()
        place = running.start(1, "steps=1000 pause=0.05")
        running.wait(worker_pipe.Advanced, 1)
        worker = running.worker_of(1)
        ray.kill(ray.get_actor(place, namespace=home.name))
        assert "lost the worker" in running.wait(worker_pipe.Exited, 1).reason
        wait_until(lambda: not is_running(worker))
        wait_until(lambda: place in running.idle(), 60)
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
            running.executor.adopt()
            assert len(running.executor.places()) == 2, "one for each box"
            for number in (1, 2):
                running.start(number, "steps=1000 pause=0.05")
                running.wait(worker_pipe.Advanced, number)
            raylets = [parents(running.worker_of(number))[1] for number in (1, 2)]
            assert raylets[0] != raylets[1]
            threads = environment(running.worker_of(1))["OMP_NUM_THREADS"]
            assert threads == str(os.cpu_count()), "and not the one that Ray gives"

            cluster.remove_node(second)
            lost = 1 if not is_running(raylets[0]) else 2
            assert "lost the worker" in running.wait(worker_pipe.Exited, lost).reason
            running.start(3, "steps=2", attempt=1)
            running.wait(worker_pipe.Finished, 3)
            running.executor.cancel(3 - lost, 1, 0.0)
            running.executor.close()
    finally:
        cluster.shutdown()


@pytest.mark.slow
def test_a_worker_on_a_box_without_the_backends_folder_gets_no_job_until_it_is_there(
    ray_address: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from motionbooth.server import ray_executor

    monkeypatch.setattr(ray_executor, "_SECONDS_TO_MEND", 1.0)
    with zmq.Context() as context:
        running = Running(on_ray(context, ray_address, home, workers=1), home)
        mark(home / "logs" / "worker.log").write_text("another backend")
        running.executor.adopt()
        (place,) = running.executor.places()
        wait_until(lambda: running.idle() or "all boxes" in running.executor.places()[0].device, 60)
        assert running.executor.idle() == []
        mark(home / "logs" / "worker.log").write_text(home.name)
        assert running.start(1, "steps=2") == place.name
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
    """It may have a folder of its own at the same path: what is made there would never arrive."""
    worker = RayWorker([*COMMAND[1:], str(home)], str(home / "logs" / "worker.log"), "this backend", 1)
    run = worker_pipe.encode(worker_pipe.Run(number=1, attempt=1, spec=small_job("steps=1")))
    for found in (None, "another backend", "this backend"):
        if found is not None:
            mark(home / "logs" / "worker.log").write_text(found)
        box, _, lack = worker.attempt()
        if found == "this backend":
            assert lack == ""
        else:
            assert box in lack
            assert "all boxes of the cluster share" in lack
            worker.order(run)
            (report,) = worker.reports(0, 1.0)[1]
            assert worker_pipe.all_reports.decode(report).reason == lack
    assert not (home / "scratch").exists()


def test_no_cluster_at_the_address_is_one_sentence(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    with zmq.Context() as context, pytest.raises(Unreachable, match=r"No Ray cluster.*ray start"):
        on_ray(context, "127.0.0.1:1", tmp_path)
