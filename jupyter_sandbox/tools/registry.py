"""All tools, and their export in the shapes that models and clients want."""

from __future__ import annotations

import difflib
from typing import Any

from ..errors import ToolError
from ..models import JsonValue, Limits
from . import bash, create_file, python, share_files, str_replace, view
from .tool import Prepared, Tool

__all__ = ["FORMATS", "TOOLS", "Prepared", "Tool", "export", "names", "prepare"]

FORMATS = ("anthropic", "openai", "mcp")

TOOLS: tuple[Tool[Any], ...] = (
    bash.TOOL,
    view.TOOL,
    create_file.TOOL,
    str_replace.TOOL,
    share_files.TOOL,
    python.TOOL,
)

_BY_NAME = {tool.name: tool for tool in TOOLS}


def names() -> tuple[str, ...]:
    """Give the names of all tools."""
    return tuple(_BY_NAME)


def prepare(name: str, body: object, limits: Limits) -> Prepared:
    """Give a call that is ready to run; nothing of the sandbox is needed for that.

    Raises
    ------
    ToolError
        ``unknown_tool`` or ``invalid_arguments``.
    """
    tool = _BY_NAME.get(name)
    if tool is None:
        known, name = ", ".join(names()), name[:60]
        near = difflib.get_close_matches(name, _BY_NAME, n=1)
        shown = "".join(c if c.isprintable() else "\ufffd" for c in name)
        hint = f" Did you mean `{near[0]}`?" if near else ""
        raise ToolError(
            f"Nothing was done: there is no tool `{shown}`.{hint} The tools are: {known}.",
            code="unknown_tool",
        )
    return tool.prepare(body, limits)


def export(shape: str, limits: Limits | None = None) -> list[JsonValue]:
    """Give all tools in one of ``FORMATS``; ``ValueError`` for another one."""
    limits = limits or Limits()
    if shape not in FORMATS:
        raise ValueError(f"the formats are {', '.join(FORMATS)}")
    shapes = {"anthropic": _anthropic, "openai": _openai, "mcp": _mcp}
    return [shapes[shape](tool, limits) for tool in TOOLS]


def _anthropic(tool: Tool[Any], limits: Limits) -> dict[str, JsonValue]:
    return {
        "name": tool.name,
        "description": tool.describe(limits),
        "input_schema": tool.schema(limits),
    }


def _openai(tool: Tool[Any], limits: Limits) -> dict[str, JsonValue]:
    return {
        "type": "function",
        "function": {
            "name": tool.name,
            "description": tool.describe(limits),
            "parameters": tool.schema(limits),
        },
    }


def _mcp(tool: Tool[Any], limits: Limits) -> dict[str, JsonValue]:
    # Hints of the Model Context Protocol: what a client may do without asking the user.
    hints: dict[str, JsonValue] = {
        "title": tool.title,
        "readOnlyHint": tool.read_only,
        "destructiveHint": not tool.read_only,
        "openWorldHint": False,
    }
    return {
        "name": tool.name,
        "title": tool.title,
        "description": tool.describe(limits),
        "inputSchema": tool.schema(limits),
        "annotations": hints,
    }
