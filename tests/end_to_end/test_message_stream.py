"""The message stream over a websocket: live, resumed anywhere, for its owner only, bounded."""

from __future__ import annotations

import asyncio
import json
import logging
import random
import socket
from typing import Any

import pytest
from jupyter_server.auth import IdentityProvider, User
from tornado.httpclient import HTTPClientError, HTTPRequest
from tornado.websocket import WebSocketClientConnection, websocket_connect

from jupyter_sandbox.conversations import message_feeds
from jupyter_sandbox.conversations.journal import Journal
from jupyter_sandbox.routes import messages as messages_route
from jupyter_sandbox.stores.database import Database
from jupyter_sandbox.stores.message_records import MessageRecords

LOG = logging.getLogger("test")
MISSING = "00000000-0000-4000-8000-000000000000"


pytestmark = pytest.mark.own_server


@pytest.fixture(params=[pytest.param("bubblewrap", marks=pytest.mark.bubblewrap)])
def engine_name(request):
    """What is told does not depend on the engine."""
    return request.param


class Users(IdentityProvider):
    """A token is the name of its user; a cookie too, as a browser sends it."""

    async def get_user(self, handler):
        token = handler.request.headers.get("Authorization", "").removeprefix("token ")
        name = token or handler.request.headers.get("Cookie", "").removeprefix("user=")
        handler._token_authenticated = bool(token)
        return User(name) if name in ("alice", "bob", "carol") else None


@pytest.fixture
def sandbox_config():
    return {"ServerApp": {"identity_provider_class": Users}}


@pytest.fixture
def listen(api, jp_serverapp, jp_base_url):
    api.base = ()

    class As:
        """A user with a websocket."""

        def __init__(self, user: str) -> None:
            self.auth = {"Authorization": f"token {user}"} if user else {"Authorization": ""}

        async def json(self, method: str, path: str, body: Any = None):
            sent = json.dumps(body or {}) if method != "GET" and method != "DELETE" else None
            response = await api.raw(
                method, "sandbox", "api", *path.split("/"), body=sent, headers=self.auth
            )
            return json.loads(response.body) if response.body else None

        async def bash(self, conversation: str, command: str) -> Any:
            return await self.json(
                "POST", f"conversations/{conversation}/tools/bash", {"command": command}
            )

        async def conversation(self) -> str:
            return (await self.json("POST", "conversations"))["id"]

        async def connect(self, conversation: str, after: int = 0, **headers: str):
            url = f"ws://127.0.0.1:{jp_serverapp.port}{jp_base_url}sandbox/api/conversations"
            return await websocket_connect(
                HTTPRequest(
                    f"{url}/{conversation}/messages?after={after}",
                    headers={**self.auth, **headers},
                )
            )

    return As


async def read(client: WebSocketClientConnection) -> dict[str, Any] | None:
    text = await asyncio.wait_for(client.read_message(), 30)
    return None if text is None else json.loads(text)


async def read_until(client: WebSocketClientConnection, kind: str) -> list[dict[str, Any]]:
    found = [await read(client)]
    while found[-1]["type"] != kind:
        found.append(await read(client))
    return found


async def test_output_comes_between_a_call_and_its_result_and_to_those_who_come_later(listen):
    alice = listen("alice")
    conversation = await alice.conversation()
    await alice.bash(conversation, "true")  # its notice may come while the next output does
    page = await alice.json("GET", f"conversations/{conversation}/messages")
    client = await alice.connect(conversation, after=page["last"])
    command = "echo first; while [ ! -e go ]; do sleep 0.05; done; echo last"
    running = asyncio.ensure_future(alice.bash(conversation, command))
    told = await read_until(client, "output")
    assert [m["type"] for m in told] == ["call", "output"]
    call, output = told
    assert (output["text"], output["call_id"]) == ("first\n", call["call_id"])
    assert "seq" not in output
    late = await alice.connect(conversation, after=call["seq"])
    assert (await read(late)) == output  # from its beginning
    await alice.bash(conversation, "touch go")
    result = await running
    for each in (client, late):
        rest = []
        while (
            not rest or rest[-1].get("call_id") != call["call_id"] or rest[-1]["type"] != "result"
        ):
            rest.append(await read(each))
        texts = [
            m["text"] for m in rest if m["type"] == "output" and m["call_id"] == call["call_id"]
        ]
        assert "".join(texts) == "last\n"
        assert rest[-1]["content"][0]["text"] in result["content"][0]["text"]
        each.close()


async def test_whatever_is_cut_nothing_is_missing_and_nothing_comes_twice(listen, server_dir):
    """Cut at random, with two server processes writing: the resumed stream is the journal."""
    alice = listen("alice")
    conversation = await alice.conversation()
    url = f"sqlite:///{server_dir / 'data' / 'sandbox.db'}"
    database = Database(url)  # as another server process has it
    await database.open()
    other = Journal(MessageRecords(database.connections), LOG)
    rng = random.Random(7)
    total = 150

    async def write_here() -> None:
        for n in range(total):
            await alice.json(
                "POST", f"conversations/{conversation}/messages", {"text": f"here {n}"}
            )

    async def write_there() -> None:
        for n in range(total):
            other.add(conversation, "notice", {"text": f"there {n}"})
            await asyncio.sleep(rng.random() / 50)

    writers = asyncio.gather(write_here(), write_there())
    seen: list[dict[str, Any]] = []
    connections = 0
    while len(seen) < 2 * total:
        client = await alice.connect(conversation, after=seen[-1]["seq"] if seen else 0)
        connections += 1
        for _ in range(rng.randrange(1, 30)):
            if len(seen) == 2 * total:
                break
            seen.append(await read(client))
        client.close()
    await writers
    await other.close()
    await database.close()
    assert [message["seq"] for message in seen] == list(range(1, 2 * total + 1))
    assert len({message["text"] for message in seen}) == 2 * total
    assert connections > 10


async def test_only_the_owner_with_access_gets_a_websocket_and_no_other_page(listen, server_dir):
    conversation = await listen("alice").conversation()
    policy = server_dir / "data" / "policy.json"

    async def status(user: str, target: str = conversation, **headers: str) -> int:
        try:
            (await listen(user).connect(target, **headers)).close()
        except HTTPClientError as exc:
            return exc.code
        return 101

    policy.write_text('{"grants": [{"src": {"users": ["carol"]}, "enable_chat_ui": false}]}')
    assert await status("alice") == 101
    assert await status("") == 401
    assert await status("bob") == await status("bob", MISSING) == 404
    assert await status("carol") == await status("carol", MISSING) == 403
    cookie = {"Authorization": "", "Cookie": "user=alice"}
    assert await status("alice", **cookie) == 101
    assert await status("alice", **cookie, Origin="https://evil.example") == 404  # of the server
    policy.write_text('{"flags": {"chat_sandbox": {"value": false}}}')
    assert await status("alice") == 503


async def test_who_loses_access_hears_no_more(listen, server_dir):
    alice = listen("alice")
    conversation = await alice.conversation()
    client = await alice.connect(conversation)
    say = f"conversations/{conversation}/messages"
    await alice.json("POST", say, {"text": "one"})
    assert (await read(client))["text"] == "one"
    app_journal = {"grants": [{"src": {"users": ["alice"]}, "enable_chat_ui": False}]}
    (server_dir / "data" / "policy.json").write_text(json.dumps(app_journal))
    database = Database(f"sqlite:///{server_dir / 'data' / 'sandbox.db'}")
    await database.open()
    other = Journal(MessageRecords(database.connections), LOG)
    await other.put(conversation, "notice", {"text": "two"})
    assert await read(client) is None
    assert client.close_code == 1008
    await database.close()


async def test_the_stream_ends_with_its_conversation(listen):
    alice = listen("alice")
    conversation = await alice.conversation()
    client = await alice.connect(conversation)
    await alice.json("DELETE", f"conversations/{conversation}")
    assert await read(client) is None


async def test_there_are_so_many_readers_and_no_more(listen, monkeypatch):
    monkeypatch.setattr(message_feeds, "_MOST_FEEDS", 2)
    alice = listen("alice")
    conversation = await alice.conversation()
    clients = [await alice.connect(conversation) for _ in range(2)]
    with pytest.raises(HTTPClientError) as refused:
        await alice.connect(conversation)
    assert refused.value.code == 429
    clients[0].close()
    for _ in range(200):
        try:
            clients.append(await alice.connect(conversation))
            break
        except HTTPClientError:
            await asyncio.sleep(0.02)
    assert len(clients) == 3
    for client in clients:
        client.close()


async def test_who_talks_or_does_not_read_is_dropped(
    listen, monkeypatch, jp_serverapp, jp_base_url
):
    monkeypatch.setattr(messages_route, "_SLOW_SECONDS", 0.5)
    alice = listen("alice")
    conversation = await alice.conversation()
    client = await alice.connect(conversation)
    client.write_message("hello")
    assert await read(client) is None
    assert client.close_code == 1003
    services = await jp_serverapp.web_app.settings["jupyter_sandbox"].ready()
    for _ in range(60):
        services.journal.add(conversation, "notice", {"text": "x" * 200_000})
    await services.journal.flush()
    quiet = socket.socket()
    quiet.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    quiet.connect(("127.0.0.1", jp_serverapp.port))
    quiet.sendall(
        f"GET {jp_base_url}sandbox/api/conversations/{conversation}/messages HTTP/1.1\r\n"
        "Host: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        "Authorization: token alice\r\n\r\n".encode()
    )
    feeds = services.message_feeds
    for wanted in (1, 0):
        for _ in range(1500):
            if len(feeds._feeds.get(conversation, ())) == wanted:
                break
            await asyncio.sleep(0.01)
        assert len(feeds._feeds.get(conversation, ())) == wanted
    quiet.close()
