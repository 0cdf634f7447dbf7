"""This person's own key pair, for backends whose owner lets a public key in. Its secret stays in a file here."""

from __future__ import annotations

from pathlib import Path

import zmq

from ._protocol.connection import write_private


def own_keys(folder: Path) -> tuple[str, str]:
    """Public and secret key in Z85; made at the first call, readable by their owner alone."""
    path = folder / "keys" / "own.secret"
    if not path.exists():
        write_private(path, zmq.curve_keypair()[1] + b"\n")
    secret = path.read_text("ascii").strip()
    return zmq.curve_public(secret.encode()).decode(), secret
