"""The server's side of ``keeper``: ask for a process, learn its number, its end and what it left.

Requests and answers are packets of a few hundred bytes, so asking never waits. A command may kill
its parent: then it is ended, too.
"""

from __future__ import annotations

import marshal
import os
import signal
import socket
from typing import Any, Dict, Mapping, Sequence, Tuple

from ..keeper import MAX_PACKET


class Keeper:
    """One keeper; it has at most one command at a time.

    Attributes
    ----------
    pid : int
        Its process id: the parent of all that its command leaves without one.
    """

    def __init__(self, sock: socket.socket, pid: int) -> None:
        self.pid = pid
        self._socket = sock

    def __repr__(self) -> str:
        return "<Keeper %d>" % self.pid

    def fileno(self) -> int:
        """Give a descriptor that is readable when there is an answer."""
        return self._socket.fileno()

    def ask(
        self,
        argv: Sequence[str],
        env: Mapping[str, str],
        cwd: str,
        fds: Mapping[int, int],
        stamp: int = 0,
    ) -> None:
        """Ask for a program; ``fds`` maps its descriptors (0 to 15) to ours, to be closed then.

        ``stamp`` is of ``orphans``; 0 for none.

        Raises
        ------
        OSError
            The keeper is gone, or the request is too large.
        """
        request = {
            "argv": list(argv),
            "env": dict(env),
            "cwd": cwd,
            "fds": list(fds),
            "stamp": stamp,
        }
        data = marshal.dumps(request)
        if len(data) > MAX_PACKET:
            raise OSError("arguments and environment are too large")
        socket.send_fds(self._socket, [data], list(fds.values()))

    def started(self) -> int:
        """Wait for the process id of what was asked for; ``OSError`` if it could not be started."""
        answer = self._receive()
        if "pid" not in answer:
            raise OSError(answer.get("failed") or "the sandbox's process is gone")
        pid: int = answer["pid"]
        return pid

    def ended(self) -> Tuple[int, bool]:
        """Wait for the end; give the exit code as ``Popen`` does, and whether all is gone.

        Raises
        ------
        OSError
            The keeper is gone; whether the command has ended is not known.
        """
        answer = self._receive()
        if "code" not in answer:
            raise OSError("the command's parent is gone")
        return answer["code"], answer["clean"]

    def wake(self) -> None:
        """Let it go on if its command has stopped it."""
        try:
            os.kill(self.pid, signal.SIGCONT)
        except OSError:
            pass

    def close(self) -> None:
        """End the keeper, now or when its command has ended. Twice is once."""
        self._socket.close()

    def _receive(self) -> Dict[str, Any]:
        try:
            data = self._socket.recv(MAX_PACKET)
        except OSError:
            return {}
        answer: Dict[str, Any] = marshal.loads(data) if data else {}
        return answer
