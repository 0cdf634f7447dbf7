"""Web page, metrics and logs: read only, and on loopback."""

from __future__ import annotations

import http.client
import json
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from motionbooth_protocol.client import new_job_id
from motionbooth_protocol.errors import NotFound
from running_backend import SHOT, RunningBackend, free_port, small_job, wait_until

NASTY = "<img src=x onerror=document.title='hacked'>"


@dataclass
class Monitored:
    """A running backend with its page."""

    backend: RunningBackend
    web_port: int
    metrics_port: int
    root: str

    def get(self, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.web_port, timeout=10)
        try:
            connection.request(method, path, headers=headers)
            response = connection.getresponse()
            return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
        finally:
            connection.close()

    def state(self) -> dict[str, object]:
        return json.loads(self.get(self.root + "state.json")[2])  # type: ignore[no-any-return]

    def job(self, job_id: str) -> dict[str, object]:
        return next((job for job in self.state()["jobs"] if job["id"] == job_id), {})  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def monitored(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Monitored]:
    backend = RunningBackend(tmp_path_factory.mktemp("monitored") / "home")
    web_port, metrics_port = free_port(), free_port()
    backend.start(WEB_PORT=str(web_port), METRICS_PORT=str(metrics_port), LOG_FORMAT="json")
    printed = backend.home / "printed.log"
    wait_until(lambda: "web page" in printed.read_text())
    address = re.search(r"web page +http://127.0.0.1:\d+(/\S+)", printed.read_text())
    assert address is not None
    yield Monitored(backend, web_port, metrics_port, address[1])
    backend.end()


def send(monitored: Monitored, prompt: str, seed: int, name: str = "shot") -> str:
    job = new_job_id()
    shot = type(SHOT)(**{field: getattr(SHOT, field) for field in SHOT.__struct_fields__} | {"name": name})
    spec = small_job(prompt, seed)
    with monitored.backend.client() as client:
        client.submit(job, type(spec)(shot, prompt, spec.model, seed))
    return job


def test_the_page_shows_jobs_previews_and_clips(monitored: Monitored) -> None:
    job = send(monitored, "steps=40 pause=0.05 preview=3000 size=5000", seed=1)
    wait_until(lambda: job in monitored.state()["previews"])  # type: ignore[operator]
    status, headers, picture = monitored.get(f"{monitored.root}preview/{job}")
    assert (status, headers["content-type"], len(picture)) == (200, "image/jpeg", 3000)
    wait_until(lambda: monitored.job(job).get("state") == "done")
    assert job not in monitored.state()["previews"]  # type: ignore[operator]
    (result,) = monitored.job(job)["results"]  # type: ignore[misc]
    clip = f"{monitored.root}clip/{result['sha256']}"
    assert monitored.get(clip)[2] == bytes([1]) * 5000
    status, headers, piece = monitored.get(clip, Range="bytes=4990-")
    assert (status, headers["content-range"], len(piece)) == (206, "bytes 4990-4999/5000", 10)
    assert monitored.get(clip, Range="bytes=9000-")[0] == 416
    status, headers, body = monitored.get(clip, method="HEAD")
    assert (status, headers["content-length"], body) == (200, "5000", b"")


def test_without_the_token_in_the_address_nothing_is_found(monitored: Monitored) -> None:
    for path in (
        "/",
        "/state.json",
        "/wrong/",
        "/wrong/state.json",
        monitored.root.rstrip("/"),
        monitored.root[:-3] + "/",
    ):
        assert monitored.get(path)[0] == 404
    assert monitored.get(monitored.root)[0] == 200


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "", "127.0.0.1.evil.example"])
def test_a_page_of_another_site_cannot_reach_it_by_dns_rebinding(monitored: Monitored, host: str) -> None:
    assert monitored.get(monitored.root, Host=host)[0] == 403


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_it_is_read_only(monitored: Monitored, method: str) -> None:
    assert monitored.get(monitored.root, method=method)[0] == 501


@pytest.mark.parametrize(
    "path", ["clip/" + "0" * 64, "clip/../jobs.sqlite", "preview/none", "../keys/server.secret", "page.html", "x/y/z"]
)
def test_files_that_are_not_results_are_out_of_reach(monitored: Monitored, path: str) -> None:
    assert monitored.get(monitored.root + path)[0] == 404


def test_the_page_loads_nothing_from_other_sites(monitored: Monitored) -> None:
    _, headers, page = monitored.get(monitored.root)
    assert headers["content-security-policy"].startswith("default-src 'none'")
    assert headers["content-type"] == "text/html; charset=utf-8"
    assert b"http" not in page
    assert headers["referrer-policy"] == "no-referrer"


def test_it_listens_on_loopback_only(monitored: Monitored) -> None:
    addresses = {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)}
    for address in addresses - {"127.0.0.1", "127.0.1.1"}:
        for port in (monitored.web_port, monitored.metrics_port):
            with socket.socket() as client:
                assert client.connect_ex((str(address), port)) != 0


def test_metrics_count_jobs_and_workers_without_their_contents(monitored: Monitored) -> None:
    pytest.importorskip("prometheus_client", reason="pip install motionbooth[metrics]")
    send(monitored, "invalid", seed=2, name="a secret film")

    def scraped() -> str:
        connection = http.client.HTTPConnection("127.0.0.1", monitored.metrics_port, timeout=10)
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
        connection.close()
        return text

    wait_until(lambda: 'motionbooth_jobs{state="failed"} 1.0' in scraped())
    assert 'motionbooth_workers{state="idle"} 1.0' in scraped()
    with monitored.backend.client() as client, pytest.raises(NotFound):
        client.get(new_job_id())
    wait_until(lambda: 'motionbooth_errors_total{kind="not_found"} 1.0' in scraped())
    counted = dict(line.rsplit(" ", 1) for line in scraped().splitlines() if not line.startswith("#"))
    assert float(counted['motionbooth_replies_total{type="Accepted"}']) >= 1
    assert float(counted["motionbooth_received_bytes_total"]) > 100
    assert float(counted["motionbooth_sent_bytes_total"]) > 100
    assert float(counted["motionbooth_ended_connections_total"]) == 0
    assert "secret" not in scraped()


def test_logs_are_json_lines_if_chosen(monitored: Monitored) -> None:
    send(monitored, "fault", seed=3)
    worker_log = monitored.backend.home / "logs" / "worker.log"
    wait_until(lambda: worker_log.exists() and "ZeroDivisionError" in worker_log.read_text())
    lines = [json.loads(line) for line in (monitored.backend.home / "logs" / "server.log").read_text().splitlines()]
    assert {"time", "level", "logger", "message"} <= lines[0].keys()
    assert any("listening on" in line["message"] for line in lines)


@pytest.mark.browser
def test_a_browser_shows_the_page_and_names_stay_text(monitored: Monitored, tmp_path: Path) -> None:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium on this machine")
    job = send(monitored, "steps=1 size=100", seed=4, name=NASTY)
    wait_until(lambda: monitored.job(job).get("state") == "done")
    dom = subprocess.run(
        [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync",
         f"--user-data-dir={tmp_path}/profile", "--virtual-time-budget=3000", "--dump-dom",
         f"http://127.0.0.1:{monitored.web_port}{monitored.root}"],
        capture_output=True, text=True, timeout=120, check=True,
    ).stdout  # fmt: skip
    assert "cpu-1" in dom
    assert "done</li>" in dom
    assert "&lt;img src=x onerror" in dom
    assert "<title>MotionBooth</title>" in dom
    assert re.search(r'<video[^>]* src="clip/[0-9a-f]{64}"', dom)
