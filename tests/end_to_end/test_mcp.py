"""MCP: the official SDK's client in both eras, and what a careless or hostile client sends."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time

import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from jupyter_sandbox.tools.registry import names

ERAS = [("auto", "2026-07-28"), ("legacy", "2025-11-25")]
FIVE_MINUTES = 300


@pytest.fixture(params=[pytest.param("bubblewrap", marks=pytest.mark.bubblewrap)])
def engine_name(request):
    """The protocol ends before any engine begins: one shows it."""
    return request.param


@pytest.fixture
def mcp(jp_serverapp, api):
    """Where the protocol is spoken, and how to open it with the official client."""
    return Mcp(jp_serverapp)


class Mcp:
    def __init__(self, serverapp) -> None:
        self.token = serverapp.identity_provider.token
        self.root = f"http://127.0.0.1:{serverapp.port}{serverapp.base_url}sandbox"

    @contextlib.asynccontextmanager
    async def client(self, mode: str = "auto", path: str = "/mcp", **headers: str):
        headers = {"Authorization": f"token {self.token}", **headers}
        async with (
            httpx2.AsyncClient(headers=headers, timeout=FIVE_MINUTES) as http,
            Client(streamable_http_client(self.root + path, http_client=http), mode=mode) as client,
        ):
            yield client

    async def post(self, body: object, path: str = "/mcp", **headers: str) -> httpx2.Response:
        sent = {"Authorization": f"token {self.token}", "Content-Type": "application/json"}
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        async with httpx2.AsyncClient(timeout=FIVE_MINUTES) as http:
            return await http.post(self.root + path, content=content, headers={**sent, **headers})


def text_of(result) -> str:
    return "\n".join(block.text for block in result.content if block.type == "text")


def request(method: str, request_id: object = 1, **params: object) -> dict:
    return {"jsonrpc": "2.0", "id": request_id, "method": method, "params": params}


@pytest.mark.parametrize(("mode", "version"), ERAS)
async def test_the_official_client_finds_the_tools_and_calls_them(mcp, mode, version):
    async with mcp.client(mode) as client:
        assert client.protocol_version == version
        assert "sandbox" in (client.instructions or "")
        listed = await client.list_tools()
        assert {tool.name for tool in listed.tools} == set(names())
        result = await client.call_tool("bash", {"command": "echo hello; exit 3"})
        assert not result.is_error
        assert "hello\n" in text_of(result)
        assert result.meta["jupyter_sandbox/call"]["exit_code"] == 3
        kept = await client.call_tool("bash", {"command": "echo $((40+2)) > kept; cat kept"})
        assert text_of(kept).startswith("42\n")
        again = await client.call_tool("view", {"path": "/workspace/kept"})
        assert "42" in text_of(again)


@pytest.mark.parametrize(("mode", "version"), ERAS)
async def test_errors_of_tools_are_results_that_the_model_reads(mcp, mode, version):
    async with mcp.client(mode) as client:
        missing = await client.call_tool("view", {"path": "/workspace/missing"})
        assert missing.is_error
        assert "/workspace/missing" in text_of(missing)
        wrong = await client.call_tool("bash", {"comand": "x"})
        assert wrong.is_error
        assert "command" in text_of(wrong)


async def test_images_are_images_and_shared_files_are_links(mcp):
    draw = (
        "import base64; from IPython.display import Image, display; display(Image("
        "base64.b64decode('iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA"
        "60e6kgAAAABJRU5ErkJggg==')))"
    )
    async with mcp.client() as client:
        image = await client.call_tool("python", {"code": draw})
        assert [b.mime_type for b in image.content if b.type == "image"] == ["image/png"]
        command = "mkdir -p /mnt/user-data/outputs/a; echo x > '/mnt/user-data/outputs/a/b c.txt'"
        await client.call_tool("bash", {"command": command})
        shared = await client.call_tool(
            "share_files", {"paths": ["/mnt/user-data/outputs/a/b c.txt", "/etc/passwd"]}
        )
        link = next(b for b in shared.content if b.type == "resource_link")
        assert link.name == "b c.txt"
        assert "/etc/passwd" in text_of(shared)
        async with httpx2.AsyncClient(headers={"Authorization": f"token {mcp.token}"}) as http:
            assert (await http.get(str(link.uri))).content == b"x\n"


async def test_progress_is_told_while_a_command_runs(mcp):
    told = []

    async def progress(done, total, message):
        told.append((done, message))

    async with mcp.client() as client:
        result = await client.call_tool(
            "bash", {"command": "echo step one; sleep 8; echo end"}, progress_callback=progress
        )
    assert "end" in text_of(result)
    assert [done for done, _ in told] == sorted({done for done, _ in told})
    assert told[0][1] == "step one"


async def test_a_long_output_that_took_long_fits_into_the_stream(mcp):
    """The official client refuses an event of more than 1 MiB."""
    async with mcp.client() as client:
        result = await client.call_tool(
            "bash", {"command": "sleep 3; yes '\\\"quoted\\\"' | head -c 1500000"}
        )
    text = text_of(result)
    assert "left out here, to fit into the stream" in text
    assert "output truncated (exceeded 1 MiB)" in text


async def test_closing_the_stream_cancels_a_stateless_call(mcp, api):
    conversation = await api.conversation()
    await api.bash(conversation, "true")
    body = request("tools/call", name="bash", arguments={"command": "sleep 100"})
    body["params"]["_meta"] = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    headers = {
        "MCP-Protocol-Version": "2026-07-28",
        "Mcp-Method": "tools/call",
        "Mcp-Name": "bash",
        "Accept": "application/json, text/event-stream",
    }
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(mcp.post(body, f"/c/{conversation}/mcp", **headers), 4)
    await _until(lambda: _sleeps(api, conversation), 0)


async def test_a_handshake_client_cancels_by_the_request_id(mcp, api):
    conversation = await api.conversation()
    await api.bash(conversation, "true")
    path = f"/c/{conversation}/mcp"
    call = request("tools/call", 7, name="bash", arguments={"command": "sleep 100"})
    under_way = asyncio.ensure_future(mcp.post(call, path))
    await _until(lambda: _sleeps(api, conversation), 1)
    cancel = {
        "jsonrpc": "2.0",
        "method": "notifications/cancelled",
        "params": {"requestId": 7, "reason": "enough"},
    }
    assert (await mcp.post(cancel, path)).status_code == 202
    result = (await under_way).json()["result"]
    assert result["isError"]
    assert result["_meta"]["jupyter_sandbox/call"]["code"] == "cancelled"


async def test_a_call_goes_on_when_a_handshake_client_goes_away(mcp, api):
    conversation = await api.conversation()
    await api.bash(conversation, "true")
    call = request("tools/call", name="bash", arguments={"command": "sleep 4; touch survived"})
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(mcp.post(call, f"/c/{conversation}/mcp"), 1)
    await _until(lambda: api.bash(conversation, "ls"), "survived", within=True)


async def test_the_chat_id_is_a_key_of_the_owner(mcp, api):
    headers = {"X-Jupyter-Chat-Id": "chat one"}
    async with mcp.client(**headers) as client:
        await client.call_tool("bash", {"command": "echo mine > marker"})
    conversation = await api.conversation(key="chat one")
    assert "mine\n" in await api.bash(conversation, "cat marker")
    async with mcp.client(**{"X-Jupyter-Chat-Id": "chat two"}) as client:
        other = await client.call_tool("bash", {"command": "cat marker"})
    assert "No such file" in text_of(other)


async def test_sessions_have_conversations_of_their_own(mcp):
    async with mcp.client("legacy") as one, mcp.client("legacy") as two:
        await one.call_tool("bash", {"command": "echo one > marker"})
        other = await two.call_tool("bash", {"command": "cat marker"})
        assert "No such file" in text_of(other)


async def test_it_opens_for_a_token_only_and_for_no_foreign_page(mcp, jp_serverapp):
    ping = request("ping")
    assert (await mcp.post(ping)).status_code == 200
    assert (await mcp.post(ping, Authorization="token wrong")).status_code in (401, 403)
    assert (await mcp.post(ping, Origin="https://evil.example")).status_code == 403
    assert (await mcp.post(ping, Origin="null")).status_code == 403
    assert (await mcp.post(ping, Origin=f"http://127.0.0.1:{jp_serverapp.port}")).status_code == 200
    async with httpx2.AsyncClient() as http:
        assert (await http.post(mcp.root + "/mcp", json=ping)).status_code in (401, 403)
        page = f"{jp_serverapp.base_url}api/me?token={mcp.token}"
        await http.get(f"http://127.0.0.1:{jp_serverapp.port}{page}")
        xsrf = http.cookies.get("_xsrf") or ""
        answer = await http.post(mcp.root + "/mcp", json=ping, headers={"X-XSRFToken": xsrf})
        assert answer.status_code == 403


async def test_a_foreign_conversation_and_a_missing_one_are_alike(mcp):
    for path in ("/c/00000000-0000-4000-8000-000000000000/mcp", "/c/nonsense/mcp"):
        answer = await mcp.post(request("tools/list"), path)
        assert answer.status_code == 404


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{", 400, -32700),
        (b"\xff", 400, -32700),
        (b"[" * 100_000, 400, -32700),
        ([request("ping")], 400, -32600),
        ({"id": 1, "method": "ping"}, 400, -32600),
        ({"jsonrpc": "2.0", "id": None, "method": "ping"}, 400, -32600),
        ({"jsonrpc": "2.0", "id": {}, "method": "ping"}, 400, -32600),
        ({"jsonrpc": "2.0", "id": 1, "method": "ping", "params": []}, 400, -32600),
        (request("no/such"), 200, -32601),
        (request("tools/call", name="nope"), 200, -32602),
        (request("tools/call", name=["bash"]), 200, -32602),
        (request("tools/call", name="bash", arguments=[1]), 200, -32602),
    ],
)
async def test_bad_messages_are_refused_with_the_code_of_the_specification(mcp, body, status, code):
    answer = await mcp.post(body)
    assert answer.status_code == status
    assert answer.json()["error"]["code"] == code


async def test_a_stateless_request_must_agree_with_its_headers(mcp):
    def ask(version="2026-07-28"):
        meta = {
            "io.modelcontextprotocol/protocolVersion": version,
            "io.modelcontextprotocol/clientCapabilities": {},
        }
        return {**request("tools/list"), "params": {"_meta": meta}}

    right = {"MCP-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/list"}
    assert (await mcp.post(ask(), **right)).json()["result"]["resultType"] == "complete"
    cases = [
        (ask(), {**right, "Mcp-Method": "tools/call"}, -32020),
        (ask(), {"MCP-Protocol-Version": "2026-07-28"}, -32020),
        (ask("2025-11-25"), right, -32020),
        (request("tools/list"), right, -32602),
        (ask("2030-01-01"), {**right, "MCP-Protocol-Version": "2030-01-01"}, -32022),
        (request("tools/list"), {"MCP-Protocol-Version": "2030-01-01"}, -32022),
    ]
    for body, headers, code in cases:
        answer = await mcp.post(body, **headers)
        assert answer.status_code == 400
        assert answer.json()["error"]["code"] == code, headers


async def test_many_clients_at_once_stay_apart(mcp):
    async def one(n: int) -> str:
        async with mcp.client(**{"X-Jupyter-Chat-Id": f"c{n}"}) as client:
            result = await client.call_tool("bash", {"command": f"echo {n}; ls /workspace | wc -l"})
            return text_of(result)

    for n, text in enumerate(await asyncio.gather(*(one(n) for n in range(4)))):
        assert f"{n}\n0\n" in text


async def _sleeps(api, conversation: str) -> int:
    text = await api.bash(conversation, "cat /proc/[0-9]*/comm 2>/dev/null | grep -c '^sleep$'")
    return int(text.split("\n")[0])


async def _until(ask, wanted, within: bool = False, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while True:
        got = await ask()
        if (wanted in got) if within else (got == wanted):
            return
        assert time.monotonic() < deadline, got
