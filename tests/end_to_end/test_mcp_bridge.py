"""``jupyter sandbox mcp``: what a desktop client starts, driven by the official SDK's client."""

from __future__ import annotations

import asyncio
import json
import os
import sys

import pytest
from mcp import Client, StdioServerParameters

from tests.end_to_end.test_mcp import ERAS, request, text_of

COMMAND = [sys.executable, "-m", "jupyter_sandbox.cli.app", "mcp"]


@pytest.fixture(params=[pytest.param("bubblewrap", marks=pytest.mark.bubblewrap)])
def engine_name(request):
    """The bridge never meets an engine: one shows it."""
    return request.param


@pytest.fixture
def server_url(jp_serverapp, api):
    return f"http://127.0.0.1:{jp_serverapp.port}{jp_serverapp.base_url}"


@pytest.fixture
def token(jp_serverapp):
    return jp_serverapp.identity_provider.token


def environment(token: str) -> dict[str, str]:
    return {**os.environ, "JUPYTER_TOKEN": token}


@pytest.mark.parametrize(("mode", "version"), ERAS)
async def test_a_desktop_client_works_through_it(server_url, token, mode, version):
    parameters = StdioServerParameters(
        command=COMMAND[0], args=[*COMMAND[1:], "--url", server_url], env=environment(token)
    )
    async with Client(parameters, mode=mode) as client:
        assert client.protocol_version == version
        first = await client.call_tool("bash", {"command": "echo 'é\u2028ü' > a; cat a"})
        assert "é\u2028ü\n" in text_of(first)
        results = await asyncio.gather(
            *(client.call_tool("bash", {"command": f"echo {n}"}) for n in range(5))
        )
        assert [text_of(result).split("\n")[0] for result in results] == list("01234")


async def test_progress_comes_through(server_url, token):
    told = []

    async def progress(done, total, message):
        told.append(message)

    parameters = StdioServerParameters(
        command=COMMAND[0], args=[*COMMAND[1:], "--url", server_url], env=environment(token)
    )
    async with Client(parameters) as client:
        await client.call_tool("bash", {"command": "echo one; sleep 8"}, progress_callback=progress)
    assert told[0] == "one"


async def test_the_same_key_finds_the_same_sandbox(server_url, token, api):
    call = request("tools/call", name="bash", arguments={"command": "echo here > marker"})
    await exchange(["--url", server_url, "--chat", "desk"], token, [call])
    conversation = await api.conversation(key="desk")
    assert (await api.bash(conversation, "cat marker")).startswith("here\n")


async def test_what_goes_wrong_is_the_answer_to_its_request(server_url, token):
    (wrong,) = await exchange(["--url", server_url], "wrong", [request("ping", 5)])
    assert wrong["id"] == 5
    assert "answered 40" in wrong["error"]["message"]
    (broken,) = await exchange(["--url", server_url], token, [b"{nonsense"])
    assert broken["error"]["code"] == -32700
    (down,) = await exchange(["--url", "http://127.0.0.1:9/"], token, [request("ping", 6)])
    assert "cannot be reached" in down["error"]["message"]


async def test_without_a_server_it_says_so_on_stderr(tmp_path):
    env = {**os.environ, "JUPYTER_RUNTIME_DIR": str(tmp_path)}
    process = await asyncio.create_subprocess_exec(
        *COMMAND, env=env, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await asyncio.wait_for(process.communicate(), 30)
    assert (process.returncode, out) == (1, b"")
    assert b"no Jupyter Server of this user runs" in err


async def exchange(arguments: list[str], token: str, messages: list) -> list[dict]:
    process = await asyncio.create_subprocess_exec(
        *COMMAND,
        *arguments,
        env=environment(token),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=2**24,
    )
    lines = [m if isinstance(m, bytes) else json.dumps(m).encode() for m in messages]
    out, _ = await asyncio.wait_for(process.communicate(b"\n".join(lines) + b"\n"), 60)
    return [json.loads(line) for line in out.splitlines()]
