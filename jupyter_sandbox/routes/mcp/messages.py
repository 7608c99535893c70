"""One body of the Model Context Protocol, read and checked: a request, a notification, or why not.

Knows the wire of both eras and nothing of tools or conversations. *Handshake* (up to 2025-11-25): a
client begins with ``initialize`` and may carry a session id. *Stateless* (2026-07-28): every
request says in ``params._meta`` and again in headers what it is. The rule: first failure wins, in
the order of the specification, with the code and HTTP status it names.

Source: https://modelcontextprotocol.io/specification (basic, transports).
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...models import JsonValue
from ...policy.json_bounds import MESSAGE_DEEPEST, MESSAGE_VALUES, check_json

HANDSHAKE_VERSIONS = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
STATELESS_VERSIONS = ("2026-07-28",)

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
INTERNAL_ERROR = -32603
HEADER_MISMATCH = -32020
UNSUPPORTED_VERSION = -32022

HTTP_STATUS = {
    PARSE_ERROR: 400,
    INVALID_REQUEST: 400,
    INVALID_PARAMS: 400,
    HEADER_MISMATCH: 400,
    UNSUPPORTED_VERSION: 400,
    METHOD_NOT_FOUND: 404,
}
"""Of the stateless era; in the other one an error of the protocol is an answer like any (200)."""

META_VERSION = "io.modelcontextprotocol/protocolVersion"
META_CLIENT = "io.modelcontextprotocol/clientInfo"
META_CAPABILITIES = "io.modelcontextprotocol/clientCapabilities"
META_SERVER = "io.modelcontextprotocol/serverInfo"

_VERSION_HEADER = "MCP-Protocol-Version"
_METHOD_HEADER = "Mcp-Method"
_NAME_HEADER = "Mcp-Name"
_NAMED_BY = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}
_SENTINEL = re.compile(r"=\?base64\?(?P<payload>.*)\?=")

RequestId = str | int


@dataclass(frozen=True)
class Message:
    """A request, or a notification (``request_id`` is None).

    ``client`` is what the client calls itself ("" if it does not say; stateless era only).
    """

    method: str
    params: Mapping[str, Any]
    request_id: RequestId | None
    stateless: bool
    client: str = ""

    @property
    def progress_token(self) -> RequestId | None:
        """What the client wants progress to be marked with; None: it wants none."""
        meta = self.params.get("_meta")
        token = meta.get("progressToken") if isinstance(meta, dict) else None
        return token if _is_id(token) else None


@dataclass(frozen=True)
class Refusal:
    """Why a body is not served; ``status`` is the HTTP status."""

    code: int
    message: str
    status: int = 400
    request_id: RequestId | None = None
    data: JsonValue = None

    def to_json(self) -> dict[str, JsonValue]:
        """Give the JSON-RPC error."""
        return error_json(self.request_id, self.code, self.message, self.data)


def error_json(
    request_id: RequestId | None, code: int, message: str, data: JsonValue = None
) -> dict[str, JsonValue]:
    """Give a JSON-RPC error; ``id`` is null when there is none to name."""
    error: dict[str, JsonValue] = {"code": code, "message": message}
    if data is not None:
        error["data"] = data
    return {"jsonrpc": "2.0", "id": request_id, "error": error}


def result_json(request_id: RequestId, result: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Give a JSON-RPC result."""
    return {"jsonrpc": "2.0", "id": request_id, "result": dict(result)}


def read_message(body: bytes, headers: Mapping[str, str]) -> Message | Refusal:
    """Read one POST body.

    Parameters
    ----------
    headers : mapping
        Of the request; looked up without regard to case.
    """
    try:
        check_json(body, MESSAGE_VALUES, MESSAGE_DEEPEST)
        decoded = json.loads(body.decode("utf-8"))
    except (ValueError, RecursionError):
        return Refusal(PARSE_ERROR, "Parse error: the body is not JSON in UTF-8, or too large.")
    if not isinstance(decoded, dict):
        return Refusal(INVALID_REQUEST, "The body must be one JSON-RPC object (no batch).")
    method, params = decoded.get("method"), decoded.get("params", {})
    request_id = decoded.get("id")
    named = "id" in decoded
    if (
        decoded.get("jsonrpc") != "2.0"
        or not isinstance(method, str)
        or not isinstance(params, dict)
        or (named and not _is_id(request_id))
    ):
        return Refusal(INVALID_REQUEST, "The body must be a JSON-RPC 2.0 request or notification.")
    version = headers.get(_VERSION_HEADER)
    if not named:
        if version is not None and version not in HANDSHAKE_VERSIONS + STATELESS_VERSIONS:
            return _unsupported(None, version)
        return Message(method, params, None, version in STATELESS_VERSIONS)
    meta = params.get("_meta")
    of_meta = isinstance(meta, dict) and META_VERSION in meta
    assert isinstance(request_id, (str, int))
    if of_meta or version in STATELESS_VERSIONS:
        return _stateless(method, params, request_id, headers)
    if version is not None and version not in HANDSHAKE_VERSIONS:
        return _unsupported(request_id, version)
    return Message(method, params, request_id, stateless=False)


def _stateless(
    method: str, params: dict[str, Any], request_id: RequestId, headers: Mapping[str, str]
) -> Message | Refusal:
    meta = params.get("_meta")
    if not isinstance(meta, dict):
        return Refusal(INVALID_PARAMS, "params._meta must be an object.", request_id=request_id)
    missing = [key for key in (META_VERSION, META_CAPABILITIES) if key not in meta]
    if missing:
        return Refusal(
            INVALID_PARAMS, f"params._meta lacks {', '.join(missing)}.", request_id=request_id
        )
    version = meta[META_VERSION]
    if headers.get(_VERSION_HEADER) != version:
        return _mismatch(request_id, _VERSION_HEADER, META_VERSION)
    if headers.get(_METHOD_HEADER) != method:
        return _mismatch(request_id, _METHOD_HEADER, "method")
    field = _NAMED_BY.get(method)
    if field is not None and params.get(field) is not None:
        name = headers.get(_NAME_HEADER)
        if name is None or decode_header(name) != params[field]:
            return _mismatch(request_id, _NAME_HEADER, f"params.{field}")
    if version not in STATELESS_VERSIONS:
        return _unsupported(request_id, str(version))
    client = meta.get(META_CLIENT)
    name = client.get("name") if isinstance(client, dict) else None
    return Message(
        method, params, request_id, stateless=True, client=name if isinstance(name, str) else ""
    )


def decode_header(value: str) -> str | None:
    """Give what a header value says: itself, or what its base64 form holds; None if broken."""
    match = _SENTINEL.fullmatch(value)
    if match is None:
        return value
    try:
        decoded = base64.b64decode(match["payload"], validate=True)
        if base64.b64encode(decoded).decode("ascii") != match["payload"]:
            return None  # two spellings of one name: only one is right
        return decoded.decode("utf-8")
    except ValueError:  # not ASCII, not base64, not UTF-8
        return None


def _is_id(value: object) -> bool:
    return isinstance(value, (str, int)) and not isinstance(value, bool)


def _mismatch(request_id: RequestId, header: str, field: str) -> Refusal:
    message = f"The header {header} does not match {field} of the body."
    return Refusal(HEADER_MISMATCH, message, request_id=request_id)


def _unsupported(request_id: RequestId | None, version: str) -> Refusal:
    supported: list[JsonValue] = [*HANDSHAKE_VERSIONS, *STATELESS_VERSIONS]
    return Refusal(
        UNSUPPORTED_VERSION,
        "Unsupported protocol version",
        request_id=request_id,
        data={"supported": supported, "requested": version[:100]},
    )
