"""Messages to ZeroMQ frames and back: one msgpack header, at most one payload frame. Nothing is ever unpickled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from .errors import Malformed
from .limits import CHUNK_BYTES, MAX_HEADER_BYTES
from .messages import AnyReply, AnyRequest
from .reports import Count

_encoder = msgspec.msgpack.Encoder()
_requests: msgspec.msgpack.Decoder[AnyRequest] = msgspec.msgpack.Decoder(AnyRequest)
_replies: msgspec.msgpack.Decoder[AnyReply] = msgspec.msgpack.Decoder(AnyReply)


class _AnyRequest(msgspec.Struct):
    id: Count


_ids: msgspec.msgpack.Decoder[_AnyRequest] = msgspec.msgpack.Decoder(_AnyRequest)


def encode(message: AnyRequest | AnyReply, payload: bytes | None = None) -> list[bytes]:
    """One or two frames: the header, and the payload if there is one."""
    header = _encoder.encode(message)
    return [header] if payload is None else [header, payload]


def decode_request(frames: Sequence[bytes]) -> tuple[AnyRequest, bytes | None]:
    """The client's message and its payload. Raises Malformed."""
    return _decode(_requests, frames)


def id_of(frames: Sequence[bytes]) -> int:
    """The id of a request, even if it is malformed; 0 if that cannot be read."""
    try:
        return _ids.decode(frames[0]).id
    except Exception:  # as in _decode
        return 0


def decode_reply(frames: Sequence[bytes]) -> tuple[AnyReply, bytes | None]:
    """The server's message and its payload. Raises Malformed."""
    return _decode(_replies, frames)


def _decode(decoder: msgspec.msgpack.Decoder[Any], frames: Sequence[bytes]) -> tuple[Any, bytes | None]:
    if not 1 <= len(frames) <= 2:
        raise Malformed("a message has one or two frames; this one has {found}", found=len(frames))
    header, payload = frames[0], frames[1] if len(frames) == 2 else None
    if len(header) > MAX_HEADER_BYTES:
        raise Malformed(
            "a header has at most {most} bytes; this one has {found}", most=MAX_HEADER_BYTES, found=len(header)
        )
    if payload is not None and len(payload) > CHUNK_BYTES:
        raise Malformed(
            "a payload has at most {most} bytes; this one has {found}", most=CHUNK_BYTES, found=len(payload)
        )
    try:
        return decoder.decode(header), payload
    # All bytes from the network are decoded here. Besides its own errors, msgspec raises UnicodeDecodeError for bad
    # UTF-8, and OverflowError or RecursionError for hostile numbers and nesting.
    except Exception as error:
        raise Malformed("this is not a message of the protocol: {reason}", reason=error) from error
