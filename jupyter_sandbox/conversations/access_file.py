"""The file of flags and grants: read again whenever it has changed, replaced as a whole.

Each request looks at the file's metadata, so that a change counts from the next one on, whoever
made it: an editor, the command line, another server. The rules: a text that is not right, or a file
that cannot be read any more, changes nothing: the policy before it stays in force and the log says
why; at a server's start, where there is none before it, nobody has access. What was seen of a file
is remembered after its policy is in force, not before.
"""

from __future__ import annotations

import json
import logging
import os
import stat
from collections.abc import Callable
from pathlib import Path

from ..errors import Misconfigured, Unavailable
from ..models import JsonValue
from ..policy.access import AccessPolicy
from ..policy.access_text import MOST_BYTES, PolicyTextError, parse_policy
from ..stores.whole_file import replace_text

_Signature = tuple[int, int, int, int, int]
_NOBODY = AccessPolicy(chat_sandbox=False)


class AccessFile:
    """The policy in force.

    Parameters
    ----------
    path : Path
        A file that need not exist: then the feature is on, for everybody.
    note : callable
        Is told of each policy that comes into force (``AuditLog.note``).
    must_exist : bool
        A missing file is a problem: it was named in the settings.

    Attributes
    ----------
    problem : PolicyTextError or None
        Why the file is not what is in force.
    document : JSON object
        The text of the policy in force.
    """

    def __init__(
        self,
        path: Path,
        log: logging.Logger,
        note: Callable[..., None] = lambda action, **detail: None,
        *,
        must_exist: bool = False,
    ) -> None:
        self.path = path
        self.problem: PolicyTextError | None = None
        self.document: JsonValue = {}
        self._log = log
        self._note = note
        self._must_exist = must_exist
        self._policy: AccessPolicy | None = None
        self._seen: _Signature | None = None
        self._is_current = False  # whether what was seen has been dealt with
        self._has_file = False  # whether the policy in force was in a file
        self._reported = ""

    def __repr__(self) -> str:
        return f"<AccessFile {self.path} {self._policy}>"

    def current(self) -> AccessPolicy:
        """Give the policy in force; a look at a local file's metadata, a few microseconds."""
        signature = _signature(self.path)
        if not self._is_current or signature != self._seen:
            self._is_current = False
            self._read()
            self._is_current = self.problem is None or self.problem.is_of_text
            self._seen = signature  # of before it was read: a change since then is seen
        return self._policy or _NOBODY

    def require(self) -> None:
        """Raise ``Misconfigured`` while no policy has come into force."""
        self.current()
        if self._policy is None:
            raise Misconfigured([f"{self.path}: {self.problem}"])

    def tell(self, note: Callable[..., None]) -> None:
        """Tell of the policy in force, and of each that comes into force from now on."""
        self._note = note
        if self._policy is not None:
            self._tell(self._policy)

    def replace(self, text: str) -> None:
        """Check and write a text, atomically; it is in force after the next ``current``. Blocks.

        Raises
        ------
        PolicyTextError
            The text is not right; nothing was written.
        Unavailable
            It cannot be written.
        """
        parse_policy(text)
        try:
            replace_text(self.path, text, keeps_access=True)
        except OSError as exc:
            raise Unavailable("the policy file cannot be written", detail=str(exc)) from exc

    def _read(self) -> None:
        try:
            text = self._text()
            policy = parse_policy(text or "")
        except PolicyTextError as exc:
            self.problem = exc
            if self._reported != str(exc):
                self._reported = str(exc)
                stays = (
                    "nobody has access"
                    if self._policy is None
                    else ("the policy before stays in force")
                )
                self._log.error("%s: %s; %s", self.path, exc, stays)
            return
        before, self._policy = self._policy, policy
        self._has_file = text is not None
        self.document = json.loads(text) if text and text.strip() else {}
        self.problem, self._reported = None, ""
        if policy != before:
            self._tell(policy)

    def _tell(self, policy: AccessPolicy) -> None:
        grants = len(policy.grants)
        switched = "on" if policy.chat_sandbox else "off"
        self._log.info("%s: chat_sandbox is %s, %d grants", self.path, switched, grants)
        self._note("policy_in_force", switched_on=policy.chat_sandbox, count=grants)

    def _text(self) -> str | None:
        """Give the file's text; None where there was no file and need not be one."""
        try:
            # A pipe is opened at once, and not read: who reads one waits for its writer.
            with open(os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    raise PolicyTextError(0, "is no regular file")
                data = file.read(MOST_BYTES + 1)
        except FileNotFoundError as exc:
            if not (self._has_file or self._must_exist or os.path.lexists(self.path)):
                return None
            raise PolicyTextError(
                0, "there is no such file (`jupyter sandbox enable` makes one)"
            ) from exc
        except OSError as exc:
            raise PolicyTextError(0, f"cannot be read: {exc.strerror}") from exc
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError as exc:
            raise PolicyTextError(data[: exc.start].count(b"\n") + 1, "not UTF-8") from exc


def _signature(path: Path) -> _Signature | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return (
        *(status.st_dev, status.st_ino, status.st_size),
        *(status.st_mtime_ns, status.st_ctime_ns),  # a mode that changes makes it readable
    )
