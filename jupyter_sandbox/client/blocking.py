"""The blocking client. ``asynchronous`` is the same for asyncio; change both."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Literal, Self

import httpx

from .errors import NotReachable, Refused
from .exchange import (
    PATIENCE_SECONDS,
    WAIT_SECONDS,
    Ask,
    Events,
    conversation_path,
    delay_before_retry,
    file_path,
    http_options,
    refusal,
    result_of,
)
from .results import FileCard, Output, Result, Tools, to_card

_PIECE_BYTES = 1024 * 1024


class SandboxClient:
    """A server.

    Parameters
    ----------
    url : str
        Of the Jupyter Server with its base URL, e.g. ``http://127.0.0.1:8888``.
    token : str
        The server's, or the user's.
    options
        Further arguments of ``httpx.Client`` (``verify``, ``proxy``, …).
    """

    def __init__(self, url: str, token: str, **options: Any) -> None:
        self._http = httpx.Client(**{**http_options(url, token), **options})

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<SandboxClient {self._http.base_url}>"

    def close(self) -> None:
        """Close the connections; sandboxes and calls go on."""
        self._http.close()

    def tools(self, shape: Literal["anthropic", "openai", "mcp"] = "anthropic") -> Tools:
        """Give the tools and the guidance; both empty without access."""
        given = self.ask(Ask("GET", "api/tools", {"format": shape}))
        return Tools(tuple(given["tools"]), given["guidance"])

    def conversation(self, key: str | None = None, title: str = "") -> Conversation:
        """Make a conversation, or find the one with this key.

        Without a key, a connection that breaks leaves open whether one was made.
        """
        body = {"title": title} if key is None else {"title": title, "key": key}
        made = Ask("POST", "api/conversations", json=body, repeatable=key is not None)
        return Conversation(self, self.ask(made)["id"])

    def existing(self, conversation_id: str) -> Conversation:
        """Give a conversation whose id is known; nothing is asked."""
        return Conversation(self, conversation_id)

    def ask(self, ask: Ask) -> Any:
        """Send a request, again where that is safe, and give its JSON (None for 204)."""
        tries, failing_since = 0, 0.0
        while True:
            error: Refused | NotReachable | None
            try:
                response = self._http.request(
                    ask.method, ask.path, params=dict(ask.params), json=ask.json
                )
                error = refusal(response)
                if error is None:
                    return response.json() if response.content else None
            except httpx.TransportError as exc:
                error = NotReachable(str(exc))
            failing_since = failing_since or time.monotonic()
            delay = delay_before_retry(error, tries, ask, time.monotonic() - failing_since)
            if delay is None:
                raise error
            tries += 1
            time.sleep(delay)


class Conversation:
    """A conversation and its sandbox, which the first call provisions."""

    def __init__(self, client: SandboxClient, conversation_id: str) -> None:
        self.id = conversation_id
        self._client = client
        self._http = client._http

    def __repr__(self) -> str:
        return f"<Conversation {self.id}>"

    def call(self, tool: str, arguments: Mapping[str, Any]) -> Result:
        """Call a tool and wait for its end, however long that takes, also across a restart."""
        call = self._begin(tool, arguments, str(uuid.uuid4()), WAIT_SECONDS)
        return result_of(call) or self.wait(call["call_id"])

    def start(self, tool: str, arguments: Mapping[str, Any], call_id: str = "") -> str:
        """Begin a call; give its id, for ``fetch``, ``wait`` and ``cancel``.

        ``call_id`` is a UUID of the caller's: keep it before this, and the same request can be made
        again after whatever has happened, and the call be waited for; it runs once.
        """
        call = self._begin(tool, arguments, call_id or str(uuid.uuid4()), 0)
        return str(call["call_id"])

    def stream(self, tool: str, arguments: Mapping[str, Any]) -> Iterator[Output | Result]:
        """Call a tool; give its output as it comes, and the result as the last item.

        When the connection breaks, the result is fetched; output meanwhile is in the result only.
        """
        path, events = conversation_path(self.id, "tools", tool), Events()
        params = {"call_id": str(uuid.uuid4())}
        try:
            with self._http.stream(
                "POST",
                path,
                params=params,
                json=dict(arguments),
                headers={"Accept": "text/event-stream"},
            ) as response:
                if not response.is_success:
                    response.read()
                    raise refusal(response) or NotReachable("no answer")
                for line in response.iter_lines():
                    for event in events.line(line):
                        yield event
                        if isinstance(event, Result):
                            return
        except httpx.TransportError as exc:
            if not events.call_id:
                raise NotReachable(str(exc)) from exc
        yield self.wait(events.call_id)

    def wait(self, call_id: str, patience_seconds: float = PATIENCE_SECONDS) -> Result:
        """Wait for the end of a call that was begun, by whichever client.

        The server may be away meanwhile for ``patience_seconds``: the call goes on without it.
        """
        path = conversation_path(self.id, "calls", call_id)
        ask = Ask("GET", path, {"wait": WAIT_SECONDS}, patience_seconds=patience_seconds)
        while (result := result_of(self._client.ask(ask))) is None:
            pass
        return result

    def fetch(self, call_id: str, wait_seconds: int = 0) -> dict[str, Any]:
        """Give the state of a call as JSON, waiting so long for its end."""
        path = conversation_path(self.id, "calls", call_id)
        given: dict[str, Any] = self._client.ask(Ask("GET", path, {"wait": wait_seconds}))
        return given

    def cancel(self, call_id: str) -> None:
        """End a running call."""
        self._client.ask(Ask("POST", conversation_path(self.id, "calls", call_id, "cancel")))

    def model(self) -> dict[str, Any]:
        """Give the conversation's JSON: state, times, usage, kernel."""
        given: dict[str, Any] = self._client.ask(Ask("GET", conversation_path(self.id)))
        return given

    def keep_awake(self, until: datetime | None) -> dict[str, Any]:
        """Keep the sandbox from being suspended and ended until then; give the conversation's JSON.

        Its ``keep_awake_until`` says how long the server allows. None ends it. A time without a
        zone is local.
        """
        moment = None if until is None else until.astimezone(UTC).isoformat()
        asked = Ask("PATCH", conversation_path(self.id), json={"keep_awake_until": moment})
        given: dict[str, Any] = self._client.ask(asked)
        return given

    def upload(self, name: str, data: bytes | BinaryIO | Path) -> dict[str, Any]:
        """Upload a file; one of the same name is replaced. Read-only in the sandbox."""
        path = conversation_path(self.id, "uploads", name)
        if isinstance(data, Path):
            with data.open("rb") as file:
                return self._put(path, file)
        return self._put(path, data)

    def shares(self) -> list[FileCard]:
        """List the shared files, the newest version of each."""
        given = self._client.ask(Ask("GET", conversation_path(self.id, "shares")))
        return [to_card(share) for share in given["shares"]]

    def download(self, path: str, target: Path, version: int | None = None) -> int:
        """Save a shared file; give its size in bytes. A broken download leaves no file."""
        params = {} if version is None else {"version": version}
        part, size = target.with_name(target.name + ".part"), 0
        try:
            with self._http.stream("GET", file_path(self.id, path), params=params) as response:
                if not response.is_success:
                    response.read()
                    raise refusal(response) or NotReachable("no answer")
                with part.open("wb") as file:
                    for piece in response.iter_bytes(_PIECE_BYTES):
                        size += file.write(piece)
            part.replace(target)
        except httpx.TransportError as exc:
            raise NotReachable(str(exc)) from exc
        finally:
            part.unlink(missing_ok=True)
        return size

    def delete(self) -> None:
        """Delete the conversation with everything."""
        self._client.ask(Ask("DELETE", conversation_path(self.id)))

    def _begin(
        self, tool: str, arguments: Mapping[str, Any], call_id: str, wait_seconds: int
    ) -> dict[str, Any]:
        path = conversation_path(self.id, "tools", tool)
        params: dict[str, str | int] = {"wait": wait_seconds, "call_id": call_id}
        given: dict[str, Any] = self._client.ask(Ask("POST", path, params, dict(arguments)))
        return given

    def _put(self, path: str, data: bytes | BinaryIO) -> dict[str, Any]:
        try:
            response = self._http.put(path, content=data)
        except httpx.TransportError as exc:
            raise NotReachable(str(exc)) from exc
        error = refusal(response)
        if error is not None:
            raise error
        given: dict[str, Any] = response.json()
        return given
