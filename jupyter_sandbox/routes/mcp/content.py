"""The result of a call in the words of the Model Context Protocol.

Shared files become links to their download (``resource_link``), images stay images. What has no
place in the protocol (call id, exit code, duration) is in ``_meta``: a client that shows the model
``structuredContent`` *instead* of the text would hide the output.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ...encoded_json import pieces
from ...models import JsonValue

META_CALL = "jupyter_sandbox/call"
MOST_EVENT_BYTES = 1_000_000
"""What clients take as one event of a stream (the official SDK: 1 MiB); answers may be larger."""

_FACTS = ("call_id", "code", "exit_code", "truncated", "duration_seconds")


def call_result(
    call: Mapping[str, Any], download_url: Callable[[str], str]
) -> dict[str, JsonValue]:
    """Give a ``CallToolResult``.

    Parameters
    ----------
    call : mapping
        The JSON of a call that is over (SPEC.md 10).
    download_url : callable
        Gives the absolute URL for a path below the outputs.
    """
    content: list[JsonValue] = []
    for part in call["content"]:
        content.extend(_blocks(part, download_url))
    return {
        "content": content,
        "isError": bool(call["is_error"]),
        "_meta": {META_CALL: {name: call[name] for name in _FACTS if name in call}},
    }


def error_result(message: str, code: str) -> dict[str, JsonValue]:
    """Give the result of a call that was not made; the model reads why."""
    return {
        "content": [{"type": "text", "text": message}],
        "isError": True,
        "_meta": {META_CALL: {"code": code}},
    }


def _blocks(part: Mapping[str, Any], download_url: Callable[[str], str]) -> list[JsonValue]:
    match part["type"]:
        case "text":
            return [{"type": "text", "text": part["text"]}]
        case "image":
            return [{"type": "image", "data": part["data"], "mimeType": part["media_type"]}]
    if "error" in part:
        return [{"type": "text", "text": f"{part['path']}: {part['error']}"}]
    url = download_url(part["path"])
    return [
        {
            "type": "text",
            "text": f"shared {part['path']} ({part['size_bytes']:,} bytes, "
            f"{part['media_type']}, version {part['version']}): {url}",
        },
        {
            "type": "resource_link",
            "uri": url,
            "name": part["name"],
            "mimeType": part["media_type"],
            "size": part["size_bytes"],
        },
    ]


def fit_event(result: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """Give the result small enough for an event: what is too long is shortened, and says so.

    Images go first, then the middle of texts: the whole output of a command lies in a file in the
    sandbox, which the text itself names at its end.
    """
    if _size(result) <= MOST_EVENT_BYTES:
        return result
    content = result["content"]
    assert isinstance(content, list)
    fitted = {**result, "content": [_without_data(block) for block in content]}
    room = MOST_EVENT_BYTES
    while _size(fitted) > MOST_EVENT_BYTES:
        room //= 2
        fitted["content"] = [_shortened(_without_data(block), room) for block in content]
    return fitted


def _size(result: JsonValue) -> int:
    return sum(map(len, pieces(result)))


def _without_data(block: Any) -> JsonValue:
    if block["type"] != "image":
        return dict(block)
    size = len(block["data"]) * 3 // 4
    text = f"[an image of {size:,} bytes is left out: it is too large for this stream]"
    return {"type": "text", "text": text}


def _shortened(block: Any, characters: int) -> JsonValue:
    text = block.get("text", "")
    if len(text) <= characters:
        return dict(block)
    half = characters // 2
    left_out = len(text) - 2 * half
    note = f"\n... {left_out:,} characters left out here, to fit into the stream ...\n"
    return {**block, "text": text[:half] + note + text[len(text) - half :]}
