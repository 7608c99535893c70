"""``jupyter_sandbox.client``, blocking and for asyncio, against a real server."""

from __future__ import annotations

import asyncio
import inspect
import io
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from jupyter_sandbox.client import (
    AsyncConversation,
    AsyncSandboxClient,
    Conversation,
    NotReachable,
    Output,
    Refused,
    Result,
    SandboxClient,
)


@pytest.fixture(params=[pytest.param("bubblewrap", marks=pytest.mark.bubblewrap)])
def engine_name(request):
    """The client never meets an engine: one shows it."""
    return request.param


@pytest.fixture
def address(jp_serverapp, api):
    url = f"http://127.0.0.1:{jp_serverapp.port}{jp_serverapp.base_url}"
    return url, jp_serverapp.identity_provider.token


async def test_a_conversation_from_its_first_call_to_its_end(address, tmp_path):
    async with AsyncSandboxClient(*address) as client:
        tools = await client.tools()
        assert {"bash", "view"} <= {tool["name"] for tool in tools.tools}
        assert "sandbox" in tools.guidance
        conversation = await client.conversation(key="k", title="t")
        assert (await client.conversation(key="k")).id == conversation.id
        result = await conversation.call("bash", {"command": "echo hello; exit 3"})
        assert "hello\n" in result.text
        assert (result.exit_code, result.is_error, result.code) == (3, False, "ok")
        wrong = await conversation.call("view", {"path": "/nothing"})
        assert (wrong.is_error, wrong.code) == (True, "not_found")
        await conversation.upload("a b.txt", b"given")
        await conversation.upload("c.txt", io.BytesIO(b"stream"))
        await conversation.upload("d.txt", _file(tmp_path / "d.txt"))
        listed = await conversation.call("bash", {"command": "cat /mnt/user-data/uploads/*"})
        assert listed.text.startswith("givenstreamfile")
        share = "mkdir -p /mnt/user-data/outputs/x; echo out > '/mnt/user-data/outputs/x/ü #.txt'"
        await conversation.call("bash", {"command": share})
        path = "/mnt/user-data/outputs/x/ü #.txt"
        shared = await conversation.call("share_files", {"paths": [path, "/etc/passwd"]})
        assert [(card.name, bool(card.error)) for card in shared.files] == [
            ("ü #.txt", False),
            ("passwd", True),
        ]
        (card,) = await conversation.shares()
        assert await conversation.download(path, tmp_path / "got") == 4
        assert (tmp_path / "got").read_bytes() == b"out\n"
        assert card.file_id == shared.files[0].file_id
        assert (await conversation.model())["title"] == "t"
        until = datetime.now(UTC) + timedelta(hours=1)
        kept = await conversation.keep_awake(until)
        assert datetime.fromisoformat(kept["keep_awake_until"]) == until
        assert (await conversation.keep_awake(None))["keep_awake_until"] is None
        await conversation.delete()
        with pytest.raises(Refused) as caught:
            await conversation.model()
        assert (caught.value.status, caught.value.code) == (404, "not_found")


async def test_the_blocking_client_does_the_same(address, tmp_path):
    def work() -> None:
        with SandboxClient(*address) as client:
            conversation = client.conversation(key="blocking")
            assert conversation.call("bash", {"command": "echo hi"}).text.count("hi\n") == 1
            kept = conversation.keep_awake(datetime.now() + timedelta(hours=1))  # local
            left = datetime.fromisoformat(kept["keep_awake_until"]) - datetime.now(UTC)
            assert timedelta(minutes=59) < left <= timedelta(hours=1)
            conversation.upload("a.txt", b"given")
            command = "cp /mnt/user-data/uploads/a.txt /mnt/user-data/outputs/b.txt"
            conversation.call("bash", {"command": command})
            conversation.call("share_files", {"paths": ["/mnt/user-data/outputs/b.txt"]})
            assert conversation.download("b.txt", tmp_path / "b", version=1) == 5
            with pytest.raises(Refused):
                conversation.download("none.txt", tmp_path / "none")
            items = list(conversation.stream("bash", {"command": "echo a; sleep 0.2; echo b"}))
            assert "".join(i.text for i in items if isinstance(i, Output)) == "a\nb\n"
            assert isinstance(items[-1], Result)
            call_id = conversation.start("bash", {"command": "sleep 100"})
            conversation.cancel(call_id)
            assert conversation.wait(call_id).code == "cancelled"
            conversation.delete()

    tmp_path = tmp_path / "mine"
    tmp_path.mkdir()
    await asyncio.to_thread(work)
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


async def test_output_comes_before_the_command_is_over(address):
    async with AsyncSandboxClient(*address) as client:
        conversation = await client.conversation()
        await conversation.call("bash", {"command": "true"})
        stream = conversation.stream("bash", {"command": "echo early; read < <(sleep 2); echo x"})
        first = await anext(stream)
        assert first == Output("early\n")
        rest = [item async for item in stream]
        assert isinstance(rest[-1], Result)


async def test_a_call_longer_than_one_request_waits_is_fetched(address, monkeypatch):
    monkeypatch.setattr("jupyter_sandbox.client.asynchronous.WAIT_SECONDS", 1)
    async with AsyncSandboxClient(*address) as client:
        conversation = await client.conversation()
        result = await conversation.call("bash", {"command": "sleep 3; echo end"})
    assert "end\n" in result.text


async def test_a_broken_stream_gives_its_result_all_the_same(address, api):
    url, token = address
    async with AsyncSandboxClient(url, token) as client:
        conversation = await client.conversation()
        await conversation.call("bash", {"command": "true"})

        class Breaking(httpx.AsyncHTTPTransport):
            async def handle_async_request(self, request):
                response = await super().handle_async_request(request)
                if request.headers.get("Accept") == "text/event-stream":
                    response.stream = _Broken(response.stream)
                return response

        async with AsyncSandboxClient(url, token, transport=Breaking()) as breaking:
            stream = breaking.existing(conversation.id).stream(
                "bash", {"command": "echo one; sleep 1; echo two"}
            )
            items = [item async for item in stream]
    assert isinstance(items[-1], Result)
    assert items[-1].text.startswith("one\ntwo\n")


class _Broken(httpx.AsyncByteStream):
    def __init__(self, stream) -> None:
        self._stream = stream

    async def __aiter__(self):
        async for piece in self._stream:
            yield piece
            if b"output" in piece:
                raise httpx.ReadError("cut")

    async def aclose(self) -> None:
        await self._stream.aclose()


async def test_nobody_at_the_address_is_not_reachable(monkeypatch):
    monkeypatch.setattr("jupyter_sandbox.client.exchange.RETRIES", 1)
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{held.getsockname()[1]}"
        async with AsyncSandboxClient(url, "x") as client:
            with pytest.raises(NotReachable):
                await client.tools()


async def test_a_wrong_token_is_refused_at_once(address):
    async with AsyncSandboxClient(address[0], "wrong") as client:
        with pytest.raises(Refused) as caught:
            await client.conversation()
    assert caught.value.status in (401, 403)


def test_both_clients_have_the_same_methods():
    for blocking, other in (
        (SandboxClient, AsyncSandboxClient),
        (Conversation, AsyncConversation),
    ):
        for name, method in vars(blocking).items():
            if name.startswith("_") or not callable(method):
                continue
            theirs = inspect.signature(getattr(other, name)).parameters
            assert list(inspect.signature(method).parameters) == list(theirs), name
            assert inspect.getdoc(method) == inspect.getdoc(getattr(other, name))


def _file(path: Path) -> Path:
    path.write_bytes(b"file")
    return path
