"""Errors whose message is meant for a person."""

import errno

from .text import Text


class MotionBoothError(Exception):
    """What was wrong, what was expected and what to do, in one sentence that an animator can act on.

    The class gives the kind of an error: `code` names it for programs and crosses the wire, and `retryable` says that
    the same request may succeed later without a change. `text` is the sentence: a template and its values.
    """

    code = "error"
    retryable = False

    def __init__(self, template: str | Text, /, *, code: str = "", **values: object) -> None:
        """`template` has a field for each value, such as {path}. `code` tells errors of one class apart for programs:
        InvalidInput(..., code="no_prompt") has the code "invalid_input.no_prompt".
        """
        super().__init__(template)
        self.text = template if isinstance(template, Text) else Text.of(template, **values)
        if code:
            self.code = f"{type(self).code}.{code}"

    def __str__(self) -> str:
        return str(self.text)


class InvalidInput(MotionBoothError):
    """The request cannot be carried out as it stands: a scene, picture, prompt or value must be changed."""

    code = "invalid_input"


class NotFound(MotionBoothError):
    """A job, blob, subject, model or file that was named does not exist."""

    code = "not_found"


class Conflict(MotionBoothError):
    """The same id was used for something else before."""

    code = "conflict"


class Unreachable(MotionBoothError):
    """The backend does not answer: not running, another address, or a network between that drops packets."""

    code = "unreachable"
    retryable = True


class NotAuthorized(MotionBoothError):
    """The backend answered and refused this key."""

    code = "not_authorized"


class OutOfSpace(MotionBoothError):
    """A disk is full, here or on the backend; what was there before is untouched."""

    code = "out_of_space"
    retryable = True


class OverLimit(MotionBoothError):
    """The key has used up what the backend's owner grants it: jobs waiting, or space."""

    code = "over_limit"


class Busy(MotionBoothError):
    """Too many requests at once from this key; the same request is answered in a while."""

    code = "busy"
    retryable = True


class Malformed(MotionBoothError):
    """Frames arrived that are not a message of the protocol."""

    code = "malformed"


class NoSession(MotionBoothError):
    """The server does not know this connection (any more): say Hello first."""

    code = "no_session"
    retryable = True


class Damaged(MotionBoothError):
    """Bytes arrived that do not have the sha256 that was announced; they were thrown away."""

    code = "damaged"
    retryable = True


class JobFailed(MotionBoothError):
    """A job ended without a result; the message carries the reason given by its worker."""

    code = "job_failed"


class Canceled(MotionBoothError):
    """The job was canceled by its owner."""

    code = "canceled"


class VersionMismatch(MotionBoothError):
    """Client and server speak different major versions of the protocol."""

    code = "version_mismatch"


def by_code(code: str) -> type[MotionBoothError]:
    """The class that a code from the wire names; MotionBoothError itself for a code that this version does not know."""
    return next((cls for cls in MotionBoothError.__subclasses__() if cls.code == code), MotionBoothError)


def is_disk_full(error: OSError) -> bool:
    """Whether the system refused to write for want of space: disk, quota or file size limit."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
