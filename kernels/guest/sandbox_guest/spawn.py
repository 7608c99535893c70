"""Start processes through PID 1 and learn of their end; the server's side of ``init``.

The server has threads and must not fork; ``init`` has one and forks. One thread reads what ``init``
says; each ``Child`` has an event and, for loops that wait on descriptors, a pipe that becomes
readable at its end.
"""

from __future__ import annotations

import marshal
import os
import queue
import socket
import threading
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from .init import MAX_PACKET

_KEEPER = marshal.dumps({"keeper": True})


class Child:
    """A process that ``init`` started for us.

    Attributes
    ----------
    pid : int
    exit_code : int or None
        As ``Popen.returncode``: negative for a signal; None while it runs.
    """

    def __init__(self, pid: int, tag: Mapping[str, Any]) -> None:
        self.pid = pid
        self.tag = dict(tag)
        self.exit_code: Optional[int] = None
        self._ended = threading.Event()
        self._wake_read, self._wake_write = os.pipe()

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return not self._ended.is_set()

    def fileno(self) -> int:
        """Give a descriptor that becomes readable when the process has ended."""
        return self._wake_read

    def wait(self, seconds: Optional[float] = None) -> Optional[int]:
        """Wait for the end; give the exit code, or None when the time is over."""
        self._ended.wait(seconds)
        return self.exit_code

    def forget(self) -> None:
        """Close the pipe, when nobody waits on it any more. Twice is once."""
        if self._wake_read >= 0:
            os.close(self._wake_read)
            self._wake_read = -1

    def _end(self, code: int) -> None:
        self.exit_code = code
        os.close(self._wake_write)
        self._ended.set()


class Spawner:
    """The connection to ``init``."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._lock = threading.Lock()  # one request at a time; guards nothing else
        self._answers: "queue.Queue[Dict[str, Any]]" = queue.Queue()
        self._children: Dict[int, Child] = {}
        self._early: Dict[int, int] = {}  # ended before `spawn` had registered them
        self._table_lock = threading.Lock()
        first = marshal.loads(sock.recv(MAX_PACKET))
        self.kept: List[Child] = []
        for entry in first.get("kept", []):
            child = Child(entry["pid"], entry["tag"])
            self._children[child.pid] = child
            self.kept.append(child)
        threading.Thread(target=self._read, name="init", daemon=True).start()

    def spawn(
        self,
        argv: Sequence[str],
        env: Mapping[str, str],
        cwd: str,
        fds: Mapping[int, int],
        tag: Optional[Mapping[str, Any]] = None,
        stamp: int = 0,
    ) -> Child:
        """Start a program in a session of its own.

        Parameters
        ----------
        fds : mapping
            Descriptor in the new process → ours; 0, 1 and 2 must be among them.
        tag : mapping
            Kept by ``init``; ``{"keep": True, …}`` lets the process survive this server.
        stamp : int
            Of ``orphans``; 0 for none.

        Raises
        ------
        OSError
            It could not be started.
        """
        tag = tag or {}
        request = {
            "argv": list(argv),
            "env": dict(env),
            "cwd": cwd,
            "fds": list(fds),
            "tag": dict(tag),
            "stamp": stamp,
        }
        data = marshal.dumps(request)
        if len(data) > MAX_PACKET:
            raise OSError("arguments and environment are too large")
        with self._lock:
            socket.send_fds(self._socket, [data], list(fds.values()))
            answer = self._answers.get()
        if "failed" in answer:
            raise OSError(answer["failed"])
        child = Child(answer["spawned"], tag)
        with self._table_lock:
            code = self._early.pop(child.pid, None)
            if code is None:
                self._children[child.pid] = child
        if code is not None:
            child._end(code)
        return child

    def fork_keeper(self) -> Tuple[socket.socket, int]:
        """Have a new ``keeper`` made; give our end of its socket, and its process id.

        It ends when the socket is closed.

        Raises
        ------
        OSError
            There are too many processes.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with self._lock:
                socket.send_fds(self._socket, [_KEEPER], [theirs.fileno()])
                answer = self._answers.get()
            if "failed" in answer:
                raise OSError(answer["failed"])
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        return ours, answer["spawned"]

    def _read(self) -> None:
        while True:
            data = self._socket.recv(MAX_PACKET)
            if not data:
                os._exit(1)  # init is gone; nothing to serve for
            packet = marshal.loads(data)
            if "exited" not in packet:
                self._answers.put(packet)
                continue
            with self._table_lock:
                child = self._children.pop(packet["exited"], None)
                if child is None:
                    self._early[packet["exited"]] = packet["code"]
            if child is not None:
                child._end(packet["code"])
