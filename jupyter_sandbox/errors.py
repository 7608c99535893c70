"""Errors, by who can put them right.

::

    SandboxError                      message is safe to show; detail is for the log
    ├── ToolError                     the model: arguments, path, match, timeout, kernel died
    ├── AccessError                   the caller
    │   ├── FeatureOff                  503: switched off, decided before any look-up
    │   ├── Forbidden                   403: no chat access, decided before any look-up
    │   └── NotFound                    404: missing and somebody else's alike
    ├── InvalidRequest                the caller: a malformed body or query (400 / 422)
    ├── LimitExceeded                 the user or an administrator: capacity, size, rate (413 / 429)
    └── Unavailable                   nobody now: engine, guest, start timeout (502 / 503 / 504)
        ├── DiskFull                    a disk of the host has no room, or almost none (507)
        ├── Misconfigured               an administrator: a wrong setting, policy or directory (503)
        └── VersionTaken                a shared file's version was recorded by another meanwhile

Anything else is a bug of ours: 500 with an id that also stands in the log. Errors of libraries are
translated where the library is called (``raise ... from exc``). ``HTTPError`` lives in ``routes/``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class SandboxError(Exception):
    """The root of our errors.

    Parameters
    ----------
    message : str
        What happened and what to do next; safe to show to users and models (no host paths).
    detail : str, optional
        More for the log, never shown.
    """

    code: str = "error"

    def __init__(self, message: str, *, detail: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.detail = detail


class ToolError(SandboxError):
    """What the model can put right. Becomes a tool result with ``is_error``.

    Parameters
    ----------
    message : str
        What did not happen, why, and what to do next.
    code : str
        Stable machine-readable code, e.g. ``"not_found"``, ``"no_match"``, ``"timeout"``.
    """

    def __init__(self, message: str, *, code: str, detail: str = "") -> None:
        super().__init__(message, detail=detail)
        self.code = code
        self.hits: tuple[Any, ...] = ()  # ``models.LimitHit``: the limits that were the cause


class AccessError(SandboxError):
    """What the caller may not do."""

    code = "forbidden"


class FeatureOff(AccessError):
    """The sandbox is switched off on this server (503)."""

    code = "feature_off"


class Forbidden(AccessError):
    """The caller is known but has no access (403)."""

    code = "forbidden"


class NotFound(AccessError):
    """There is no such thing, or it is somebody else's (404): the two answer alike."""

    code = "not_found"


class InvalidRequest(SandboxError):
    """A request that cannot be understood.

    Parameters
    ----------
    status : int
        400 for a body that is not JSON, 422 for JSON of the wrong shape, 413 for one too large.
    """

    code = "invalid_request"

    def __init__(self, message: str, *, status: int = 422, detail: str = "") -> None:
        super().__init__(message, detail=detail)
        self.status = status


class LimitExceeded(SandboxError):
    """A limit that a user or an administrator can lift.

    Parameters
    ----------
    status : int
        413 for a size, 429 for a rate or a number at once.
    retry_after_seconds : int, optional
        When a retry may succeed; only with 429.
    """

    code = "limit_exceeded"

    def __init__(
        self,
        message: str,
        *,
        status: int = 429,
        retry_after_seconds: int | None = None,
        detail: str = "",
    ) -> None:
        super().__init__(message, detail=detail)
        self.status = status
        self.retry_after_seconds = retry_after_seconds


class Unavailable(SandboxError):
    """An engine, a guest or a store that does not answer; a retry may succeed.

    Parameters
    ----------
    status : int
        502 for a failed answer, 503 for something switched off or not installed, 504 for a timeout,
        507 for a full disk.
    """

    code = "unavailable"

    def __init__(
        self,
        message: str,
        *,
        status: int = 502,
        retry_after_seconds: int = 5,
        detail: str = "",
    ) -> None:
        super().__init__(message, detail=detail)
        self.status = status
        self.retry_after_seconds = retry_after_seconds


class VersionTaken(Unavailable):
    """Another has recorded this version of a shared file first: take the next one."""


class DiskFull(Unavailable):
    """A disk of the host has no room, or almost none; it passes when there is more (507)."""

    code = "disk_full"

    def __init__(self, message: str, *, detail: str = "") -> None:
        super().__init__(message, status=507, retry_after_seconds=60, detail=detail)


class Misconfigured(Unavailable):
    """A setting, the policy file or a directory that is not right: nothing is served (503).

    Parameters
    ----------
    problems : sequence of str
        What is wrong, where (file, line, path) and what to do; for the log and administrators.
    """

    code = "misconfigured"

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__(
            "The sandbox is not configured correctly: ask your administrator.",
            status=503,
            retry_after_seconds=60,
        )
        self.problems = tuple(problems)
