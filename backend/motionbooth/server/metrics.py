"""Figures for Prometheus, on this machine alone: counts of everybody's jobs, and no word of what they are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from motionbooth_protocol.errors import InvalidInput, MotionBoothError

from motionbooth.server.watch import Watch

if TYPE_CHECKING:
    from prometheus_client.core import Metric


class _Figures:
    """Reads the latest view at every scrape."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch

    def collect(self) -> Iterator[Metric]:
        from prometheus_client.core import GaugeMetricFamily as Gauge

        status = self._watch.view.status
        jobs = Gauge("motionbooth_jobs", "Jobs in the store, by state.", labels=["state"])
        for state in ("queued", "running", "done", "failed", "canceled"):
            jobs.add_metric([state], getattr(status, state))
        yield jobs
        workers = Gauge("motionbooth_workers", "Workers, by state.", labels=["state"])
        states = Counter(worker.state for worker in status.workers)
        for state in ("starting", "idle", "running"):
            workers.add_metric([state], states[state])
        yield workers
        yield Gauge("motionbooth_sessions", "Clients that are connected.", value=status.sessions)
        yield Gauge("motionbooth_disk_free_bytes", "Free space where jobs and results lie.", value=status.disk_free)
        yield Gauge("motionbooth_files_bytes", "What the files of all jobs take.", value=status.store_bytes)
        yield Gauge("motionbooth_uptime_seconds", "Since the server started.", value=status.uptime)


def serve_metrics(port: int, watch: Watch) -> Callable[[], None]:
    """Answer http://127.0.0.1:PORT/metrics in a thread of its own; call what is returned to stop.

    Raises InvalidInput where prometheus-client is missing, MotionBoothError where the port is taken.
    """
    try:
        from prometheus_client import CollectorRegistry, start_http_server
    except ImportError:
        raise InvalidInput('--metrics-port needs prometheus-client: pip install "motionbooth[metrics]"') from None
    registry = CollectorRegistry()
    registry.register(_Figures(watch))
    try:
        server, thread = start_http_server(port, addr="127.0.0.1", registry=registry)
    except OSError as error:
        raise MotionBoothError(
            f"Metrics cannot be served on port {port} ({error.strerror}); choose another one with --metrics-port."
        ) from error

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return stop
