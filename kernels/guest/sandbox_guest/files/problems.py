"""What can go wrong with a file, as the codes of docs/guest-protocol.md.

The rule: a code is stable and for programs, a message is one sentence that a model can read, with
the path as it was asked for and no traceback.
"""

from __future__ import annotations

import errno
from typing import Any, Dict

_CODES = {
    errno.ENOENT: ("not_found", "%s does not exist"),
    errno.ENOTDIR: ("not_a_directory", "a part of %s is not a directory"),
    errno.EISDIR: ("is_a_directory", "%s is a directory"),
    errno.EEXIST: ("exists", "%s exists already"),
    errno.EACCES: ("permission", "no permission for %s"),
    errno.EPERM: ("permission", "no permission for %s"),
    errno.EROFS: ("read_only", "%s is on a read-only file system"),
    errno.ENOSPC: ("no_space", "no space is left on the disk for %s"),
    errno.EDQUOT: ("no_space", "the disk quota is used up, no space for %s"),
    errno.EFBIG: ("too_large", "%s would be larger than a file may be"),
    errno.ELOOP: ("link_loop", "the links of %s lead in a circle"),
    errno.ENAMETOOLONG: ("name_too_long", "a name in %s is longer than 255 bytes"),
    errno.ENOTEMPTY: ("not_empty", "the directory %s is not empty"),
    errno.EXDEV: ("cross_device", "%s cannot be renamed to another file system; copy it"),
    errno.ENXIO: ("not_a_file", "%s is not a regular file"),
    errno.ENODEV: ("not_a_file", "%s is not a regular file"),
}


class FileError(Exception):
    """A refusal: becomes ``{"error": {"code", "message", …facts}}``.

    Parameters
    ----------
    code : str
        Of docs/guest-protocol.md.
    message : str
        A sentence without a full stop.
    **facts
        JSON-serialisable, for the caller's own text.
    """

    def __init__(self, code: str, message: str, **facts: Any) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.facts = facts

    def to_json(self) -> Dict[str, Any]:
        """Give the ``error`` member of an answer."""
        return dict(self.facts, code=self.code, message=self.message)


def bad_request(message: str) -> FileError:
    """Give the error for arguments of a wrong type or out of bounds."""
    return FileError("bad_request", message)


def from_os_error(exc: OSError, shown: str) -> FileError:
    """Translate an error of the operating system; ``shown`` is the path that was asked for."""
    code, message = _CODES.get(exc.errno or 0, ("failed", ""))
    if not message:
        return FileError(code, "%s: %s" % (shown, exc.strerror or type(exc).__name__))
    return FileError(code, message % shown)
