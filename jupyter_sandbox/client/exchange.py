"""What both clients say and understand, without sending: requests, answers, events.

The rule: a call is started under an id of the client's and fetched by it, so that no proxy's
timeout, restart of the server or broken connection loses its result, and sending it again begins
nothing twice.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import httpx

from .errors import NotReachable, Refused
from .results import Output, Result, to_result

PATIENCE_SECONDS = 600.0
"""How long a server may be away while its client waits for a call: a restart, an upgrade."""
WAIT_SECONDS = 50
"""How long one request waits for a call: less than what usual proxies allow (60 s)."""
RETRIES = 5
_RETRY_STATUS = {429, 502, 503, 504}
_MOST_WAIT_SECONDS = 30.0

TIMEOUT = httpx.Timeout(connect=10, read=WAIT_SECONDS + 40, write=60, pool=60)


@dataclass(frozen=True)
class Ask:
    """A request below ``/sandbox``. ``repeatable``: sending it twice is sending it once.

    ``patience_seconds`` is how long the server may be away; 0: for a few tries.
    """

    method: str
    path: str
    params: Mapping[str, str | int] = field(default_factory=dict)
    json: Any = None
    repeatable: bool = True
    patience_seconds: float = 0.0


def http_options(url: str, token: str) -> dict[str, Any]:
    """Give the arguments of an httpx client."""
    return {
        "base_url": url.rstrip("/") + "/sandbox/",
        "headers": {"Authorization": f"token {token}"},
        "timeout": TIMEOUT,
    }


def conversation_path(conversation_id: str, *rest: str) -> str:
    """Give the path of something of a conversation."""
    return "/".join(
        ["api/conversations", *(quote(part, safe="") for part in (conversation_id, *rest))]
    )


def file_path(conversation_id: str, path: str) -> str:
    """Give the path of a shared file's download."""
    relative = path.removeprefix("/mnt/user-data/outputs/").lstrip("/")
    return f"files/{quote(conversation_id, safe='')}/{quote(relative, safe='/')}"


def refusal(response: httpx.Response) -> Refused | None:
    """Give the error of an answer whose body was read; None if it is none."""
    if response.is_success:
        return None
    try:
        body = response.json()
        code, message = str(body["code"]), str(body["message"])
    except (ValueError, KeyError, TypeError):
        code, message = "error", response.text[:500]
    after = response.headers.get("Retry-After", "")
    return Refused(response.status_code, code, message, float(after) if after.isdigit() else None)


def delay_before_retry(
    error: Refused | NotReachable, tries: int, ask: Ask, waited_seconds: float
) -> float | None:
    """Give the seconds to wait before the same request; None if it must not be sent again.

    After an *answer* with an error nothing was begun, so everything may be sent again; without an
    answer only what is repeatable.
    """
    if waited_seconds >= ask.patience_seconds if ask.patience_seconds else tries >= RETRIES:
        return None
    if isinstance(error, Refused):
        if error.status not in _RETRY_STATUS or error.retry_after_seconds is None:
            return None
        return min(error.retry_after_seconds, _MOST_WAIT_SECONDS)
    longest = 2 if ask.patience_seconds else 8
    return float(min(2 ** min(tries, 8), longest)) if ask.repeatable else None


def result_of(call: Mapping[str, Any]) -> Result | None:
    """Give the result of a call, or None while it runs."""
    return None if call["state"] == "running" else to_result(call)


class Events:
    """Reads a stream of server-sent events of one call."""

    def __init__(self) -> None:
        self.call_id = ""
        self._name = ""

    def __repr__(self) -> str:
        return f"<Events of {self.call_id or 'a call'}>"

    def line(self, line: str) -> Iterator[Output | Result]:
        """Take a line; give what is complete with it."""
        if line.startswith("event: "):
            self._name = line[7:]
        elif line.startswith("data: "):
            data = json.loads(line[6:])
            if self._name == "call":
                self.call_id = data["call_id"]
            elif self._name == "output":
                yield Output(data["text"])
            elif self._name == "result":
                yield to_result(data)
