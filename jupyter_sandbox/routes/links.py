"""Where files are, as URLs below the server's base: for cards, models and pages."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote

from jupyter_server.utils import url_path_join

from ..encoded_json import EncodedJson
from ..models import Areas, JsonValue


def share_url(base_url: str, conversation_id: str, path: str, version: int = 0) -> str:
    """Give where a shared file is downloaded; version 0 is the newest."""
    return _versioned(
        url_path_join(base_url, "sandbox/files", conversation_id, _path(path)), version
    )


def upload_url(base_url: str, conversation_id: str, name: str) -> str:
    """Give where an upload is downloaded."""
    return url_path_join(
        base_url, "sandbox/api/conversations", conversation_id, "uploads", _path(name)
    )


def share_preview_url(base_url: str, conversation_id: str, path: str, version: int = 0) -> str:
    """Give the page that shows a shared file."""
    return _versioned(
        url_path_join(base_url, "sandbox/preview", conversation_id, "shares", _path(path)), version
    )


def upload_preview_url(base_url: str, conversation_id: str, name: str) -> str:
    """Give the page that shows an upload."""
    return url_path_join(base_url, "sandbox/preview", conversation_id, "uploads", _path(name))


def preview_link(kind: str, url: str) -> JsonValue:
    """Give the member ``preview_url`` of a file of this kind: null for one that has no preview."""
    return None if kind == "download" else url


def with_links(
    base_url: str, conversation_id: str, call: Mapping[str, JsonValue]
) -> Mapping[str, JsonValue]:
    """Give a call's model with ``url`` and ``preview_url`` in its file cards."""
    if isinstance(call, EncodedJson):
        return call  # it has none
    content = call.get("content")
    if not isinstance(content, list):
        return call
    return {**call, "content": [_with_links(base_url, conversation_id, part) for part in content]}


def card_links(
    base_url: str, conversation_id: str, card: Mapping[str, JsonValue]
) -> dict[str, JsonValue]:
    """Give ``url`` and ``preview_url`` of a shared file's card; nothing for one not shared."""
    path, version = card.get("path"), card.get("version")
    outputs = Areas().outputs + "/"
    if "error" in card or not isinstance(path, str) or not path.startswith(outputs):
        return {}
    if not isinstance(version, int):
        return {}
    place = (base_url, conversation_id, path.removeprefix(outputs), version)
    shown = share_preview_url(*place)
    return {
        "url": share_url(*place),
        "preview_url": preview_link(str(card.get("preview")), shown),
    }


def _with_links(base_url: str, conversation_id: str, part: JsonValue) -> JsonValue:
    if not isinstance(part, dict) or part.get("type") != "file":
        return part
    return {**part, **card_links(base_url, conversation_id, part)}


def _path(path: str) -> str:
    return quote(path, safe="/")


def _versioned(url: str, version: int) -> str:
    return f"{url}?version={version}" if version else url
