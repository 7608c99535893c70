"""What a kernel whose sandbox is suspended would say, said for it: looking wakes nothing.

Pure. A client that connects asks what the kernel is before it sends anything else, and waits for
the answer; it gets the one that the kernel gave last, or what is true of every kernel here. Other
requests fail as those of a kernel do that cannot answer them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

_REQUEST = "_request"
_TYPE_LENGTH = 64

GENERIC_INFO: Mapping[str, Any] = {
    "status": "ok",
    "protocol_version": "5.4",
    "implementation": "ipython",
    "implementation_version": "",
    "language_info": {
        "name": "python",
        "version": "3",
        "mimetype": "text/x-python",
        "codemirror_mode": {"name": "ipython", "version": 3},
        "pygments_lexer": "ipython3",
        "nbconvert_exporter": "python",
        "file_extension": ".py",
    },
    "banner": "",
    "help_links": [],
}


def answer_resting(
    channel: str, header: Mapping[str, Any], info: Mapping[str, Any] | None
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Give the messages, with their channels, that answer a request; none for what is no request.

    Parameters
    ----------
    info : mapping or None
        The content of the last ``kernel_info_reply``.
    """
    kind = header.get("msg_type")
    if channel not in ("shell", "control") or not isinstance(kind, str):
        return
    if not kind.endswith(_REQUEST) or len(kind) > _TYPE_LENGTH:
        return
    content: Mapping[str, Any]
    if kind == "kernel_info_request":
        content = GENERIC_INFO if info is None else info
    else:
        content = {
            "status": "error",
            "ename": "Suspended",
            "evalue": "the sandbox is suspended; running a cell wakes it",
            "traceback": [],
        }
    yield "iopub", message_of("status", {"execution_state": "busy"}, header)
    yield channel, message_of(kind.removesuffix(_REQUEST) + "_reply", content, header)
    yield "iopub", message_of("status", {"execution_state": "idle"}, header)


def message_of(
    msg_type: str, content: Mapping[str, Any], parent: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Give a message that no kernel has sent."""
    header = {
        "msg_id": uuid4().hex,
        "msg_type": msg_type,
        "username": "",
        "session": "",
        "date": datetime.now(UTC),
        "version": "5.4",
    }
    return {
        "header": header,
        "parent_header": dict(parent or {}),
        "metadata": {},
        "content": dict(content),
        "buffers": [],
    }
