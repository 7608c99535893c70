"""Read a Jupyter message that a kernel sent: bounded, signed, of the right shape. No sockets.

A kernel holds its own key, so the signature says nothing of who wrote a message: size, structure
and types are checked, and nothing a kernel can send raises anything but `MessageError`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

from jupyter_client.session import Session

from ..policy.json_bounds import MESSAGE_DEEPEST, MESSAGE_VALUES, check_json

MAX_BYTES = 16 * 1024 * 1024
_MAX_NAME = 200
_JSON_PARTS = 5  # signature, header, parent, metadata, content; behind them raw buffers


class MessageError(ValueError):
    """No message that a kernel may send."""


@dataclass(frozen=True)
class KernelMessage:
    """A message; results use little of it, what goes on to a client is made of the rest too.

    Attributes
    ----------
    parent_id : str
        Id of the request it belongs to, "" for none. A claim, like all else.
    size : int
        Bytes on the wire.
    """

    msg_type: str
    parent_id: str
    parent_type: str
    content: dict[str, Any] = field(repr=False)
    metadata: dict[str, Any] = field(repr=False)
    size: int = 0
    header: dict[str, Any] = field(default_factory=dict, repr=False)
    parent: dict[str, Any] = field(default_factory=dict, repr=False)
    buffers: tuple[bytes, ...] = field(default=(), repr=False)


def read_message(session: Session, frames: list[bytes]) -> KernelMessage:
    """Give the message of these frames.

    Raises
    ------
    MessageError
        Whatever is wrong with it.
    """
    size = sum(len(frame) for frame in frames)
    if size > MAX_BYTES:
        raise MessageError(f"{size} bytes")
    try:
        _, parts = session.feed_identities(frames)
        for part in parts[:_JSON_PARTS]:
            check_json(cast(bytes, part), MESSAGE_VALUES, MESSAGE_DEEPEST)
        message = session.deserialize(parts)
        header, parent = message["header"], message["parent_header"]
        content, metadata = message["content"], message["metadata"]
    except Exception as exc:  # bad JSON, bad signature, deep nesting, anything: all the same here
        raise MessageError(type(exc).__name__) from exc
    for part in (header, parent, content, metadata):
        if not isinstance(part, dict):
            raise MessageError("not an object")
    return KernelMessage(
        msg_type=_name(header.get("msg_type")),
        parent_id=_name(parent.get("msg_id", "")),
        parent_type=_name(parent.get("msg_type", "")),
        content=content,
        metadata=metadata,
        size=size,
        header=header,
        parent=parent,
        buffers=tuple(cast(bytes, part) for part in parts[_JSON_PARTS:]),
    )


def _name(value: object) -> str:
    if not isinstance(value, str) or len(value) > _MAX_NAME:
        raise MessageError("a name is missing, no text or too long")
    return value
