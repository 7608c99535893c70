"""What a tool is: a name, a text for the model, a class of arguments and a coroutine."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from ..models import JsonValue, Limits, ToolResult
from .arguments import parse, schema_of
from .context import ToolContext

A = TypeVar("A")


@dataclass(frozen=True)
class Prepared:
    """A call whose tool exists and whose arguments are valid; ``start`` runs it."""

    name: str
    start: Callable[[ToolContext], Awaitable[ToolResult]] = field(repr=False)


@dataclass(frozen=True)
class Tool(Generic[A]):
    """One tool.

    Attributes
    ----------
    title : str
        For people.
    description : str
        For the model; ``{name}`` stands for a member of ``Limits``.
    read_only : bool
        Changes nothing in the sandbox and nothing outside.
    """

    name: str
    title: str
    description: str
    arguments: type[A]
    run: Callable[[ToolContext, A], Awaitable[ToolResult]] = field(repr=False)
    read_only: bool = False

    def schema(self, limits: Limits) -> dict[str, JsonValue]:
        """Give the JSON Schema of the arguments."""
        return schema_of(self.arguments, limits)

    def describe(self, limits: Limits) -> str:
        """Give the text for the model, with the limits of this server."""
        return self.description.format_map(vars(limits))

    def prepare(self, body: object, limits: Limits) -> Prepared:
        """Check a call's arguments; ``ToolError`` (``invalid_arguments``) says what is wrong."""
        arguments = parse(self.arguments, body, limits)
        return Prepared(self.name, lambda context: self.run(context, arguments))
