"""Metrics for Prometheus, on loopback: counts of all users' jobs, without their contents."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from motionbooth_protocol.errors import InvalidInput, MotionBoothError
from motionbooth_protocol.jobs import BACKEND_STATES

from motionbooth.server.monitor import Monitor

if TYPE_CHECKING:
    from prometheus_client.core import Metric


class _Collector:
    """Reads the latest view at every scrape."""

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor

    def collect(self) -> Iterator[Metric]:
        from prometheus_client.core import CounterMetricFamily as Count
        from prometheus_client.core import GaugeMetricFamily as Gauge

        status = self._monitor.view.status
        jobs = Gauge("motionbooth_jobs", "Jobs in the store, by state.", labels=["state"])
        for state in BACKEND_STATES:
            jobs.add_metric([state], getattr(status, state))
        yield jobs
        workers = Gauge("motionbooth_workers", "Workers, by state.", labels=["state"])
        states = Counter(worker.state for worker in status.workers)
        for worker_state in ("starting", "idle", "running"):
            workers.add_metric([worker_state], states[worker_state])
        yield workers
        problems = Gauge("motionbooth_problem", "1 for each problem of the backend.", labels=["name"])
        for name in status.problems:
            problems.add_metric([name], 1)
        yield problems
        yield Gauge("motionbooth_sessions", "Connected clients.", value=status.sessions)
        yield Gauge("motionbooth_disk_free_bytes", "Free space on the disk of the backend.", value=status.disk_free)
        yield Gauge("motionbooth_files_bytes", "Size of the files of all jobs.", value=status.store_bytes)
        counters = self._monitor.view.counters
        replies = Count("motionbooth_replies", "Replies, by type.", labels=["type"])
        for type_name, count in counters.replies.items():
            replies.add_metric([type_name], count)
        yield replies
        errors = Count("motionbooth_errors", "Refused and failed requests, by kind.", labels=["kind"])
        for kind, count in counters.errors.items():
            errors.add_metric([kind], count)
        yield errors
        yield Count(
            "motionbooth_ended_connections",
            "Connections of clients that sent without reading.",
            value=counters.ended_connections,
        )
        yield Count("motionbooth_received_bytes", "Bytes of all requests.", value=counters.received_bytes)
        yield Count("motionbooth_sent_bytes", "Bytes of all messages to clients.", value=counters.sent_bytes)
        yield Gauge("motionbooth_uptime_seconds", "Time since the server started.", value=status.uptime)


def serve_metrics(port: int, monitor: Monitor) -> Callable[[], None]:
    """Serve http://127.0.0.1:PORT/metrics in its own thread. Call the returned function to stop.

    Raises InvalidInput if prometheus-client is not installed, MotionBoothError if the port is taken.
    """
    try:
        from prometheus_client import CollectorRegistry, start_http_server
    except ImportError:
        raise InvalidInput('--metrics-port needs prometheus-client: pip install "motionbooth[metrics]"') from None
    registry = CollectorRegistry()
    registry.register(_Collector(monitor))
    try:
        server, thread = start_http_server(port, addr="127.0.0.1", registry=registry)
    except OSError as error:
        raise MotionBoothError(
            "Metrics cannot be served on port {port} ({reason}); choose another one with --metrics-port.",
            port=port,
            reason=error.strerror,
        ) from error

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return stop
