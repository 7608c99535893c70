"""The file of flags and grants: read again whenever it has changed, replaced as a whole.

Each request looks at the file's metadata, so that a change counts from the next one on, whoever
made it: an editor, the command line, another server. The rule: a text that is not right changes
nothing; the policy before it stays in force and the log says where the mistake is. Where there is
none before it, at a server's start, nobody has access.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from ..errors import Unavailable
from ..policy.access import AccessPolicy
from ..policy.access_text import MOST_BYTES, PolicyTextError, parse_policy
from ..stores.whole_file import replace_text

_Signature = tuple[int, int, int, int]


class AccessFile:
    """The policy in force.

    Parameters
    ----------
    path : Path
        A file that need not exist: then the feature is on, for everybody.
    note : callable
        Is told of each policy that comes into force (``AuditLog.note``).
    """

    def __init__(
        self,
        path: Path,
        log: logging.Logger,
        note: Callable[..., None] = lambda action, **detail: None,
    ) -> None:
        self.path = path
        self.problem: PolicyTextError | None = None
        self._log = log
        self._note = note
        self._policy: AccessPolicy | None = None
        self._seen: _Signature | None = None

    def __repr__(self) -> str:
        return f"<AccessFile {self.path} {self._policy}>"

    def current(self) -> AccessPolicy:
        """Give the policy in force; a look at a local file's metadata, a few microseconds."""
        signature = _signature(self.path)
        if self._policy is None or signature != self._seen:
            self._seen = signature
            self._policy = self._read(self._policy)
        return self._policy

    def text(self) -> str:
        """Give the file's text; "" if there is none. ``Unavailable`` when it cannot be read."""
        try:
            with self.path.open("rb") as file:
                return file.read(MOST_BYTES + 1).decode("utf-8", "surrogateescape")
        except FileNotFoundError:
            return ""
        except OSError as exc:
            raise Unavailable(
                "the policy file cannot be read", status=503, detail=str(exc)
            ) from exc

    def replace(self, text: str) -> AccessPolicy:
        """Check and write a text (0600, atomically); blocks. ``PolicyTextError``: nothing is."""
        parse_policy(text)
        try:
            replace_text(self.path, text)
        except OSError as exc:
            raise Unavailable("the policy file cannot be written", detail=str(exc)) from exc
        return self.current()

    def _read(self, before: AccessPolicy | None) -> AccessPolicy:
        try:
            policy = parse_policy(self.text())
        except (PolicyTextError, Unavailable) as exc:
            self.problem = exc if isinstance(exc, PolicyTextError) else PolicyTextError(1, str(exc))
            if before is None:
                self._log.error("%s: %s; nobody has access", self.path, self.problem)
                return AccessPolicy(chat_sandbox=False)
            self._log.error("%s: %s; the policy before stays in force", self.path, self.problem)
            return before
        self.problem = None
        if policy != before:
            switched = "on" if policy.chat_sandbox else "off"
            grants = len(policy.grants)
            self._note("policy_in_force", switched_on=policy.chat_sandbox, count=grants)
            self._log.info("%s: chat_sandbox is %s, %d grants", self.path, switched, grants)
        return policy


def _signature(path: Path) -> _Signature | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
