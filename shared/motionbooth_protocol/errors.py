"""Errors whose message is meant for a person."""

from __future__ import annotations

import errno

from .text import Text


class ErrorReport(Text, frozen=True):
    """An error on the wire, in a pipe or in a file: its sentence, and its code for programs."""

    code: str = "error"

    @property
    def kind(self) -> str:
        """The code of the error's class."""
        return self.code.partition(".")[0]

    def error(self) -> MotionBoothError:
        """The error itself, to be raised. MotionBoothError for a code that this version does not know."""
        error = by_code(self.kind)(Text(self.template, self.values))
        error.code = self.code
        return error


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

    @property
    def report(self) -> ErrorReport:
        return ErrorReport(self.text.template, self.text.values, self.code)


class InvalidInput(MotionBoothError):
    """The input is not valid: a scene, picture, prompt or value must be changed."""

    code = "invalid_input"


class NotFound(MotionBoothError):
    """A job, blob, subject, model or file that was named does not exist."""

    code = "not_found"


class Conflict(MotionBoothError):
    """The same id was used for something else, or the object is in a state that does not allow this."""

    code = "conflict"


class Unreachable(MotionBoothError):
    """The backend does not answer: it is not running, its address is another one, or the network drops packets."""

    code = "unreachable"
    retryable = True


class NotAuthorized(MotionBoothError):
    """The backend answered and refused this key."""

    code = "not_authorized"


class OutOfSpace(MotionBoothError):
    """A disk is full, here or on the backend. Existing files are not changed."""

    code = "out_of_space"
    retryable = True


class OverLimit(MotionBoothError):
    """The key has reached a limit of the backend: waiting jobs, space, or others."""

    code = "over_limit"


class Busy(MotionBoothError):
    """Too many requests from this key; the same request succeeds later."""

    code = "busy"
    retryable = True


class Malformed(MotionBoothError):
    """The frames received are not a message of the protocol."""

    code = "malformed"


class NoSession(MotionBoothError):
    """The connection has no session, or not any more: send Hello first."""

    code = "no_session"
    retryable = True


class Damaged(MotionBoothError):
    """The bytes received do not have the announced sha256; they were discarded."""

    code = "damaged"
    retryable = True


class JobFailed(MotionBoothError):
    """A job ended without a result; the message is the reason that its worker gave."""

    code = "job_failed"


class Canceled(MotionBoothError):
    """The job was canceled by its owner."""

    code = "canceled"


class VersionMismatch(MotionBoothError):
    """Client and server speak different versions of the protocol."""

    code = "version_mismatch"


def by_code(code: str) -> type[MotionBoothError]:
    """The class of a code from the wire; MotionBoothError itself for an unknown code."""
    return next((cls for cls in MotionBoothError.__subclasses__() if cls.code == code), MotionBoothError)


def is_disk_full(error: OSError) -> bool:
    """Whether a write failed for lack of space: disk, quota or file size limit."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def from_os_error(error: OSError, path: object = None) -> MotionBoothError:
    """The message for a file or folder that cannot be used. `path`: its name if the system does not give it."""
    path, reason = error.filename2 or error.filename or path, error.strerror or str(error)
    if is_disk_full(error):
        if path is None:
            return OutOfSpace("The disk is full; free some space and try again.")
        return OutOfSpace("The disk of {path} is full; free some space there and try again.", path=path)
    if path is None:
        return MotionBoothError("System error: {reason}.", reason=reason)
    return InvalidInput(
        "{path} cannot be used ({reason}); check the path and its permissions.", path=path, reason=reason
    )
