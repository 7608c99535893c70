"""What of a kernel's messages goes on to one client of the user's: allowed, rebuilt, bounded.

A kernel in a sandbox can say anything, at any length, as the answer to any request. The gate knows
which requests its client has sent; each has its own bound, other output shares one that refills.
The rule: a message that passes is built anew from the fields that its type has; what no type has is
dropped; HTML in it is still to be cleaned (``policy.displays.ToClean``, which cannot be sent).
Kernels that an administrator trusts are only bounded.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

from sandbox_guest.output import notice

from ..policy.displays import html_weight, prepared_bundle, safe_metadata
from .kernel_messages import KernelMessage

Message = dict[str, Any]
"""A message as clients get it: header, parent_header, metadata, content, buffers."""

_MOST_REQUESTS = 1000
_DISPLAYS = 8  # times the bound of text: pictures are larger, and a cell shows several
_REFILL_SECONDS = 10.0
_MOST_REPLY_BYTES = 4 * 1024 * 1024
_MOST_NAME = 200
_MOST_PARTS = 20
_STATES = frozenset(("busy", "idle", "starting", "restarting", "dead"))
_NOT_SHOWN = {"status": "error", "ename": "NotShown", "evalue": "", "traceback": []}
_HEADER = ("msg_id", "msg_type", "username", "session", "date", "version", "subshell_id")


class _Budget:
    """What one request may still show."""

    def __init__(self, limit_bytes: int) -> None:
        self.text_left = limit_bytes
        self.displays_left = limit_bytes * _DISPLAYS
        self.is_told = False
        self.is_answered = False
        self.since = 0.0


class OutputGate:
    """The gate of one client.

    Parameters
    ----------
    limit_bytes : int
        Of the text of one request; its displays may have eight times as much.
    trusted : bool
        Whether messages pass as they are, within the bounds.
    """

    def __init__(
        self,
        limit_bytes: int,
        trusted: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limit_bytes = limit_bytes
        self._trusted = trusted
        self._clock = clock
        self._requests: OrderedDict[str, _Budget] = OrderedDict()
        self._others = _Budget(limit_bytes)

    def __repr__(self) -> str:
        return f"<OutputGate {len(self._requests)} requests>"

    def note_request(self, msg_id: str) -> None:
        """Note that the client has sent this request."""
        self._requests[msg_id[:_MOST_NAME]] = _Budget(self._limit_bytes)
        if len(self._requests) > _MOST_REQUESTS:
            self._requests.popitem(last=False)

    def admit(self, channel: str, message: KernelMessage) -> list[Message]:
        """Give what to send in the place of a message: itself, a part with a notice, nothing."""
        if channel == "iopub":
            return self._admit_output(message)
        budget = self._requests.get(message.parent_id)
        if budget is None or (channel != "stdin" and budget.is_answered):
            return []  # an answer to nothing
        if channel == "stdin":
            budget.text_left -= message.size
            if budget.text_left < 0:
                return []
        else:
            budget.is_answered = True
        if message.size > _MOST_REPLY_BYTES:
            return [_built(message, _NOT_SHOWN)]
        if self._trusted:
            return [_as_it_is(message)]
        rebuild = _REPLIES.get(message.msg_type)
        return [] if rebuild is None else [_built(message, rebuild(message.content))]

    def _admit_output(self, message: KernelMessage) -> list[Message]:
        rebuild = _OUTPUTS.get(message.msg_type)
        if rebuild is None and not self._trusted:
            return []
        budget = self._budget(message.parent_id)
        if message.msg_type == "stream":
            return self._admit_text(message, budget)
        if message.msg_type == "status":  # small once it is rebuilt; an idle must not be lost
            return [_built(message, _status(message.content))]
        budget.displays_left -= message.size
        if budget.displays_left < 0:
            return self._cut(message, budget)
        if self._trusted or rebuild is None:
            return [_as_it_is(message)]
        weight = html_weight(message.content.get("data"))
        if weight > budget.text_left:  # to clean it takes time, which is bounded so
            return self._cut(message, budget)
        budget.text_left -= weight
        built = _built(message, rebuild(message.content))
        return [built, *self._bound_plain(message, built["content"], budget)]

    def _bound_plain(
        self, message: KernelMessage, content: Message, budget: _Budget
    ) -> list[Message]:
        """Count a display's plain text as text; give the notice if it was cut."""
        bundle = content.get("data", {})
        plain = bundle.get("text/plain")
        if plain is None:
            return []
        data = plain.encode("utf-8", "replace")
        if len(data) <= budget.text_left:
            budget.text_left -= len(data)
            return []
        bundle["text/plain"] = data[: budget.text_left].decode("utf-8", "ignore")
        budget.text_left = 0
        return self._cut(message, budget)

    def _admit_text(self, message: KernelMessage, budget: _Budget) -> list[Message]:
        content = _stream(message.content)
        data = content["text"].encode("utf-8", "replace")
        if len(data) <= budget.text_left:
            budget.text_left -= len(data)
            return [_built(message, content)] if data else []
        content["text"] = data[: budget.text_left].decode("utf-8", "ignore")
        budget.text_left = 0
        kept = [_built(message, content)] if content["text"] else []
        return kept + self._cut(message, budget)

    def _cut(self, message: KernelMessage, budget: _Budget) -> list[Message]:
        if budget.is_told:
            return []
        budget.is_told = True
        text = f"\n{notice(self._limit_bytes)}\n"
        told = _built(message, {"name": "stderr", "text": text})
        told["header"]["msg_type"] = "stream"
        return [told]

    def _budget(self, parent_id: str) -> _Budget:
        known = self._requests.get(parent_id)
        if known is not None:
            return known
        now = self._clock()
        if now - self._others.since > _REFILL_SECONDS:
            self._others = _Budget(self._limit_bytes)
            self._others.since = now
        return self._others


def _as_it_is(message: KernelMessage) -> Message:
    return {
        "header": dict(message.header),
        "parent_header": dict(message.parent),
        "metadata": message.metadata,
        "content": message.content,
        "buffers": list(message.buffers),
    }


def _built(message: KernelMessage, content: Mapping[str, Any]) -> Message:
    return {
        "header": _header(message.header),
        "parent_header": _header(message.parent),
        "metadata": {},
        "content": dict(content),
        "buffers": [],
    }


def _header(header: Mapping[str, Any]) -> dict[str, Any]:
    kept = {}
    for name in _HEADER:
        value = header.get(name)
        if hasattr(value, "isoformat"):
            kept[name] = value
        elif isinstance(value, str):
            kept[name] = value[:_MOST_NAME]
    return kept


# What each type has


def _stream(content: Mapping[str, Any]) -> dict[str, Any]:
    name = "stderr" if content.get("name") == "stderr" else "stdout"
    return {"name": name, "text": _string(content.get("text"))}


def _status(content: Mapping[str, Any]) -> dict[str, Any]:
    state = content.get("execution_state")
    return {"execution_state": state if state in _STATES else "idle"}


def _display(content: Mapping[str, Any]) -> dict[str, Any]:
    transient = content.get("transient")
    display_id = transient.get("display_id") if isinstance(transient, Mapping) else None
    return {
        "data": prepared_bundle(content.get("data")),
        "metadata": safe_metadata(content.get("metadata")),
        "transient": {"display_id": display_id[:_MOST_NAME]} if isinstance(display_id, str) else {},
    }


def _result(content: Mapping[str, Any]) -> dict[str, Any]:
    return {**_display(content), "execution_count": _count(content)}


def _error(content: Mapping[str, Any]) -> dict[str, Any]:
    lines = content.get("traceback")
    return {
        "ename": _string(content.get("ename")),
        "evalue": _string(content.get("evalue")),
        "traceback": [_string(line) for line in lines] if isinstance(lines, list) else [],
    }


def _input(content: Mapping[str, Any]) -> dict[str, Any]:
    return {"code": _string(content.get("code")), "execution_count": _count(content)}


def _clear(content: Mapping[str, Any]) -> dict[str, Any]:
    return {"wait": content.get("wait") is True}


def _execute_reply(content: Mapping[str, Any]) -> dict[str, Any]:
    reply: dict[str, Any] = {**_outcome(content), "execution_count": _count(content)}
    payload = content.get("payload")
    reply["payload"] = [
        rebuilt
        for item in (payload[:_MOST_PARTS] if isinstance(payload, list) else [])
        if isinstance(item, Mapping) and (rebuilt := _payload(item)) is not None
    ]
    asked = content.get("user_expressions")
    reply["user_expressions"] = {
        str(name)[:_MOST_NAME]: {**_outcome(value), **_display(value)}
        for name, value in list(asked.items() if isinstance(asked, Mapping) else ())[:_MOST_PARTS]
        if isinstance(value, Mapping)
    }
    return reply


def _payload(item: Mapping[str, Any]) -> dict[str, Any] | None:
    source = item.get("source")
    if source == "page":
        return {"source": source, "data": prepared_bundle(item.get("data")), "start": 0}
    if source == "set_next_input":
        text, replace = _string(item.get("text")), item.get("replace") is True
        return {"source": source, "text": text, "replace": replace}
    if source == "ask_exit":
        return {"source": source, "keepkernel": item.get("keepkernel") is True}
    return None


def _kernel_info(content: Mapping[str, Any]) -> dict[str, Any]:
    language = content.get("language_info")
    language = language if isinstance(language, Mapping) else {}
    names = ("name", "version", "mimetype", "file_extension", "pygments_lexer")
    return {
        **_outcome(content),
        "protocol_version": _string(content.get("protocol_version"))[:_MOST_NAME],
        "implementation": _string(content.get("implementation"))[:_MOST_NAME],
        "implementation_version": _string(content.get("implementation_version"))[:_MOST_NAME],
        "banner": _string(content.get("banner")),
        "language_info": {
            **{name: _string(language.get(name))[:_MOST_NAME] for name in names},
            "codemirror_mode": {"name": "ipython", "version": 3},
        },
        "help_links": [],
        # The debugger's and widgets' messages do not pass.
        "supported_features": [],
        "debugger": False,
    }


def _complete_reply(content: Mapping[str, Any]) -> dict[str, Any]:
    matches = content.get("matches")
    return {
        **_outcome(content),
        "matches": [_string(match) for match in matches] if isinstance(matches, list) else [],
        "cursor_start": _count(content, "cursor_start") or 0,
        "cursor_end": _count(content, "cursor_end") or 0,
        "metadata": _completion_types(content.get("metadata")),
    }


def _completion_types(metadata: object) -> dict[str, Any]:
    name = "_jupyter_types_experimental"
    types = metadata.get(name) if isinstance(metadata, Mapping) else None
    if not isinstance(types, list):
        return {}
    kept = []
    for item in types:
        if isinstance(item, Mapping):
            texts = {key: _string(item.get(key)) for key in ("text", "type", "signature")}
            places = {key: _count(item, key) or 0 for key in ("start", "end")}
            kept.append({**texts, **places})
    return {name: kept}


def _inspect_reply(content: Mapping[str, Any]) -> dict[str, Any]:
    found = content.get("found") is True
    return {
        **_outcome(content),
        "found": found,
        "data": prepared_bundle(content.get("data")),
        "metadata": {},
    }


def _is_complete_reply(content: Mapping[str, Any]) -> dict[str, Any]:
    status = content.get("status")
    known = status if status in ("complete", "incomplete", "invalid") else "unknown"
    return {"status": known, "indent": _string(content.get("indent"))[:_MOST_NAME]}


def _history_reply(content: Mapping[str, Any]) -> dict[str, Any]:
    history = content.get("history")
    kept = []
    for item in history if isinstance(history, list) else []:
        if isinstance(item, list) and len(item) == 3 and all(type(n) is int for n in item[:2]):
            last = item[2]
            if isinstance(last, str):
                kept.append([item[0], item[1], last])
            elif isinstance(last, list):
                kept.append([item[0], item[1], [_string(part) for part in last[:2]]])
    return {**_outcome(content), "history": kept}


def _comm_info(content: Mapping[str, Any]) -> dict[str, Any]:
    return {"status": "ok", "comms": {}}


def _shutdown_reply(content: Mapping[str, Any]) -> dict[str, Any]:
    return {**_outcome(content), "restart": content.get("restart") is True}


def _input_request(content: Mapping[str, Any]) -> dict[str, Any]:
    prompt = _string(content.get("prompt"))
    return {"prompt": prompt, "password": content.get("password") is True}


def _outcome(content: Mapping[str, Any]) -> dict[str, Any]:
    status = content.get("status")
    if status == "error":
        return {"status": status, **_error(content)}
    return {"status": "aborted" if status in ("abort", "aborted") else "ok"}


def _count(content: Mapping[str, Any], name: str = "execution_count") -> int | None:
    value = content.get(name)
    return value if type(value) is int and 0 <= value < 2**53 else None


def _string(value: object) -> str:
    return value if isinstance(value, str) else ""


_OUTPUTS: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
    "status": _status,
    "stream": _stream,
    "display_data": _display,
    "update_display_data": _display,
    "execute_result": _result,
    "execute_input": _input,
    "error": _error,
    "clear_output": _clear,
}
_REPLIES: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
    "execute_reply": _execute_reply,
    "kernel_info_reply": _kernel_info,
    "complete_reply": _complete_reply,
    "inspect_reply": _inspect_reply,
    "is_complete_reply": _is_complete_reply,
    "history_reply": _history_reply,
    "comm_info_reply": _comm_info,
    "shutdown_reply": _shutdown_reply,
    "interrupt_reply": _outcome,
    "input_request": _input_request,
}
