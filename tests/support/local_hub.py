"""A stand-in for the Hugging Face hub on this machine: the parts of its HTTP interface that downloads use."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

REVISION = "0123456789abcdef0123456789abcdef01234567"
LARGE = (".safetensors", ".bin", ".pt")


class LocalHub(ThreadingHTTPServer):
    """`files`: of each repository, by path. `breaks`: paths whose first download ends in the middle. `gated`:
    repositories whose files are only for those who have asked their owner. `slow`: paths that arrive in a minute.
    `torn`: paths of which only a half ever arrives. `stated`: sizes of paths that are not true."""

    daemon_threads = True

    def __init__(self, files: dict[str, dict[str, bytes]]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files = files
        self.breaks, self.gated, self.slow, self.torn = set[str](), set[str](), set[str](), set[str]()
        self.stated: dict[str, int] = {}
        self.served: list[tuple[str, int]] = []  # (path, first byte)
        self.tokens = set[str | None]()  # with which it was asked
        self.swapped: dict[str, bytes] = {}  # what is sent instead, under the sum of the true file

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def add_folder(self, repository: str, folder: Path) -> None:
        """Publish the files of a folder."""
        files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        self.files.setdefault(repository, {}).update(files)

    @contextmanager
    def running(self) -> Iterator[LocalHub]:
        thread = threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self.shutdown()
            thread.join()
            self.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: LocalHub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.server.tokens.add(self.headers.get("Authorization"))
        if path.startswith("/api/models/"):
            self._model("/".join(path.split("/")[3:5]))
            return
        repository, _, file = path.lstrip("/").partition(f"/resolve/{REVISION}/")
        content = self.server.files.get(repository, {}).get(file)
        if content is None:
            self._send(404, b"", {"X-Error-Code": "EntryNotFound"})
        elif repository in self.server.gated:
            self._send(403, b"", {"X-Error-Code": "GatedRepo"})
        else:
            self._file(file, content)

    def _model(self, repository: str) -> None:
        files = self.server.files.get(repository)
        if files is None:
            self._send(404, b"", {"X-Error-Code": "RepoNotFound"})
            return
        siblings = [
            {
                "rfilename": path,
                "size": self.server.stated.get(path, len(content)),
                "blobId": hashlib.sha1(content).hexdigest(),
            }
            | ({"lfs": {"size": len(content), "sha256": _sum(content), "pointerSize": 130}} if _is_large(path) else {})
            for path, content in files.items()
        ]
        model = {"id": repository, "sha": REVISION, "siblings": siblings, "tags": ["license:cc-by-nc-4.0"]}
        self._send(200, json.dumps(model).encode(), {"Content-Type": "application/json"})

    def _file(self, path: str, content: bytes) -> None:
        etag = _sum(content) if _is_large(path) else hashlib.sha1(content).hexdigest()
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": REVISION, "Accept-Ranges": "bytes"}
        sent = self.server.swapped.get(path, content)
        first = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")[0])
        if self.command == "GET":
            self.server.served.append((path, first))
        if first:
            headers["Content-Range"] = f"bytes {first}-{len(sent) - 1}/{len(sent)}"
        if self.command == "GET" and path in self.server.torn:
            self._send(206 if first else 200, sent[first:], headers, max(0, len(sent) // 2 - first))
        elif self.command == "GET" and path in self.server.breaks:
            self.server.breaks.remove(path)
            self._send(206 if first else 200, sent[first:], headers, len(sent[first:]) // 2)
        else:
            self._send(206 if first else 200, sent[first:], headers, pause=0.6 * (path in self.server.slow))

    def _send(
        self, status: int, body: bytes, headers: dict[str, str], cut: int | None = None, pause: float = 0
    ) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            sent = body if cut is None else body[:cut]
            piece = max(1, len(sent) // 100 if pause else len(sent))
            for start in range(0, len(sent), piece):
                self.wfile.write(sent[start : start + piece])
                time.sleep(pause)
        if cut is not None:
            self.close_connection = True


def _sum(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _is_large(path: str) -> bool:
    return path.endswith(LARGE)
