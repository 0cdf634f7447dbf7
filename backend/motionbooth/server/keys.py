"""Who may enter: the server's own key pair, the local client's, and the public keys in `authorized/`.

Key files are written here and not by `zmq.auth.create_certificates`, which leaves secrets readable by everyone.
"""

from __future__ import annotations

import re
import string
import time
from dataclasses import dataclass
from pathlib import Path

import zmq
from motionbooth_protocol.connection import Connection, write_private
from motionbooth_protocol.errors import Conflict, InvalidInput, NotFound
from zmq.utils import z85

_KEY_CHARACTERS = frozenset(string.digits + string.ascii_letters + ".-:+=^!/*?&<>()[]{}@%$#")
_RESCAN_SECONDS = 1.0
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class KeyPair:
    """A CURVE key pair in Z85, 40 characters each."""

    public: str
    secret: str

    @classmethod
    def kept_in(cls, path: Path) -> KeyPair:
        """The key pair whose secret `path` holds; made there, readable by the owner alone, if there is none."""
        if not path.exists():
            write_private(path, zmq.curve_keypair()[1] + b"\n")
        secret = path.read_text("ascii", errors="replace").strip()
        if not is_key(secret):
            raise InvalidInput(
                f"{path} does not hold a key (40 characters of Z85). Restore it from a copy, or delete it to have "
                "a new one made; clients then need new connection files."
            )
        return cls(zmq.curve_public(secret.encode()).decode(), secret)


def is_key(text: str) -> bool:
    """Whether `text` is 32 bytes in Z85."""
    if len(text) != 40 or not set(text) <= _KEY_CHARACTERS:
        return False
    try:
        return len(z85.decode(text)) == 32
    except Exception:  # z85 raises struct.error and others for five characters that are no number of 32 bits
        return False


def server_keys(home: Path) -> KeyPair:
    """The server's own key pair, made at the first call."""
    return KeyPair.kept_in(home / "keys" / "server.secret")


def let_in(home: Path, name: str, address: str) -> Connection:
    """Make a key for another person and let it in: what that person needs. Raises Conflict where the name is taken."""
    if not _NAME.fullmatch(name):
        raise InvalidInput(f"A name has letters, digits, dots and dashes only, at most 64; got {name!r}.")
    authorized = AuthorizedKeys(home / "authorized")
    if name in authorized.names().values():
        raise Conflict(
            f"{name} has a key already. Take it away with `motionbooth keys remove {name}`, or use another name."
        )
    public, secret = (key.decode() for key in zmq.curve_keypair())
    authorized.add(name, public)
    return Connection(address, server_keys(home).public, public, secret)


def shut_out(home: Path, name: str) -> None:
    """Withdraw a person's key; a running server ends its sessions within seconds. Raises NotFound."""
    known = AuthorizedKeys(home / "authorized").names().values()
    if name not in known:
        raise NotFound(f"Nobody named {name} has a key; known are: {', '.join(sorted(known)) or 'none'}.")
    (home / "authorized" / f"{name}.pub").unlink()


class AuthorizedKeys:
    """The public keys that may enter: one file `NAME.pub` each, its first word the key.

    The folder is read again once a second, so that adding a file lets a key in and deleting it shuts it out,
    without a restart.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._keys: dict[str, str] = {}
        self._read_at = float("-inf")

    def add(self, name: str, public: str) -> None:
        """Let a key in from now on."""
        write_private(self._folder / f"{name}.pub", public.encode() + b"\n")
        self._read_at = float("-inf")

    def names(self) -> dict[str, str]:
        """Public key -> name, at most a second old."""
        if time.monotonic() - self._read_at > _RESCAN_SECONDS:
            self._read()
        return self._keys

    def __contains__(self, public: object) -> bool:
        return public in self.names()

    def callback(self, domain: str, key: bytes) -> bool:
        """What pyzmq's authenticator asks at each handshake, from a thread of its own: a new key need not wait."""
        self._read()
        return key.decode("ascii", errors="replace") in self._keys

    def _read(self) -> None:
        keys: dict[str, str] = {}
        for path in sorted(self._folder.glob("*.pub")):
            try:
                words = path.read_text("ascii", errors="replace").split()
            except OSError:  # deleted between the listing and now: shut out
                continue
            if words and is_key(words[0]):
                keys[words[0]] = path.stem
        self._keys, self._read_at = keys, time.monotonic()
