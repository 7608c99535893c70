"""How large a displayed bundle, an error and a reply may be. Pure: values in, values out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Optional

from sandbox_guest.output import BoundedOutput, notice

from .cell_output import encode, slices

MAX_VALUE_BYTES = 8 * 1024 * 1024
MAX_BUNDLE_BYTES = 16 * 1024 * 1024
MAX_METADATA_BYTES = 64 * 1024
MAX_TRACEBACK_BYTES = 64 * 1024
MAX_EVALUE_BYTES = 4 * 1024

# Of these a part is of use; half an HTML document or half a picture is not.
_CUT_TYPES = {"text/plain", "text/markdown", "text/latex"}


def bound_text(text: str, limit_bytes: int) -> str:
    """Give the text, or its beginning and end with notices when it is longer."""
    if len(text) * 4 <= limit_bytes:
        return text
    bounded = BoundedOutput(limit_bytes)
    parts = [bounded.feed(encode(part)) for part in slices(text)]
    rest = bounded.finish()
    return "".join(parts) + rest if bounded.truncated else text


def bound_bundle(data: Mapping[str, Any], limit_bytes: int) -> dict[str, Any]:
    """Give a MIME bundle within bounds.

    Plain text, Markdown and LaTeX are cut at ``limit_bytes``. A value of another type over
    ``MAX_VALUE_BYTES``, or what goes beyond ``MAX_BUNDLE_BYTES`` in all, is left out, and
    ``text/plain`` says so.
    """
    kept: dict[str, Any] = {}
    left_out: list[str] = []
    total = 0
    for mime, value in data.items():
        if mime in _CUT_TYPES and isinstance(value, str):
            value = bound_text(value, limit_bytes)
        size = _size(value)
        if size > MAX_VALUE_BYTES or total + size > MAX_BUNDLE_BYTES:
            left_out.append(f"[{str(mime)[:80]} not shown: {_describe(size)}]")
            continue
        total += size
        kept[mime] = value
    if left_out:
        plain = kept.get("text/plain")
        said = [plain] if isinstance(plain, str) and plain else []
        said += left_out[:20]
        said.append("Save it to a file instead; the limit is 8 MiB for a value.")
        kept["text/plain"] = "\n".join(said)
    return kept


def bound_metadata(metadata: Optional[Mapping[str, Any]]) -> dict[str, Any]:
    """Give the metadata, or none when they are large."""
    given = dict(metadata or {})
    return given if _size(given) <= MAX_METADATA_BYTES else {}


def bound_traceback(lines: list[str]) -> list[str]:
    """Give the traceback, or its beginning and end."""
    if sum(len(line) for line in lines) * 4 <= MAX_TRACEBACK_BYTES:
        return lines
    return bound_text("\n".join(lines), MAX_TRACEBACK_BYTES).split("\n")


def bound_error(content: dict[str, Any]) -> dict[str, Any]:
    """Give the fields of an ``error`` message or reply within bounds."""
    bounded = dict(content)
    bounded["ename"] = str(content.get("ename", ""))[:200]
    bounded["evalue"] = _cut(str(content.get("evalue", "")), MAX_EVALUE_BYTES)
    bounded["traceback"] = bound_traceback([str(line) for line in content.get("traceback") or []])
    return bounded


def bound_reply(reply: dict[str, Any], limit_bytes: int) -> dict[str, Any]:
    """Give the content of an ``execute_reply`` that a reader accepts, whatever the cell did."""
    bounded = bound_error(reply) if reply.get("status") == "error" else dict(reply)
    payload, left = [], MAX_BUNDLE_BYTES
    for item in bounded.get("payload") or []:
        if isinstance(item, dict) and isinstance(item.get("data"), dict):
            item = dict(item, data=bound_bundle(item["data"], limit_bytes))
        left -= _size(item)
        if left < 0:
            break
        payload.append(item)
    if "payload" in bounded:
        bounded["payload"] = payload
    if _size(bounded.get("user_expressions") or {}) > MAX_VALUE_BYTES:
        bounded["user_expressions"] = {}
    return bounded


def _cut(text: str, limit: int) -> str:
    if len(text) * 4 <= limit:
        return text
    data = encode(text[: limit + 1])
    if len(data) <= limit:
        return text
    return data[:limit].decode("utf-8", "ignore") + " " + notice(limit)


def _size(value: Any) -> int:
    if isinstance(value, (str, bytes, bytearray)):
        return len(value)
    if value is None or isinstance(value, (bool, int, float)):
        return 8
    try:
        return sum(len(part) for part in _chunks(value))
    except (TypeError, ValueError, RecursionError):
        return MAX_BUNDLE_BYTES + 1 if isinstance(value, (dict, list, tuple)) else 0


def _chunks(value: Any) -> tuple[str, ...]:
    return (json.dumps(value, default=repr),)


def _describe(size: int) -> str:
    return "%.1f MiB" % (size / 1024**2) if size < 2**40 else "too large"
