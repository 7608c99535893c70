"""Refusals of the file service as texts for a model: what did not happen, why, what to do next.

The wording stays close to that of the editor tools that models were trained with
(reference/tools-and-complaints.md 2.1).
"""

from __future__ import annotations

import posixpath

from ..errors import ToolError
from ..models import Areas
from ..sandbox.link import GuestError

_KINDS = {"fifo": "a FIFO", "socket": "a socket", "device": "a device", "link": "a link"}


def require_absolute(path: str, area: str, undone: str = "") -> str:
    """Give the path if it is absolute, without a slash at its end.

    Parameters
    ----------
    area : str
        Directory that a relative path was probably meant in.
    undone : str
        What did not happen, e.g. ``"Nothing was written."``.
    """
    if path.startswith("/"):
        return path.rstrip("/") or "/"
    meant = posixpath.normpath(posixpath.join(area, path)) if path else area
    raise ToolError(
        f"The path {path} is not an absolute path, it should start with `/`. "
        f"Maybe you meant {meant}?" + _behind(undone),
        code="not_absolute",
    )


def file_problem(error: GuestError, path: str, areas: Areas, undone: str = "") -> ToolError:
    """Give the error a model reads for a refusal of the file service."""
    return ToolError(
        _reason(error, path, areas) + _behind(undone), code=error.code, detail=error.message
    )


def _reason(error: GuestError, path: str, areas: Areas) -> str:
    code = error.code
    if code == "not_found":
        return f"The path {path} does not exist. Please provide a valid path."
    if code == "is_a_directory":
        return (
            f"The path {path} is a directory and only the `view` command can be used on "
            "directories."
        )
    if code == "not_a_directory":
        return f"A part of the path {path} is a file, not a directory. Please provide a valid path."
    if code == "not_a_file":
        kind = _KINDS.get(str(error.facts.get("kind")), "something else")
        return f"The path {path} is not a regular file but {kind}; file tools do not open it."
    if code == "read_only" or (code == "permission" and _is_in(path, areas.uploads)):
        if _is_in(path, areas.uploads):
            return (
                f"The path {path} is in the uploads area, which is read-only. Copy the file to "
                f"{areas.workspace} and work there."
            )
        return f"The path {path} is on a read-only file system. Work in {areas.workspace}."
    if code == "permission":
        return f"There is no permission for the path {path}."
    if code == "no_space":
        return (
            f"No space is left on the disk for {path}. Remove large files that are not needed "
            f"(`du -ah {areas.workspace} | sort -h | tail`) and try again."
        )
    if code == "link_loop":
        return f"The links of the path {path} lead in a circle."
    if code == "name_too_long":
        return f"The path {path[:200]}… has a name that is too long (255 bytes each)."
    if code == "changed":
        return f"The file {path} was changed by something else at the same time. Try again."
    # The guest's own sentence: it comes from inside the sandbox and knows nothing of the host.
    message = error.message.strip().rstrip(".") or "the file service refused"
    return f"{path}: {message}."


def _is_in(path: str, area: str) -> bool:
    return posixpath.normpath(path).startswith(area + "/") or posixpath.normpath(path) == area


def _behind(undone: str) -> str:
    return f" {undone}" if undone else ""
