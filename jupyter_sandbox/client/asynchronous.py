"""The client for asyncio. ``blocking`` is the same without it; change both."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Mapping
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


class AsyncSandboxClient:
    """A server.

    Parameters
    ----------
    url : str
        Of the Jupyter Server with its base URL, e.g. ``http://127.0.0.1:8888``.
    token : str
        The server's, or the user's.
    options
        Further arguments of ``httpx.AsyncClient`` (``verify``, ``proxy``, …).
    """

    def __init__(self, url: str, token: str, **options: Any) -> None:
        self._http = httpx.AsyncClient(**{**http_options(url, token), **options})

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<AsyncSandboxClient {self._http.base_url}>"

    async def close(self) -> None:
        """Close the connections; sandboxes and calls go on."""
        await self._http.aclose()

    async def tools(self, shape: Literal["anthropic", "openai", "mcp"] = "anthropic") -> Tools:
        """Give the tools and the guidance; both empty without access."""
        given = await self.ask(Ask("GET", "api/tools", {"format": shape}))
        return Tools(tuple(given["tools"]), given["guidance"])

    async def conversation(self, key: str | None = None, title: str = "") -> AsyncConversation:
        """Make a conversation, or find the one with this key.

        Without a key, a connection that breaks leaves open whether one was made.
        """
        body = {"title": title} if key is None else {"title": title, "key": key}
        made = Ask("POST", "api/conversations", json=body, repeatable=key is not None)
        return AsyncConversation(self, (await self.ask(made))["id"])

    def existing(self, conversation_id: str) -> AsyncConversation:
        """Give a conversation whose id is known; nothing is asked."""
        return AsyncConversation(self, conversation_id)

    async def ask(self, ask: Ask) -> Any:
        """Send a request, again where that is safe, and give its JSON (None for 204)."""
        tries, failing_since = 0, 0.0
        while True:
            error: Refused | NotReachable | None
            try:
                response = await self._http.request(
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
            await asyncio.sleep(delay)


class AsyncConversation:
    """A conversation and its sandbox, which the first call provisions."""

    def __init__(self, client: AsyncSandboxClient, conversation_id: str) -> None:
        self.id = conversation_id
        self._client = client
        self._http = client._http

    def __repr__(self) -> str:
        return f"<AsyncConversation {self.id}>"

    async def call(self, tool: str, arguments: Mapping[str, Any]) -> Result:
        """Call a tool and wait for its end, however long that takes, also across a restart."""
        call = await self._begin(tool, arguments, str(uuid.uuid4()), WAIT_SECONDS)
        return result_of(call) or await self.wait(call["call_id"])

    async def start(self, tool: str, arguments: Mapping[str, Any], call_id: str = "") -> str:
        """Begin a call; give its id, for ``fetch``, ``wait`` and ``cancel``.

        ``call_id`` is a UUID of the caller's: keep it before this, and the same request can be made
        again after whatever has happened, and the call be waited for; it runs once.
        """
        call = await self._begin(tool, arguments, call_id or str(uuid.uuid4()), 0)
        return str(call["call_id"])

    async def stream(
        self, tool: str, arguments: Mapping[str, Any]
    ) -> AsyncIterator[Output | Result]:
        """Call a tool; give its output as it comes, and the result as the last item.

        When the connection breaks, the result is fetched; output meanwhile is in the result only.
        """
        path, events = conversation_path(self.id, "tools", tool), Events()
        params = {"call_id": str(uuid.uuid4())}
        try:
            async with self._http.stream(
                "POST",
                path,
                params=params,
                json=dict(arguments),
                headers={"Accept": "text/event-stream"},
            ) as response:
                if not response.is_success:
                    await response.aread()
                    raise refusal(response) or NotReachable("no answer")
                async for line in response.aiter_lines():
                    for event in events.line(line):
                        yield event
                        if isinstance(event, Result):
                            return
        except httpx.TransportError as exc:
            if not events.call_id:
                raise NotReachable(str(exc)) from exc
        yield await self.wait(events.call_id)

    async def wait(self, call_id: str, patience_seconds: float = PATIENCE_SECONDS) -> Result:
        """Wait for the end of a call that was begun, by whichever client.

        The server may be away meanwhile for ``patience_seconds``: the call goes on without it.
        """
        path = conversation_path(self.id, "calls", call_id)
        ask = Ask("GET", path, {"wait": WAIT_SECONDS}, patience_seconds=patience_seconds)
        while (result := result_of(await self._client.ask(ask))) is None:
            pass
        return result

    async def fetch(self, call_id: str, wait_seconds: int = 0) -> dict[str, Any]:
        """Give the state of a call as JSON, waiting so long for its end."""
        path = conversation_path(self.id, "calls", call_id)
        given: dict[str, Any] = await self._client.ask(Ask("GET", path, {"wait": wait_seconds}))
        return given

    async def cancel(self, call_id: str) -> None:
        """End a running call."""
        await self._client.ask(Ask("POST", conversation_path(self.id, "calls", call_id, "cancel")))

    async def model(self) -> dict[str, Any]:
        """Give the conversation's JSON: state, times, usage, kernel."""
        given: dict[str, Any] = await self._client.ask(Ask("GET", conversation_path(self.id)))
        return given

    async def keep_awake(self, until: datetime | None) -> dict[str, Any]:
        """Keep the sandbox from being suspended and ended until then; give the conversation's JSON.

        Its ``keep_awake_until`` says how long the server allows. None ends it. A time without a
        zone is local.
        """
        moment = None if until is None else until.astimezone(UTC).isoformat()
        asked = Ask("PATCH", conversation_path(self.id), json={"keep_awake_until": moment})
        given: dict[str, Any] = await self._client.ask(asked)
        return given

    async def upload(self, name: str, data: bytes | BinaryIO | Path) -> dict[str, Any]:
        """Upload a file; one of the same name is replaced. Read-only in the sandbox."""
        path = conversation_path(self.id, "uploads", name)
        if isinstance(data, Path):
            with data.open("rb") as file:
                return await self._put(path, file)
        return await self._put(path, data)

    async def shares(self) -> list[FileCard]:
        """List the shared files, the newest version of each."""
        given = await self._client.ask(Ask("GET", conversation_path(self.id, "shares")))
        return [to_card(share) for share in given["shares"]]

    async def download(self, path: str, target: Path, version: int | None = None) -> int:
        """Save a shared file; give its size in bytes. A broken download leaves no file."""
        params = {} if version is None else {"version": version}
        part, size = target.with_name(target.name + ".part"), 0
        try:
            async with self._http.stream(
                "GET", file_path(self.id, path), params=params
            ) as response:
                if not response.is_success:
                    await response.aread()
                    raise refusal(response) or NotReachable("no answer")
                with part.open("wb") as file:
                    async for piece in response.aiter_bytes(_PIECE_BYTES):
                        size += file.write(piece)
            part.replace(target)
        except httpx.TransportError as exc:
            raise NotReachable(str(exc)) from exc
        finally:
            part.unlink(missing_ok=True)
        return size

    async def delete(self) -> None:
        """Delete the conversation with everything."""
        await self._client.ask(Ask("DELETE", conversation_path(self.id)))

    async def _begin(
        self, tool: str, arguments: Mapping[str, Any], call_id: str, wait_seconds: int
    ) -> dict[str, Any]:
        path = conversation_path(self.id, "tools", tool)
        params: dict[str, str | int] = {"wait": wait_seconds, "call_id": call_id}
        given: dict[str, Any] = await self._client.ask(Ask("POST", path, params, dict(arguments)))
        return given

    async def _put(self, path: str, data: bytes | BinaryIO) -> dict[str, Any]:
        try:
            response = await self._http.put(path, content=_pieces(data))
        except httpx.TransportError as exc:
            raise NotReachable(str(exc)) from exc
        error = refusal(response)
        if error is not None:
            raise error
        given: dict[str, Any] = response.json()
        return given


async def _pieces(data: bytes | BinaryIO) -> AsyncIterator[bytes]:
    """Give what to send in pieces; files are read in a thread."""
    if isinstance(data, bytes):
        yield data
        return
    while piece := await asyncio.to_thread(data.read, _PIECE_BYTES):
        yield piece
