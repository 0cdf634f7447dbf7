"""The connection file of a client: a backend's address and public key, and the client's own key pair."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Self

import msgspec
from msgspec import Meta

from .errors import InvalidInput, NotFound
from .wording import in_words

CurveKey = Annotated[str, Meta(min_length=40, max_length=40)]
_ADDRESS = re.compile(r"tcp://([^\s/]+):(\d{1,5}|\*)")


class Connection(msgspec.Struct, frozen=True):
    """`address` as in ZeroMQ ("tcp://127.0.0.1:5599"); keys in Z85 (40 characters)."""

    address: str
    server_public: CurveKey
    client_public: CurveKey
    client_secret: CurveKey

    def write(self, path: Path) -> None:
        """Write as JSON, readable by the owner only."""
        write_private(path, msgspec.json.format(msgspec.json.encode(self)))

    @classmethod
    def read(cls, path: Path) -> Self:
        """Raises NotFound or InvalidInput."""
        try:
            connection = msgspec.json.decode(path.read_bytes(), type=cls)
        except FileNotFoundError:
            raise NotFound(
                "There is no connection file at {path}. Start a backend with `motionbooth serve`, which writes one, "
                "or copy the file that the backend's owner gave you.",
                path=path,
            ) from None
        except (msgspec.MsgspecError, UnicodeDecodeError, OSError) as error:
            raise InvalidInput(
                "The connection file {path} cannot be read ({problem}). Ask the backend's owner for a new one.",
                path=path,
                problem=in_words(error),
            ) from error
        host_and_port(connection.address)
        return connection


def written_at(path: Path) -> int | None:
    """The time when a file was last written, in nanoseconds; None if there is no file."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return None


def host_and_port(address: str) -> tuple[str, str]:
    """Split "tcp://HOST:PORT"; the port is a number, or "*" for any free one. Raises InvalidInput."""
    match = _ADDRESS.fullmatch(address)
    if match is None or (match[2] != "*" and int(match[2]) > 65535):
        raise InvalidInput(
            "An address looks like tcp://render-box:5599, with a port up to 65535; got {address}.",
            address=repr(address),
        )
    return match[1], match[2]


def write_private(path: Path, data: bytes) -> None:
    """Write a file that is never readable by others; an existing one is replaced atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    scratch.unlink(missing_ok=True)
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    scratch.replace(path)
