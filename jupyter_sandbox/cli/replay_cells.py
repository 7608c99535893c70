"""Which calls a notebook of a conversation has, and how two such notebooks differ. Pure.

The rule: what is printed of a difference came out of a sandbox, so it is printable characters only.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

_CARD_TYPE = "application/vnd.jupyter-sandbox.file+json"
_BASH = "%%bash\n"
_MOST_LINES = 20
_LINE_CHARACTERS = 200

Cell = Mapping[str, Any]


@dataclass(frozen=True)
class Step:
    """A call to make again.

    Attributes
    ----------
    problem : str
        Why it cannot be made again; "" if it can.
    """

    cell: Cell = field(repr=False)
    tool: str
    arguments: Mapping[str, Any] = field(repr=False)
    problem: str = ""


def steps_of(notebook: Mapping[str, Any]) -> list[Step]:
    """Give the calls of a notebook in their order; of edited cells what they say now."""
    return [_step(cell) for cell in notebook["cells"] if _facts(cell).get("tool")]


def uploads_of(notebook: Mapping[str, Any]) -> list[str]:
    """Give the names of the files that the user gave to the conversation."""
    names: dict[str, None] = {}
    for cell in notebook["cells"]:
        upload = _facts(cell).get("upload")
        if isinstance(upload, Mapping) and isinstance(upload.get("name"), str):
            names[upload["name"]] = None
    return list(names)


def differences(old: Cell, new: Cell) -> list[str]:
    """Give lines that say how a call ended otherwise than before; none if it did not."""
    lines: list[str] = []
    for name in ("code", "exit_code"):
        before, now = _facts(old).get(name), _facts(new).get(name)
        if before != now:
            lines.append(shown(f"{name}: {now}, was {before}"))
    before_texts, now_texts = _texts(old), _texts(new)
    if before_texts != now_texts:
        compared = difflib.unified_diff(before_texts, now_texts, "was", "is", n=1, lineterm="")
        found = [shown(line) for line in compared]
        lines += found[:_MOST_LINES]
        if len(found) > _MOST_LINES:
            lines.append(f"… and {len(found) - _MOST_LINES} lines more")
    for what, found_in in (("files", _cards), ("images", _images)):
        before_list, now_list = found_in(old), found_in(new)
        if before_list != now_list:
            lines.append(shown(f"{what}: {now_list}, were {before_list}"))
    return lines


def shown(text: str) -> str:
    """Give a line for a terminal: printable, of bounded length."""
    line = "".join(c if c.isprintable() else "\ufffd" for c in text[:_LINE_CHARACTERS])
    return line + ("…" if len(text) > _LINE_CHARACTERS else "")


def _step(cell: Cell) -> Step:
    facts = _facts(cell)
    tool, source = str(facts["tool"]), str(cell.get("source", ""))
    given = facts.get("arguments")
    arguments = dict(given) if isinstance(given, Mapping) else {}
    problem = ""
    if facts.get("clipped"):
        problem = "its arguments are too long for the notebook"
    elif not source and not arguments:
        problem = "what was run is not in the notebook"
    elif tool == "python":
        arguments["code"] = source
    elif tool == "bash" and source.startswith(_BASH):
        arguments["command"] = source.removeprefix(_BASH)
    return Step(cell, tool, arguments, problem)


def _facts(cell: Cell) -> Mapping[str, Any]:
    facts = cell.get("metadata", {}).get("jupyter_sandbox", {})
    return facts if isinstance(facts, Mapping) else {}


def _texts(cell: Cell) -> list[str]:
    texts = [
        str(output.get("text", ""))
        for output in cell.get("outputs", ())
        if output.get("output_type") == "stream"
    ]
    return "".join(texts).splitlines()


def _data(cell: Cell) -> Iterator[Mapping[str, Any]]:
    for output in cell.get("outputs", ()):
        if output.get("output_type") == "display_data":
            yield output.get("data", {})


def _cards(cell: Cell) -> list[str]:
    cards = [data[_CARD_TYPE] for data in _data(cell) if _CARD_TYPE in data]
    return [f"{card.get('name')} {card.get('sha256') or card.get('code')}" for card in cards]


def _images(cell: Cell) -> list[str]:
    texts = [str(data.get("text/plain")) for data in _data(cell) if _CARD_TYPE not in data]
    return [text.split(",")[0].strip("[]") for text in texts]
