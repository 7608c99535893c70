"""The JSON of flags and grants, as text: read strictly, refused with the line and the reason.

::

    {"flags": {"chat_sandbox": {"value": true}},
     "grants": [{"src": {"users": ["alice"], "groups": ["staff"]}, "enable_chat_ui": true}]}

Pure. The rule: text that is not exactly right changes nothing; nothing in it is ignored.
"""

from __future__ import annotations

import json
from typing import Any, cast

import yaml
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError, best_match

from ..models import JsonValue
from .access import AccessPolicy, Grant

POLICY_NAME = "policy.json"
"""What the file is called, in the data directory."""
MOST_BYTES = 1024 * 1024

_NAMES: dict[str, Any] = {
    "type": "array",
    "items": {"type": "string", "minLength": 1, "maxLength": 255},
    "maxItems": 10_000,
}
SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "flags": {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "chat_sandbox": {
                    "type": "object",
                    "additionalProperties": False,
                    "required": ["value"],
                    "properties": {"value": {"type": "boolean"}},
                }
            },
        },
        "grants": {
            "type": "array",
            "maxItems": 10_000,
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["src", "enable_chat_ui"],
                "properties": {
                    "src": {
                        "type": "object",
                        "additionalProperties": False,
                        "minProperties": 1,
                        "properties": {"users": _NAMES, "groups": _NAMES},
                    },
                    "enable_chat_ui": {"type": "boolean"},
                },
            },
        },
    },
}

_VALIDATOR = Draft202012Validator(SCHEMA)


class PolicyTextError(ValueError):
    """What is wrong with a text, and on which line (from 1; 0: there is no text to read)."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(f"line {line}: {reason}" if line else reason)
        self.line = line
        self.reason = reason

    @property
    def is_of_text(self) -> bool:
        """Whether it lasts until the text changes."""
        return self.line > 0

    def to_json(self) -> dict[str, JsonValue]:
        """Give both for an answer."""
        return {"line": self.line, "reason": self.reason}


def parse_policy(text: str) -> AccessPolicy:
    """Read a policy. Raises ``PolicyTextError``; the empty text is the default policy."""
    if not text.strip():
        return AccessPolicy()
    if len(text.encode("utf-8", "replace")) > MOST_BYTES:
        raise PolicyTextError(1, f"larger than {MOST_BYTES:,} bytes")
    try:
        document = json.loads(text, object_pairs_hook=_unique)
    except json.JSONDecodeError as exc:
        raise PolicyTextError(exc.lineno, f"not JSON: {exc.msg}") from exc
    except _DuplicateKey as exc:
        line = text[: text.rfind(f'"{exc.key}"')].count("\n") + 1
        raise PolicyTextError(line, f"{exc.key!r} stands there twice") from exc
    except RecursionError as exc:
        raise PolicyTextError(1, "nested too deeply") from exc
    error = best_match(_VALIDATOR.iter_errors(document))
    if error is not None:
        where = ".".join(str(step) for step in error.absolute_path) or "the document"
        line = _line(text, list(error.absolute_path))
        raise PolicyTextError(line, f"{where}: {_reason(error)}") from error
    flag = document.get("flags", {}).get("chat_sandbox", {}).get("value", True)
    grants = tuple(
        Grant(
            users=frozenset(grant["src"].get("users", ())),
            groups=frozenset(grant["src"].get("groups", ())),
            enable_chat_ui=grant["enable_chat_ui"],
        )
        for grant in document.get("grants", ())
    )
    return AccessPolicy(flag, grants)


def with_flag(text: str, value: bool) -> str:
    """Give the text with the feature switched on or off; the rest keeps its order.

    Raises ``PolicyTextError`` when the text is not right as it is.
    """
    parse_policy(text)
    document: dict[str, Any] = json.loads(text) if text.strip() else {}
    document.setdefault("flags", {}).setdefault("chat_sandbox", {})["value"] = value
    return to_text(document)


def to_text(document: JsonValue) -> str:
    """Give the text that is written for a document."""
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


class _DuplicateKey(ValueError):
    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise _DuplicateKey(key)
        found[key] = value
    return found


def _reason(error: ValidationError) -> str:
    if error.validator == "additionalProperties":
        known = ", ".join(cast(dict[str, Any], error.schema)["properties"])
        return f"{error.message.split(' (', 1)[-1].rstrip(')')}; known: {known}"
    return str(error.message)[:300]


def _line(text: str, path: list[str | int]) -> int:
    """Give the line on which the value at a path begins. JSON is YAML, whose parser keeps lines."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, RecursionError):
        return 1  # tabs between tokens: allowed in JSON, not in YAML
    for step in path:
        if isinstance(node, yaml.MappingNode):
            node = next(value for key, value in node.value if key.value == step)
        elif isinstance(node, yaml.SequenceNode):
            node = node.value[cast(int, step)]
    return int(node.start_mark.line) + 1 if node is not None else 1
