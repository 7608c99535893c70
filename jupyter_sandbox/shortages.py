"""What the server itself has run out of: descriptors, threads, memory, disk.

Any line may meet such an end, so it is told apart at the edges, where a tool's result or an answer
is made. The rule: only what passes by itself is named here; all else stays a mistake of ours.
"""

from __future__ import annotations

import errno

from .errors import DiskFull, Unavailable

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
_WORDS = {
    errno.EMFILE: "the server has too many open files",
    errno.ENFILE: "the host has too many open files",
    errno.ENOSPC: "a disk of the server is full",
    errno.EDQUOT: "a disk of the server is full",
    errno.ENOMEM: "the server has no memory left",
    errno.EAGAIN: "the server may start no more processes or threads",
}


def shortage_of(error: BaseException) -> Unavailable | None:
    """Give what is to be said of an error that is no mistake, but a lack; None of any other."""
    if isinstance(error, OSError) and error.errno in _WORDS:
        words = _WORDS[error.errno]
        if error.errno in _NO_SPACE:
            return DiskFull(words, detail=repr(error))
    elif isinstance(error, MemoryError):
        words = _WORDS[errno.ENOMEM]
    elif isinstance(error, RuntimeError) and "can't start new thread" in str(error):
        words = _WORDS[errno.EAGAIN]
    else:
        return None
    return Unavailable(words, status=503, retry_after_seconds=10, detail=repr(error))
