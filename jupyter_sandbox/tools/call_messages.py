"""What the message stream tells of a call: what was run, what came out, what was shared.

The rule: every message is bounded, and has no bytes of images; who wants all of a result fetches
the call.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..models import JsonValue
from ..policy.clipping import Clipping, clip_text

_ARGUMENT_CHARACTERS = 64 * 1024
_RESULT_CHARACTERS = 32 * 1024
_DESCRIPTION_CHARACTERS = 1000


def call_message(call_id: str, tool: str, arguments: Mapping[str, Any]) -> dict[str, JsonValue]:
    """Give the message of a call that begins; ``clipped`` if something was left out."""
    clipping = Clipping(_ARGUMENT_CHARACTERS)
    kept = {name: value for name, value in arguments.items() if name != "description"}
    description = arguments.get("description")
    message: dict[str, JsonValue] = {
        "call_id": call_id,
        "tool": clip_text(tool, 64),
        "description": (
            clip_text(description, _DESCRIPTION_CHARACTERS) if isinstance(description, str) else ""
        ),
        "arguments": clipping.value(kept),
    }
    return {**message, "clipped": True} if clipping.was_needed else message


def result_message(
    call_id: str, tool: str, state: str, result: Mapping[str, JsonValue]
) -> dict[str, JsonValue]:
    """Give the message of a result: its texts, and of its images their type and size."""
    clipping = Clipping(_RESULT_CHARACTERS)
    parts = result.get("content")
    content: list[JsonValue] = []
    for part in parts if isinstance(parts, list) else []:
        if not isinstance(part, dict):
            continue
        if part.get("type") == "text":
            content.append({"type": "text", "text": clipping.text(str(part["text"]))})
        elif part.get("type") == "image":
            size = len(str(part.get("data", ""))) * 3 // 4
            content.append(
                {"type": "image", "media_type": part.get("media_type"), "size_bytes": size}
            )
    members = {name: value for name, value in result.items() if name != "content"}
    message: dict[str, JsonValue] = {
        "call_id": call_id,
        "tool": clip_text(tool, 64),
        "state": state,
        **members,
        "content": content,
    }
    return {**message, "clipped": True} if clipping.was_needed else message


def file_messages(call_id: str, result: Mapping[str, JsonValue]) -> list[dict[str, JsonValue]]:
    """Give the cards of a result, each a message."""
    parts = result.get("content")
    return [
        {"call_id": call_id, **{key: value for key, value in part.items() if key != "type"}}
        for part in (parts if isinstance(parts, list) else [])
        if isinstance(part, dict) and part.get("type") == "file"
    ]
