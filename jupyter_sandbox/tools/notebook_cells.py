"""A conversation's messages as the cells of a notebook. Pure.

Calls are code cells under their own ids, with what can be run again as source and what came out as
outputs; all else is Markdown. The rule: nothing that came from a sandbox or a user is markup, in no
cell and in no output; what a browser shows of a card is static.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

CARD_TYPE = "application/vnd.jupyter-sandbox.file+json"
_CELL_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_SECONDS = re.compile(r" · \d+\.\d s")
_NO_OUTPUT = "(no output)"
_SIMPLE_PATH = re.compile(r"[\w./+-]+", re.ASCII)
_MARKUP = re.compile(r"([\\`*_{}\[\]()<>#+.!|&$~=:-])")

Cell = dict[str, Any]


class Cells:
    """Takes messages one after the other, in their order, and makes cells of them."""

    def __init__(self) -> None:
        self.cells: list[Cell] = []
        self._calls: dict[str, Cell] = {}
        self._count = 0

    def __repr__(self) -> str:
        return f"<Cells {len(self.cells)}>"

    def add(self, message: Mapping[str, Any], images: Iterable[Mapping[str, Any]] = ()) -> None:
        """Take a message as clients get it, and the images of a result that are to be embedded."""
        kind, name = message["type"], f"{message['type']}-{message['seq']}"
        if kind == "call":
            self._add_call(message)
        elif kind == "result":
            self._add_result(message, list(images))
        elif kind == "file":
            self._add_card(message)
        elif kind == "user":
            self._markdown(name, _user_text(message), {"attachments": _names(message)})
        elif kind == "upload":
            shown = f"*Upload {message['action']}:* {plain_markdown(str(message['name']))}"
            kept = {key: message[key] for key in ("action", "name", "size_bytes")}
            self._markdown(name, shown, {"upload": {**kept, "from": message.get("from")}})
        else:
            self._markdown(name, f"> {plain_markdown(str(message.get('text', '')))}")

    def add_gap(self, count: int) -> None:
        """Say that so many messages before the first are not kept any more."""
        self._markdown(
            "gap", f"> {count:,} earlier messages of this conversation are no longer kept."
        )

    def _add_call(self, message: Mapping[str, Any]) -> None:
        call_id = str(message["call_id"])
        if message["description"]:
            self._markdown(f"why-{message['seq']}", plain_markdown(str(message["description"])))
        cell = self._code(call_id, message)
        cell["source"] = _source(message["tool"], _arguments(message))
        cell["metadata"]["jupyter_sandbox"].update(
            arguments=_cleaned(_arguments(message)),
            at=message["at"],
            clipped=bool(message.get("clipped")),
        )

    def _add_result(self, message: Mapping[str, Any], images: list[Mapping[str, Any]]) -> None:
        cell = self._cell_of(message)
        facts = cell["metadata"]["jupyter_sandbox"]
        for key in ("state", "code", "is_error", "exit_code", "truncated", "duration_seconds"):
            if key in message:
                facts[key] = message[key]
        facts["output_clipped"] = bool(message.get("clipped"))
        texts = [str(p["text"]) for p in message["content"] if p.get("type") == "text"]
        text = clean("\n".join(texts))
        if message["tool"] in ("bash", "python"):
            text = _without_status(text)
        if text and text != _NO_OUTPUT:
            stream = "stderr" if message["is_error"] else "stdout"
            cell["outputs"].append({"output_type": "stream", "name": stream, "text": f"{text}\n"})
        placeholders = [p for p in message["content"] if p.get("type") == "image"]
        for at, placeholder in enumerate(placeholders):
            cell["outputs"].append(_image(images[at] if at < len(images) else placeholder))
        if message.get("exit_code"):
            cell["outputs"].append(_exit(int(message["exit_code"])))

    def _add_card(self, message: Mapping[str, Any]) -> None:
        card = _cleaned({k: v for k, v in message.items() if k not in ("seq", "type", "at")})
        data = {CARD_TYPE: card, "text/html": _card_html(card), "text/plain": _card_text(card)}
        output = {"output_type": "display_data", "data": data, "metadata": {}}
        self._cell_of(message)["outputs"].append(output)

    def _cell_of(self, message: Mapping[str, Any]) -> Cell:
        """Give the call's cell; one without source if its beginning is no longer kept."""
        return self._calls.get(str(message["call_id"])) or self._code(
            str(message["call_id"]), message
        )

    def _code(self, call_id: str, message: Mapping[str, Any]) -> Cell:
        self._count += 1
        facts = {"tool": clean(str(message.get("tool", ""))), "call_id": clean(call_id)}
        is_valid = _CELL_ID.fullmatch(call_id) and call_id not in self._calls
        cell: Cell = {
            "cell_type": "code",
            "id": call_id if is_valid else f"call-{message['seq']}",
            "metadata": {"jupyter_sandbox": facts, "tags": ["tool-call"]},
            "source": "",
            "execution_count": self._count,
            "outputs": [],
        }
        self._calls[call_id] = cell
        self.cells.append(cell)
        return cell

    def _markdown(self, name: str, text: str, facts: dict[str, Any] | None = None) -> None:
        metadata = {"jupyter_sandbox": _cleaned(facts)} if facts else {}
        self.cells.append(
            {"cell_type": "markdown", "id": name, "metadata": metadata, "source": text}
        )


def _without_status(text: str) -> str:
    """Give the text of a result without its status line (``tools/status_line.py``)."""
    output, _, last = text.rpartition("\n")
    is_status = last.startswith("[") and last.endswith("]") and _SECONDS.search(last)
    return output if is_status else text


def clean(text: str) -> str:
    """Give a text that UTF-8 can say: no lone surrogates."""
    return text.encode("utf-8", "replace").decode("utf-8")


def plain_markdown(text: str) -> str:
    """Give Markdown that shows the text as it is, on as many lines."""
    escaped = _MARKUP.sub(lambda found: f"&#{ord(found[1])};", clean(text))
    return escaped.replace("\r", " ").replace("\n", "<br>\n")


def _user_text(message: Mapping[str, Any]) -> str:
    """Give what a user said as the Markdown that it may be, without HTML."""
    text = clean(str(message.get("text", ""))).replace("<", "&lt;")
    names = ", ".join(plain_markdown(name) for name in _names(message))
    return f"{text}\n\n*Attached:* {names}" if names else text


def _names(message: Mapping[str, Any]) -> list[str]:
    return [str(each["name"]) for each in message.get("attachments") or []]


def _arguments(message: Mapping[str, Any]) -> Mapping[str, Any]:
    arguments = message.get("arguments")
    return arguments if isinstance(arguments, dict) else {}


def _source(tool: str, arguments: Mapping[str, Any]) -> str:
    """Give what runs again in the conversation's kernel; a comment where nothing does."""
    if tool == "python" and isinstance(arguments.get("code"), str):
        return clean(arguments["code"])
    if tool == "bash" and isinstance(arguments.get("command"), str):
        return clean(f"%%bash\n{arguments['command']}")
    path, text = arguments.get("path"), arguments.get("file_text")
    if tool == "create_file" and isinstance(path, str) and isinstance(text, str):
        if _SIMPLE_PATH.fullmatch(path):
            return clean(f"%%writefile {path}\n{text}")
        arguments = {"path": path}
    said = json.dumps(arguments, ensure_ascii=True, indent=1)  # one line of JSON has no line break
    # A carriage return ends a comment, too.
    shown = "".join(c if c.isprintable() else "\ufffd" for c in clean(tool))
    return "\n".join(f"# {line}" for line in [shown, *said.split("\n")])


def _image(image: Mapping[str, Any]) -> dict[str, Any]:
    data: dict[str, Any] = {"text/plain": f"[{image.get('media_type')}]"}
    if "data" in image:
        data[str(image["media_type"])] = image["data"]
    else:
        gone = "" if image.get("kept", True) else ", no longer kept"
        size = f"{image.get('size_bytes'):,} bytes{gone}"
        data["text/plain"] = f"[{image.get('media_type')}, {size}]"
    return {"output_type": "display_data", "data": data, "metadata": {}}


def _exit(exit_code: int) -> dict[str, Any]:
    text = f"exit code {exit_code}"
    return {
        "output_type": "error",
        "ename": "ExitCode",
        "evalue": str(exit_code),
        "traceback": [text],
    }


def _card_html(card: Mapping[str, Any]) -> str:
    name = html.escape(str(card.get("name", "")))
    if "error" in card:
        return f"<p>&#9888; <b>{name}</b>: {html.escape(str(card['error']))}</p>"
    facts = f"{html.escape(str(card.get('media_type')))}, {int(card.get('size_bytes', 0)):,} bytes"
    url = str(card.get("url", ""))
    if url.startswith("/"):
        name = f'<a href="{html.escape(url)}" rel="noopener noreferrer">{name}</a>'
    return f"<p>&#128196; <b>{name}</b> ({facts}, version {int(card.get('version', 0))})</p>"


def _card_text(card: Mapping[str, Any]) -> str:
    if "error" in card:
        return f"{card.get('name')}: {card['error']}"
    return f"{card.get('path')} ({card.get('media_type')}, {card.get('size_bytes'):,} bytes)"


def _cleaned(value: Any) -> Any:
    """Give JSON that UTF-8 can say."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, Mapping):
        return {clean(str(key)): _cleaned(member) for key, member in value.items()}
    return [_cleaned(each) for each in value] if isinstance(value, list) else value
