"""What a later look at a call says of a result, or pictures, that are no longer kept. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from ..encoded_json import EncodedJson
from ..errors import ToolError
from ..models import CallRecord, JsonValue
from .run import error_result

_WHY = (
    "results and messages of a conversation, and of all conversations of a user, are kept up to a "
    "limit; of more the oldest go, pictures first"
)


def kept_result(stored: CallRecord) -> Mapping[str, JsonValue]:
    """Return the result of a call that is over, as far as it is kept."""
    if stored.result is None:
        text = (
            f"The result of this call is no longer kept: {_WHY}. The call itself ended "
            f"({stored.state}); what it did in the sandbox stays."
        )
        return error_result(ToolError(text, code="not_kept")).to_json()
    if isinstance(stored.result, EncodedJson):  # it is whole
        return stored.result
    content = stored.result.get("content")
    parts = content if isinstance(content, list) else []
    return {**stored.result, "content": [_kept_part(part) for part in parts]}


def _kept_part(part: JsonValue) -> JsonValue:
    if not isinstance(part, dict) or part.get("type") != "image" or "data" in part:
        return part
    text = f"[{part.get('media_type')}, {part.get('size_bytes'):,} bytes: no longer kept: {_WHY}]"
    return {"type": "text", "text": text}
