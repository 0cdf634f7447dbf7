"""Keys: the key pairs of the server and its local client, and the authorized public keys in `authorized/`.

Does not use `zmq.auth.create_certificates`, which writes secrets that every user of the machine can read.
"""

from __future__ import annotations

import logging
import os
import re
import string
import time
from dataclasses import dataclass
from pathlib import Path

import zmq
from motionbooth_protocol.connection import Connection, host_and_port, write_private
from motionbooth_protocol.errors import Conflict, InvalidInput, NotFound
from zmq.utils import z85

log = logging.getLogger("motionbooth.keys")
audit = logging.getLogger("motionbooth.audit")
_KEY_CHARACTERS = frozenset(string.digits + string.ascii_letters + ".-:+=^!/*?&<>()[]{}@%$#")
_RESCAN_SECONDS = 1.0
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
ROLES = ("user", "admin")


@dataclass(frozen=True)
class KeyPair:
    """A CURVE key pair in Z85, 40 characters each."""

    public: str
    secret: str

    @classmethod
    def kept_in(cls, path: Path) -> KeyPair:
        """The key pair with the secret in the file `path`, which is created if missing, readable by its owner only."""
        if not path.exists():
            write_private(path, zmq.curve_keypair()[1] + b"\n")
        secret = path.read_text("ascii", errors="replace").strip()
        if not is_key(secret):
            raise InvalidInput(
                "{path} does not contain a key (40 characters of Z85). Restore it from a copy, or delete it to have "
                "a new one created; clients then need new connection files.",
                path=path,
            )
        return cls(zmq.curve_public(secret.encode()).decode(), secret)


def is_key(text: str) -> bool:
    """Whether `text` is 32 bytes in Z85."""
    if len(text) != 40 or not set(text) <= _KEY_CHARACTERS:
        return False
    try:
        return len(z85.decode(text)) == 32
    except Exception:  # z85 raises struct.error and others if five characters exceed 32 bits
        return False


def check_name(name: str) -> None:
    """Raises InvalidInput if a key cannot have this name, which is also a file name."""
    if not _NAME.fullmatch(name):
        raise InvalidInput(
            "A name starts with a letter or digit and has at most 64 ASCII letters, digits, dots, hyphens and "
            "underscores; got {name}.",
            name=repr(name),
        )


def server_keys(home: Path) -> KeyPair:
    """The server's own key pair, created at the first call."""
    return KeyPair.kept_in(home / "keys" / "server.secret")


def new_key(address: str, server_public: str) -> Connection:
    """A new key pair on the client's own machine, which the secret never leaves; no server has authorized it yet.

    Raises InvalidInput if the address or the server's public key is malformed.
    """
    host_and_port(address)
    if not is_key(server_public):
        raise InvalidInput(
            "{server_public} is not the public key of a backend (40 characters). Its owner sees it with "
            "`motionbooth keys list`.",
            server_public=repr(server_public),
        )
    public, secret = (key.decode() for key in zmq.curve_keypair())
    return Connection(address, server_public, public, secret)


def issue_key(home: Path, name: str, address: str, role: str = "user") -> Connection:
    """Create and authorize a key for another user; returns what that user needs. Raises as `authorize` does."""
    host_and_port(address)
    public, secret = (key.decode() for key in zmq.curve_keypair())
    authorize(home, name, public, role)
    return Connection(address, server_keys(home).public, public, secret)


def authorize(home: Path, name: str, public: str, role: str = "user") -> None:
    """Authorize a public key. Raises Conflict if the name or the key is known, InvalidInput if it is malformed."""
    check_name(name)
    if role not in ROLES:
        raise InvalidInput("A key's role must be one of {roles}; got {role}.", roles=", ".join(ROLES), role=repr(role))
    if not is_key(public):
        raise InvalidInput(
            "{key} is not a public key (40 characters of Z85, as `motionbooth keys new` writes).", key=repr(public[:60])
        )
    authorized = AuthorizedKeys(home / "authorized")
    # Some file systems take "Ann" and "ann" for the same file.
    taken = next((key.name for key in authorized.all() if key.name.casefold() == name.casefold()), None)
    if taken is not None:
        raise Conflict(
            "{name} already has a key. Revoke it with `motionbooth keys revoke {name}`, or use another name.",
            name=taken,
        )
    known = authorized.find(public)
    if known is not None:
        raise Conflict("This key is already authorized, as {name}.", name=known.name)
    authorized.add(name, public, role)


def revoke(home: Path, name: str) -> None:
    """Revoke a user's access; a running server ends its sessions within seconds. Raises NotFound."""
    known = {key.name for key in AuthorizedKeys(home / "authorized").all()}
    if name not in known:
        raise NotFound(
            "No key is named {name}; the authorized keys are: {known}.",
            name=name,
            known=", ".join(sorted(known)) or "none",
        )
    (home / "authorized" / f"{name}.pub").unlink()


@dataclass(frozen=True)
class Key:
    """An authorized public key: `name` is that of its file, `role` one of ROLES."""

    public: str
    name: str
    role: str

    @property
    def is_admin(self) -> bool:
        return self.role == "admin"


class AuthorizedKeys:
    """The authorized public keys: one file `NAME.pub` each, its first word the key, its second "user" or "admin".

    Without a valid second word the role is "user". The folder is read again once a second: adding a file authorizes a
    key and deleting it revokes access, without a restart.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        for path in (folder.parent, folder):  # this may create the backend's home, which is private
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._keys: dict[str, Key] = {}
        self._read_at = self._refused_at = float("-inf")
        self._refused = 0

    def add(self, name: str, public: str, role: str = "user") -> None:
        """Authorize a key."""
        write_private(self._folder / f"{name}.pub", f"{public} {role}\n".encode())
        self._read_at = float("-inf")

    def all(self) -> list[Key]:
        """All authorized keys by name; at most a second old."""
        self._refresh()
        return sorted(self._keys.values(), key=lambda key: key.name)

    def find(self, public: str) -> Key | None:
        """The key with this public key; None if it is not authorized."""
        self._refresh()
        return self._keys.get(public)

    def name(self, public: str) -> str:
        """The name of a public key, for people; also of a revoked one."""
        key = self._keys.get(public)
        return key.name if key is not None else f"{public[:8]}... (revoked)"

    def callback(self, domain: str, key: bytes) -> bool:
        """Called by pyzmq's authenticator in each handshake, from its own thread. Sees new keys without delay."""
        self._read()
        public = key.decode("ascii", errors="replace")
        if public not in self._keys:
            self._note_refused(public)
        return public in self._keys

    def _note_refused(self, public: str) -> None:
        """Log it; of a flood of strangers, one a second."""
        self._refused += 1
        if time.monotonic() - self._refused_at >= 1.0:
            audit.warning("refused the key %s (%d refused since the last such line)", public, self._refused)
            self._refused, self._refused_at = 0, time.monotonic()

    def _refresh(self) -> None:
        if time.monotonic() - self._read_at > _RESCAN_SECONDS:
            self._read()

    def _read(self) -> None:
        try:
            self._keys = self._in_folder()
        except OSError as error:  # such as too many open files; no reason to refuse every client
            log.warning("the authorized keys cannot be read (%s); the earlier ones remain valid", error)
        self._read_at = time.monotonic()

    def _in_folder(self) -> dict[str, Key]:
        keys: dict[str, Key] = {}
        names = sorted(os.listdir(self._folder)) if self._folder.is_dir() else []
        for path in [self._folder / name for name in names if name.endswith(".pub")]:
            try:
                words = path.read_text("ascii", errors="replace").split()
            except (FileNotFoundError, PermissionError, IsADirectoryError):  # revoked meanwhile, or not readable
                continue
            if words and is_key(words[0]):
                name = os.fsencode(path.stem).decode(errors="replace")  # it travels as UTF-8
                keys[words[0]] = Key(words[0], name, "admin" if words[1:2] == ["admin"] else "user")
        return keys
