"""``jupyter sandbox replay NOTEBOOK``: make the calls of a conversation again in a fresh one.

The notebook is what ``GET …/notebook`` gave, perhaps edited. Its calls are made in their order on a
running server, and the fresh conversation's notebook is compared with it. It knows HTTP and
notebooks. The exit code is 0 when all came out as before, else 1.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import nbformat
from jupyter_server.utils import url_path_join
from tornado.httpclient import HTTPClientError
from tornado.simple_httpclient import SimpleAsyncHTTPClient
from traitlets import Bool, Unicode

from .replay_cells import Step, differences, shown, steps_of, uploads_of
from .running_server import find_server
from .strict_app import StrictApp

_MOST_BYTES = 64 * 1024 * 1024
_WAIT_SECONDS = 50
_REQUEST_SECONDS = 120.0


class ReplayApp(StrictApp):
    """Make the calls of a notebook again in a fresh conversation and say what differs."""

    name = "jupyter-sandbox-replay"
    description = __doc__ or ""

    url = Unicode(
        help="The Jupyter Server, http://host:port/base. Default: the one that this user runs."
    ).tag(config=True)
    keep = Bool(False, help="Keep the fresh conversation.").tag(config=True)

    aliases = {"url": "ReplayApp.url"}  # noqa: RUF012
    flags = {  # noqa: RUF012
        "keep": ({"ReplayApp": {"keep": True}}, "Keep the fresh conversation.")
    }

    def start(self) -> None:
        """Replay; exit with 1 if anything differs or cannot be done."""
        try:
            if len(self.extra_args) != 1:
                raise _ReplayError("give one notebook: jupyter sandbox replay NOTEBOOK")
            notebook = _read(Path(self.extra_args[0]))
            url, token = find_server(self.url, os.environ.get("JUPYTER_TOKEN", ""))
            are_same = asyncio.run(_replay(_Server(url, token), notebook, self.keep))
        except (_ReplayError, LookupError) as exc:
            print(f"jupyter sandbox replay: {exc}", file=sys.stderr)
            self.exit(1)
        self.exit(0 if are_same else 1)


class _ReplayError(Exception):
    """It cannot be replayed."""


class _Server:
    """The API of the server."""

    def __init__(self, url: str, token: str) -> None:
        self._base = url_path_join(url, "sandbox/api/conversations")
        self._headers = {"Authorization": f"token {token}"}
        self._client = SimpleAsyncHTTPClient(force_instance=True, max_body_size=_MOST_BYTES)

    def __repr__(self) -> str:
        return f"<_Server {self._base}>"

    async def ask(
        self, method: str, *path: str, query: str = "", body: bytes | None = None
    ) -> tuple[int, bytes]:
        """Give status and body of an answer."""
        try:
            response = await self._client.fetch(
                "/".join([self._base, *(quote(part, safe="") for part in path)]) + query,
                method=method,
                headers=self._headers,
                body=body if method in ("POST", "PUT") else None,
                request_timeout=_REQUEST_SECONDS,
                raise_error=False,
            )
        except (OSError, HTTPClientError) as exc:
            raise _ReplayError(f"the Jupyter Server cannot be reached: {exc}") from exc
        if response.code == 599:
            raise _ReplayError("the Jupyter Server did not answer in time")
        return response.code, response.body or b""

    async def json(self, method: str, *path: str, query: str = "", body: object = None) -> Any:
        """Give the JSON of an answer that has to be a good one."""
        sent = json.dumps(body).encode() if method == "POST" else None
        status, data = await self.ask(method, *path, query=query, body=sent)
        if status >= 300:
            raise _ReplayError(
                shown(f"the server answered {status}: {data.decode('utf-8', 'replace')}")
            )
        return json.loads(data) if data else None


async def _replay(server: _Server, notebook: Mapping[str, Any], keep: bool) -> bool:
    """Make all calls again; say whether everything came out as before."""
    steps = steps_of(notebook)
    if not steps:
        raise _ReplayError("the notebook has no call of a conversation")
    made = await server.json("POST", body={"title": "Replay"})
    conversation = str(made["id"])
    try:
        are_same = await _bring_uploads(server, notebook, conversation)
        ids = [await _call(server, conversation, step) for step in steps]
        fresh = await server.json("GET", conversation, "notebook")
    finally:
        if keep:
            print(f"conversation {conversation} is kept")
        else:
            await server.ask("DELETE", conversation)
    cells = {cell["id"]: cell for cell in fresh["cells"]}
    same = 0
    for number, (step, call_id) in enumerate(zip(steps, ids, strict=True), 1):
        lines = [f"not replayed: {step.problem}"] if step.problem else []
        lines = lines or differences(step.cell, cells.get(call_id, {}))
        same += not lines
        print(f"{'differs' if lines else 'same':8}{number}  {shown(step.tool)}")
        for line in lines:
            print(f"        {line}")
    print(f"{same} of {len(steps)} calls came out as before")
    return are_same and same == len(steps)


async def _call(server: _Server, conversation: str, step: Step) -> str:
    """Make a call and wait for its end; give its id, "" if it cannot be made."""
    if step.problem:
        return ""
    wait = f"?wait={_WAIT_SECONDS}"
    call = await server.json(
        "POST", conversation, "tools", step.tool, query=wait, body=dict(step.arguments)
    )
    while call["state"] == "running":
        call = await server.json("GET", conversation, "calls", call["call_id"], query=wait)
    return str(call["call_id"])


async def _bring_uploads(server: _Server, notebook: Mapping[str, Any], to: str) -> bool:
    """Copy the user's files from the notebook's own conversation; say whether all were there."""
    names = uploads_of(notebook)
    facts = notebook["metadata"].get("jupyter_sandbox", {})
    source = str(facts.get("conversation_id", "")) or "unknown"
    missing = []
    for name in names:
        status, data = await server.ask("GET", source, "uploads", name)
        if status == 200:
            status, _ = await server.ask("PUT", to, "uploads", name, body=data)
        if status >= 300:
            missing.append(shown(name))
    if missing:
        print(f"uploads that are not there any more: {', '.join(missing)}")
    return not missing


def _read(path: Path) -> Mapping[str, Any]:
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise _ReplayError(f"{path} is larger than {_MOST_BYTES:,} bytes")
        notebook: Mapping[str, Any] = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
        nbformat.validate(notebook)
    except OSError as exc:
        raise _ReplayError(f"{path} cannot be read: {exc.strerror}") from exc
    except (ValueError, nbformat.ValidationError, nbformat.reader.NotJSONError) as exc:
        raise _ReplayError(f"{path} is no notebook") from exc
    return notebook
