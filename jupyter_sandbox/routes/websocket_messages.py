"""Jupyter messages as websockets carry them, in both subprotocols. No sockets.

The encodings are jupyter_server's. The rule: what a client sends is a message of a channel or a
``ValueError``, whatever it is.
"""

from __future__ import annotations

import json
from typing import Any, Literal, cast

from jupyter_client.jsonutil import json_default
from jupyter_server.services.kernels.connection.base import (
    deserialize_binary_message,
    deserialize_msg_from_ws_v1,
    serialize_binary_message,
    serialize_msg_to_ws_v1,
)

from ..policy.json_bounds import MESSAGE_DEEPEST, MESSAGE_VALUES, check_json

V1 = "v1.kernel.websocket.jupyter.org"
_PARTS = ("header", "parent_header", "metadata", "content")
_MOST_PARTS = 1000


def encode(channel: str, message: dict[str, Any], is_v1: bool) -> bytes | str:
    """Give what to send of a message; bytes are a binary frame."""
    if is_v1:
        parts = [_pack(message[name]) for name in _PARTS] + message["buffers"]
        return cast(bytes, serialize_msg_to_ws_v1(parts, channel))  # type: ignore[no-untyped-call]
    header = message["header"]
    shape = {
        **message,
        "channel": channel,
        "msg_id": header.get("msg_id"),
        "msg_type": header.get("msg_type"),
    }
    if message["buffers"]:
        return cast(bytes, serialize_binary_message(shape))  # type: ignore[no-untyped-call]
    return json.dumps(shape, default=json_default)


def decode(data: bytes | str, is_v1: bool) -> tuple[str, dict[str, Any], list[bytes]]:
    """Give a client's message: channel, header, and all parts as they go on to the kernel.

    Raises
    ------
    ValueError
        It is none.
    """
    try:
        if is_v1:
            if isinstance(data, str):
                raise ValueError("a text frame")
            if len(_offsets(data, 8, "little")) < 6:
                raise ValueError("no parts")
            channel, parts = deserialize_msg_from_ws_v1(data)  # type: ignore[no-untyped-call]
            for part in parts[1:4]:
                _object(_loads(part))
            return channel, _object(_loads(parts[0])), parts
        if isinstance(data, bytes):
            first, *rest = _offsets(data, 4, "big")
            _loads(data[first : rest[0] if rest else None])
            message = _object(deserialize_binary_message(data))  # type: ignore[no-untyped-call]
        else:
            message = _object(_loads(data.encode("utf-8", "surrogatepass")))
        channel = message.get("channel", "shell")
        if not isinstance(channel, str):
            raise ValueError("no channel")
        packed = [_pack(_object(message.get(name, {}))) for name in _PARTS]
        buffers = message.get("buffers") if isinstance(data, bytes) else []
        return channel, message["header"], packed + [bytes(part) for part in buffers or []]
    except ValueError:
        raise
    except Exception as exc:  # of libraries that trust their clients
        raise ValueError(type(exc).__name__) from exc


def _offsets(data: bytes, width: int, order: Literal["big", "little"]) -> list[int]:
    """Give where the parts of a message begin; parts that overlap would be copied without end."""
    count = int.from_bytes(data[:width], order)
    if not 1 <= count <= _MOST_PARTS:
        raise ValueError("no parts")
    table = data[width : width * (count + 1)]
    offsets = [int.from_bytes(table[at : at + width], order) for at in range(0, len(table), width)]
    if len(offsets) < count or offsets != sorted(offsets):
        raise ValueError("parts overlap")
    return offsets


def _loads(part: bytes) -> Any:
    check_json(part, MESSAGE_VALUES, MESSAGE_DEEPEST)
    return json.loads(part)


def _pack(part: Any) -> bytes:
    return json.dumps(part, default=json_default).encode("ascii")


def _object(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("not an object")
    return value
