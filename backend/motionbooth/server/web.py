"""A read-only page about the backend for a browser on this machine, at an address that contains a secret token.

Every user of this machine can connect to loopback, hence the token. Against DNS rebinding by pages of other sites, the
Host header must name this machine.
"""

from __future__ import annotations

import hashlib
import logging
import re
import secrets
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec
from motionbooth_protocol.connection import write_private
from motionbooth_protocol.errors import MotionBoothError, NotFound

from motionbooth.server.blobs import Blobs
from motionbooth.server.monitor import BackendView, Monitor

log = logging.getLogger("motionbooth.web")
_PAGE = Path(__file__).parent / "page"
_FILES = {"": "text/html", "page.js": "text/javascript", "page.css": "text/css"}
_PIECE = 1 << 20
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "media-src 'self'; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def serve_page(port: int, home: Path, monitor: Monitor, blobs: Blobs) -> tuple[str, Callable[[], None]]:
    """Serve the page in its own threads. Returns its address, and a function that stops it. Port 0: any free one.

    Raises MotionBoothError if the port is taken.
    """
    token = _token(home / "keys" / "web.token")
    try:
        server = _Server(port, token, monitor, blobs)
    except OSError as error:
        raise MotionBoothError(
            "The web page cannot be served on port {port} ({reason}); choose another one with --web-port.",
            port=port,
            reason=error.strerror,
        ) from error
    thread = threading.Thread(target=server.serve_forever, name="web page", daemon=True)
    thread.start()

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return f"http://127.0.0.1:{server.server_port}/{token}/", stop


def _token(path: Path) -> str:
    """Kept across restarts, so that bookmarks stay valid."""
    if not path.exists():
        write_private(path, secrets.token_urlsafe(24).encode())
    return path.read_text("ascii").strip()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, port: int, token: str, monitor: Monitor, blobs: Blobs) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.token = token
        self.monitor = monitor
        self.blobs = blobs

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Browsers often hang up in the middle of a clip."""
        log.debug("a request was not completed", exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    """GET and HEAD; the base class refuses everything else."""

    server: _Server
    protocol_version = "HTTP/1.1"
    server_version = "MotionBooth"
    sys_version = ""
    timeout = 30.0

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        host, _, _ = self.headers.get("Host", "").partition(":")
        if host not in ("127.0.0.1", "localhost"):
            self._send(HTTPStatus.FORBIDDEN, b"This page is served under its own address only.", "text/plain")
            return
        _, token, *rest = self.path.partition("?")[0].split("/", 2)
        if not secrets.compare_digest(token.encode(), self.server.token.encode()) or not rest:
            self._not_found()
            return
        self._send_page(rest[0], self.server.monitor.view)

    def _send_page(self, name: str, view: BackendView) -> None:
        folder, _, key = name.partition("/")
        if name in _FILES:
            data = (_PAGE / (name or "page.html")).read_bytes()
            self._send(HTTPStatus.OK, data, f"{_FILES[name]}; charset=utf-8")
        elif name == "state.json":
            self._send(HTTPStatus.OK, state(view), "application/json")
        elif folder == "preview" and key in view.previews:
            picture = view.previews[key]
            self._send(HTTPStatus.OK, picture, "image/png" if picture.startswith(b"\x89PNG") else "image/jpeg")
        elif folder == "clip" and any(key == blob.sha256 for job in view.jobs for blob in job.results):
            self._send_clip(key)
        else:
            self._not_found()

    def _send_clip(self, sha256: str) -> None:
        """The whole clip, or the requested byte range, so that the browser can seek in it."""
        try:
            path = self.server.blobs.path(sha256)
        except NotFound:
            self._not_found()
            return
        size = path.stat().st_size
        asked = re.fullmatch(r"bytes=(\d{1,15})-(\d{0,15})", self.headers.get("Range", ""))
        first = int(asked[1]) if asked else 0
        last = min(int(asked[2]), size - 1) if asked and asked[2] else size - 1
        if first > last:
            self._begin(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, 0, "video/mp4", f"bytes */{size}")
            return
        status = HTTPStatus.PARTIAL_CONTENT if asked else HTTPStatus.OK
        self._begin(status, last - first + 1, "video/mp4", f"bytes {first}-{last}/{size}" if asked else "")
        if self.command == "HEAD":
            return
        with path.open("rb") as file:
            file.seek(first)
            left = last - first + 1
            while left > 0 and (piece := file.read(min(_PIECE, left))):
                self.wfile.write(piece)
                left -= len(piece)

    def _not_found(self) -> None:
        self._send(HTTPStatus.NOT_FOUND, b"There is nothing here.", "text/plain")

    def _send(self, status: HTTPStatus, data: bytes, kind: str) -> None:
        self._begin(status, len(data), kind)
        if self.command != "HEAD":
            self.wfile.write(data)

    def _begin(self, status: HTTPStatus, length: int, kind: str, content_range: str = "") -> None:
        self.send_response(status)
        ranges = {"Accept-Ranges": "bytes", "Content-Range": content_range} if content_range else {}
        headers = {"Content-Type": kind, "Content-Length": str(length), **ranges, **_HEADERS}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        log.debug(format, *args)


def state(view: BackendView) -> bytes:
    """The view as JSON for the page, with a hash of each preview instead of its picture."""
    previews = {job: hashlib.sha256(picture).hexdigest()[:12] for job, picture in view.previews.items()}
    jobs = [msgspec.to_builtins(job) | {"error": str(job.error or "")} for job in view.jobs]
    problems = [str(problem) for problem in view.status.problems.values()]
    return msgspec.json.encode({"status": view.status, "problems": problems, "jobs": jobs, "previews": previews})
