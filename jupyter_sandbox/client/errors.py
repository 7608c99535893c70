"""What a client's method raises.

::

    ClientError
    ├── Refused        the server answered with an error; ``status``, ``code``, ``message``
    └── NotReachable   no answer: the server is down, or the connection broke

An error of a *tool* is no exception: it is a result with ``is_error`` that the model can read.
"""

from __future__ import annotations


class ClientError(Exception):
    """The root."""


class Refused(ClientError):
    """The server has refused; nothing was done.

    Attributes
    ----------
    code : str
        Stable: match on it.
    retry_after_seconds : float or None
        When the same request may succeed; None if it will not.
    """

    def __init__(
        self, status: int, code: str, message: str, retry_after_seconds: float | None = None
    ) -> None:
        super().__init__(f"{status} {code}: {message}")
        self.status = status
        self.code = code
        self.message = message
        self.retry_after_seconds = retry_after_seconds


class NotReachable(ClientError):
    """There was no answer. A call that had begun goes on."""
