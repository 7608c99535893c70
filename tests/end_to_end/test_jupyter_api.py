"""A conversation as a small Jupyter server: its kernel, sessions and channels, as clients ask."""

from __future__ import annotations

import asyncio
import json
import uuid
from datetime import UTC, datetime
from typing import Any

import pytest
from jupyter_server.services.kernels.connection.base import (
    deserialize_msg_from_ws_v1,
    serialize_msg_to_ws_v1,
)
from tornado.httpclient import HTTPClientError, HTTPRequest
from tornado.websocket import websocket_connect

from jupyter_sandbox.routes.server_info import to_jupyter_time
from tests.conftest import on_each_engine

V1 = "v1.kernel.websocket.jupyter.org"
UNKNOWN = "00000000-0000-4000-8000-000000000000"
KERNEL = "sandbox-python"


@pytest.fixture
def here(api, jp_serverapp, jp_base_url, http_server_client, jp_auth_header):
    return Here(api, jp_serverapp, jp_base_url, http_server_client, jp_auth_header)


class Here:
    """Requests below ``/sandbox/c/{id}/api``."""

    def __init__(self, api, serverapp, base_url, client, auth) -> None:
        self.api = api
        self.app = serverapp.web_app.settings["jupyter_sandbox"]
        self.port = serverapp.port
        self.base_url = base_url
        self._client = client
        self.auth = auth

    async def raw(self, method: str, conversation: str, tail: str, body: Any = None, auth=None):
        sent = json.dumps(body) if body is not None else "" if method in ("POST", "PATCH") else None
        return await self._client.fetch(
            f"{self.base_url}sandbox/c/{conversation}/api{tail}",
            method=method,
            body=sent,
            headers=self.auth if auth is None else auth,
            raise_error=False,
            request_timeout=120,
        )

    async def ask(self, method: str, conversation: str, tail: str, body: Any = None):
        response = await self.raw(method, conversation, tail, body)
        return response.code, json.loads(response.body) if response.body else None

    async def kernel(self, conversation: str) -> str:
        status, model = await self.ask("POST", conversation, "/kernels", {"name": KERNEL})
        assert status == 201, model
        return model["id"]

    async def connect(self, conversation: str, kernel: str, is_v1=True, auth=None) -> Client:
        url = f"ws://127.0.0.1:{self.port}{self.base_url}sandbox/c/{conversation}"
        request = HTTPRequest(
            f"{url}/api/kernels/{kernel}/channels?session_id=s",
            headers=self.auth if auth is None else auth,
        )
        socket = await websocket_connect(
            request, subprotocols=[V1] if is_v1 else None, max_message_size=64 << 20
        )
        assert socket.selected_subprotocol == (V1 if is_v1 else None)
        return Client(socket, is_v1)


class Client:
    """A Jupyter client on a websocket."""

    def __init__(self, socket, is_v1: bool) -> None:
        self.socket = socket
        self._is_v1 = is_v1

    async def send(self, msg_type: str, content: dict, channel: str = "shell") -> str:
        header = {
            "msg_id": uuid.uuid4().hex,
            "msg_type": msg_type,
            "username": "u",
            "session": "s",
            "date": "2026-01-01T00:00:00Z",
            "version": "5.4",
        }
        parts = [header, {}, {}, content]
        if self._is_v1:
            packed = [json.dumps(part).encode() for part in parts]
            await self.socket.write_message(serialize_msg_to_ws_v1(packed, channel), binary=True)
        else:
            names = ("header", "parent_header", "metadata", "content")
            message = {**dict(zip(names, parts, strict=True)), "channel": channel, "buffers": []}
            await self.socket.write_message(json.dumps(message))
        return header["msg_id"]

    async def receive(self) -> tuple[str, dict]:
        data = await asyncio.wait_for(self.socket.read_message(), 60)
        assert data is not None, f"closed: {self.socket.close_code} {self.socket.close_reason}"
        if self._is_v1:
            channel, parts = deserialize_msg_from_ws_v1(data)
            names = ("header", "parent_header", "metadata", "content")
            return channel, dict(zip(names, map(json.loads, parts), strict=False))
        message = json.loads(data)
        return message["channel"], message

    async def run(self, code: str, **content: Any) -> list[dict]:
        """Run a cell; give all its messages but the statuses, the reply last."""
        fields = {"silent": False, "store_history": True, "allow_stdin": False, **content}
        msg_id = await self.send("execute_request", {"code": code, **fields})
        return await self.answers(msg_id)

    async def answers(self, msg_id: str) -> list[dict]:
        got: list[dict] = []
        reply, is_idle = None, False
        while reply is None or not is_idle:
            channel, message = await self.receive()
            if message["parent_header"].get("msg_id") != msg_id:
                continue
            kind = message["header"]["msg_type"]
            if kind == "status":
                is_idle = is_idle or message["content"]["execution_state"] == "idle"
            elif channel == "shell":
                reply = message
            else:
                got.append({"channel": channel, **message})
        return [*got, reply]

    async def end(self) -> int:
        """Read to the end; give its code."""
        while await self.socket.read_message() is not None:
            pass
        return self.socket.close_code

    def close(self) -> None:
        self.socket.close()


def kinds(messages: list[dict]) -> list[str]:
    return [message["header"]["msg_type"] for message in messages]


def text(messages: list[dict]) -> str:
    return "".join(
        message["content"]["text"]
        for message in messages
        if message["header"]["msg_type"] == "stream"
    )


async def test_looking_at_a_new_conversation_starts_nothing(here):
    conversation = await here.api.conversation()
    status, model = await here.ask("GET", conversation, "")
    assert (status, set(model)) == (200, {"version"})
    status, model = await here.ask("GET", conversation, "/status")
    assert (status, model["kernels"], model["connections"]) == (200, 0, 0)
    status, model = await here.ask("GET", conversation, "/kernelspecs")
    spec = model["kernelspecs"][model["default"]]
    assert (spec["name"], spec["spec"]["language"]) == (KERNEL, "python")
    assert "/" not in json.dumps(model)  # nothing of the host
    assert (await here.ask("GET", conversation, f"/kernelspecs/{KERNEL}"))[1] == spec
    assert (await here.ask("GET", conversation, "/kernelspecs/python3"))[0] == 404
    assert await here.ask("GET", conversation, "/kernels") == (200, [])
    assert await here.ask("GET", conversation, "/sessions") == (200, [])
    assert (await here.ask("GET", conversation, "/me"))[1]["identity"]["username"]
    _, model = await here.api.json("GET", "conversations", conversation)
    assert model["state"] == "absent"


def test_a_time_has_a_fraction_even_if_it_is_nought():
    assert to_jupyter_time(datetime(2026, 1, 2, 3, 4, 5, 0, UTC)) == "2026-01-02T03:04:05.000000Z"


async def test_a_conversation_has_one_kernel_that_the_assistant_shares(here, jp_fetch):
    api = here.api
    conversation = await api.conversation()
    kernel = await here.kernel(conversation)
    assert await here.kernel(conversation) == kernel
    await api.text(conversation, "python", code="shared = 41")
    _, [model] = await here.ask("GET", conversation, "/kernels")
    assert (model["id"], model["name"], model["execution_state"]) == (kernel, KERNEL, "idle")
    client = await here.connect(conversation, kernel)
    messages = await client.run("print(shared + 1)")
    assert text(messages) == "42\n"
    assert messages[-1]["content"]["status"] == "ok"
    assert (await here.ask("GET", conversation, "/status"))[1]["connections"] == 1
    await client.run("shared = 'from the notebook'")
    assert "from the notebook" in await api.text(conversation, "python", code="print(shared)")
    client.close()
    # nothing of it in the server's own API
    for part in ("kernels", "sessions", "kernelspecs"):
        response = await jp_fetch("api", part)
        assert kernel not in response.body.decode()
        assert KERNEL not in response.body.decode()


@on_each_engine
@pytest.mark.parametrize("is_v1", [True, False])
async def test_both_subprotocols_carry_output_errors_results_and_input(here, is_v1):
    conversation = await here.api.conversation()
    client = await here.connect(conversation, await here.kernel(conversation), is_v1)
    info = (await client.answers(await client.send("kernel_info_request", {})))[-1]
    assert info["content"]["language_info"]["name"] == "python"
    messages = await client.run("import sys\nprint('ü', file=sys.stderr)\n6 * 7")
    assert kinds(messages) == ["execute_input", "stream", "execute_result", "execute_reply"]
    assert messages[1]["content"] == {"name": "stderr", "text": "ü\n"}
    assert messages[2]["content"]["data"] == {"text/plain": "42"}
    messages = await client.run("1 / 0")
    assert kinds(messages) == ["execute_input", "error", "execute_reply"]
    assert messages[1]["content"]["ename"] == "ZeroDivisionError"
    reply = (
        await client.answers(
            await client.send("complete_request", {"code": "prin", "cursor_pos": 4})
        )
    )[-1]
    assert "print" in reply["content"]["matches"]
    msg_id = await client.send(
        "execute_request", {"code": "print(input('name? '))", "allow_stdin": True}
    )
    while True:
        channel, message = await client.receive()
        if channel == "stdin":
            break
    assert message["content"] == {"prompt": "name? ", "password": False}
    await client.send("input_reply", {"value": "Ada"}, channel="stdin")
    assert text(await client.answers(msg_id)) == "Ada\n"
    client.close()


async def test_what_could_run_in_the_page_does_not_pass(here):
    conversation = await here.api.conversation()
    client = await here.connect(conversation, await here.kernel(conversation))
    code = """
from IPython.display import display, HTML, Javascript, SVG, Markdown
display(HTML("<b>ok</b><script>x()</script><img src=x onerror=x()>"))
display(Javascript("x()"))
display(SVG('<svg xmlns="http://www.w3.org/2000/svg" onload="x()"/>'))
display(Markdown("**m** ![x](https://evil.example/)"))
display({"application/vnd.evil+json": {}, "text/plain": "plain"}, raw=True)
from IPython import get_ipython
k = get_ipython().kernel
k.session.send(k.iopub_socket, "comm_open", {"comm_id": "c", "target_name": "t", "data": {}},
               parent=k.get_parent())
"""
    messages = await client.run(code)
    shown = [m["content"]["data"] for m in messages if m["header"]["msg_type"] == "display_data"]
    everything = json.dumps(messages[1:])
    assert shown[0]["text/html"].startswith("<b>ok</b>")
    assert list(shown[1]) == ["text/plain"]
    assert "data:image/svg+xml;base64," in shown[2]["text/html"]
    assert "<strong>m</strong>" in shown[3]["text/html"]
    assert shown[4] == {"text/plain": "plain"}
    assert "comm_open" not in kinds(messages)
    for word in ("<script", "onerror", "evil", "application/javascript"):
        assert word not in everything, word
    client.close()


@pytest.mark.parametrize("sandbox_config", [{"SandboxApp": {"trust_outputs": True}}])
async def test_an_administrator_may_let_everything_pass(here):
    conversation = await here.api.conversation()
    client = await here.connect(conversation, await here.kernel(conversation))
    messages = await client.run("from IPython.display import Javascript; Javascript('x()')")
    assert "application/javascript" in messages[1]["content"]["data"]
    client.close()


LARGE = """
from IPython import get_ipython
k = get_ipython().kernel
for _ in range(3):
    k.session.send(k.iopub_socket, 'stream', {'name': 'stdout', 'text': 'x' * 6_000_000},
                   parent=k.get_parent())
"""


@pytest.mark.parametrize(
    "code", ["print('x' * 20_000_000)", "for _ in range(1_000_000): print('x')", LARGE]
)
async def test_output_is_capped_at_a_mebibyte_with_the_notice(here, code):
    conversation = await here.api.conversation()
    client = await here.connect(conversation, await here.kernel(conversation))
    messages = await client.run(code)
    shown = text(messages)
    assert "... output truncated (exceeded 1 MiB) ..." in shown
    assert len(shown) < 1_048_576 + 2000
    assert messages[-1]["content"]["status"] == "ok"
    assert text(await client.run("print('next')")) == "next\n"
    client.close()


@on_each_engine
async def test_interrupt_restart_and_the_end_of_a_kernel(here):
    api = here.api
    conversation = await api.conversation()
    kernel = await here.kernel(conversation)
    client = await here.connect(conversation, kernel)
    msg_id = await client.send(
        "execute_request", {"code": "import time; print('go', flush=True); time.sleep(99)"}
    )
    while (await client.receive())[1]["content"].get("text") != "go\n":
        pass
    assert (await here.ask("GET", conversation, f"/kernels/{kernel}"))[1][
        "execution_state"
    ] == "busy"
    assert (await here.raw("POST", conversation, f"/kernels/{kernel}/interrupt")).code == 204
    messages = await client.answers(msg_id)
    assert messages[-1]["content"]["ename"] == "KeyboardInterrupt"
    await client.run("a = 1")
    status, model = await here.ask("POST", conversation, f"/kernels/{kernel}/restart")
    assert (status, model["id"]) == (200, kernel)
    second = await here.connect(conversation, kernel)
    messages = await second.run("print('a' in globals())")
    assert text(messages) == "False\n"
    second.close()
    client.close()
    assert (await here.raw("DELETE", conversation, f"/kernels/{kernel}")).code == 204
    assert await here.ask("GET", conversation, "/kernels") == (200, [])
    assert (await here.ask("GET", conversation, f"/kernels/{kernel}"))[0] == 404
    shown = await api.text(conversation, "python", code="print(7)")
    assert "restarted" in shown
    assert "7\n" in shown


async def test_a_client_that_connects_is_told_the_state_before_it_asks(here):
    conversation = await here.api.conversation()
    kernel = await here.kernel(conversation)
    first = await here.connect(conversation, kernel)
    assert await told_state(first) == "idle"
    msg_id = await first.send("execute_request", {"code": "print(input())", "allow_stdin": True})
    while (await first.receive())[0] != "stdin":
        pass
    second = await here.connect(conversation, kernel)
    assert await told_state(second) == "busy"
    await first.send("input_reply", {"value": "on"}, channel="stdin")
    assert text(await first.answers(msg_id)) == "on\n"
    first.close()
    second.close()


async def told_state(client: Client) -> str:
    """Give the first state that JupyterLab would believe: no answer to what a client asked."""
    while True:
        channel, message = await client.receive()
        if channel == "iopub" and not message["parent_header"]:
            assert message["header"]["msg_type"] == "status"
            return message["content"]["execution_state"]


@on_each_engine
async def test_a_kernel_that_dies_is_started_again_and_its_clients_are_told(here):
    conversation = await here.api.conversation()
    kernel = await here.kernel(conversation)
    client = await here.connect(conversation, kernel)
    await client.run("a = 1")
    await client.send("execute_request", {"code": "import os; os._exit(3)"})
    while True:
        _, message = await client.receive()
        if message["content"].get("execution_state") == "restarting":
            break
    messages = await client.run("print('a' in globals())")
    assert text(messages) == "False\n"
    client.close()


async def test_sessions_come_and_go_and_the_kernel_stays(here):
    conversation = await here.api.conversation()
    body = {"path": "a.ipynb", "name": "a", "type": "notebook", "kernel": {"name": KERNEL}}
    status, session = await here.ask("POST", conversation, "/sessions", body)
    assert (status, session["path"], session["kernel"]["name"]) == (201, "a.ipynb", KERNEL)
    assert (await here.ask("POST", conversation, "/sessions", body))[1]["id"] == session["id"]
    other = {**body, "path": "b.ipynb", "kernel": {"id": session["kernel"]["id"]}}
    status, second = await here.ask("POST", conversation, "/sessions", other)
    assert (status, second["kernel"]["id"]) == (201, session["kernel"]["id"])
    at = f"/sessions/{session['id']}"
    status, changed = await here.ask("PATCH", conversation, at, {"path": "c.ipynb"})
    assert (status, changed["path"], changed["notebook"]["path"]) == (200, "c.ipynb", "c.ipynb")
    assert (await here.ask("GET", conversation, at))[1]["path"] == "c.ipynb"
    assert len((await here.ask("GET", conversation, "/sessions"))[1]) == 2
    assert (await here.raw("DELETE", conversation, at)).code == 204
    assert (await here.ask("GET", conversation, at))[0] == 404
    assert len((await here.ask("GET", conversation, "/kernels"))[1]) == 1
    for bad, code in (
        ({}, 400),
        ({"path": 3, "type": "notebook"}, 422),
        ({**body, "path": "d", "kernel": 3}, 400),
        ({**body, "path": "d", "kernel": {"name": "julia"}}, 422),
        ({**body, "path": "d", "kernel": {"id": UNKNOWN}}, 404),
        ({**body, "path": "d\n"}, 422),
    ):
        assert (await here.ask("POST", conversation, "/sessions", bad))[0] == code, bad


async def test_garbage_on_the_websocket_closes_it_and_harms_nobody(here):
    conversation = await here.api.conversation()
    kernel = await here.kernel(conversation)
    good = await here.connect(conversation, kernel)
    for is_v1, data in (
        (True, b""),
        (True, b"\xff" * 100),
        (True, "text"),
        (True, (6).to_bytes(8, "little") + (2**60).to_bytes(8, "little") * 6),
        (False, "{"),
        (False, "[]"),
        (False, '{"header": 3}'),
        (False, '{"channel": {}}'),
        (False, b"\x00\x00"),
        (False, b"\x7f\xff\xff\xff"),
    ):
        client = await here.connect(conversation, kernel, is_v1)
        await client.socket.write_message(data, binary=isinstance(data, bytes))
        async with asyncio.timeout(30):
            while await client.socket.read_message() is not None:
                pass
        assert client.socket.close_code == 1007, data
    assert text(await good.run("print(1)")) == "1\n"
    good.close()


async def test_so_many_clients_and_no_more(here):
    conversation = await here.api.conversation()
    kernel = await here.kernel(conversation)
    clients = [await here.connect(conversation, kernel) for _ in range(13)]
    ends = [asyncio.ensure_future(client.end()) for client in clients]
    await asyncio.wait(ends, timeout=60, return_when=asyncio.FIRST_COMPLETED)
    assert [each.result() for each in ends if each.done()] == [1013]
    async with asyncio.timeout(60):
        while (await here.ask("GET", conversation, "/status"))[1]["connections"] < 12:
            await asyncio.sleep(0.05)
    for client in clients:
        client.close()
    async with asyncio.timeout(30):
        while (await here.ask("GET", conversation, "/status"))[1]["connections"]:
            await asyncio.sleep(0.05)


async def test_foreign_and_missing_answer_alike_on_every_route(here):
    conversation = await here.api.conversation()
    kernel = await here.kernel(conversation)
    body = {"path": "a", "type": "notebook", "kernel": {"name": KERNEL}}
    _, session = await here.ask("POST", conversation, "/sessions", body)
    database = (await here.app.ready()).database
    foreign, _ = await database.create_conversation("somebody else", "", None)
    for method, tail in (
        ("GET", ""),
        ("GET", "/status"),
        ("GET", "/me"),
        ("GET", "/kernelspecs"),
        ("GET", f"/kernelspecs/{KERNEL}"),
        ("GET", "/kernels"),
        ("POST", "/kernels"),
        ("GET", f"/kernels/{kernel}"),
        ("DELETE", f"/kernels/{kernel}"),
        ("POST", f"/kernels/{kernel}/interrupt"),
        ("POST", f"/kernels/{kernel}/restart"),
        ("GET", f"/kernels/{kernel}/channels"),
        ("GET", "/sessions"),
        ("POST", "/sessions"),
        ("GET", f"/sessions/{session['id']}"),
        ("PATCH", f"/sessions/{session['id']}"),
        ("DELETE", f"/sessions/{session['id']}"),
    ):
        answers = []
        for other in (foreign.conversation_id, UNKNOWN):
            response = await here.raw(method, other, tail)
            skipped = ("Date", "Set-Cookie")
            headers = {k: v for k, v in response.headers.get_all() if k not in skipped}
            answers.append((response.code, response.body, headers))
        assert answers[0] == answers[1], (method, tail)
        assert answers[0][0] == 404, (method, tail)
        anonymous = await here.raw(method, conversation, tail, auth={})
        assert anonymous.code == 401, (method, tail)
    for other, kernel_id in ((conversation, UNKNOWN), (UNKNOWN, kernel)):
        with pytest.raises(HTTPClientError) as refused:
            await here.connect(other, kernel_id)
        assert refused.value.code == 404
    with pytest.raises(HTTPClientError) as refused:
        await here.connect(conversation, kernel, auth={})
    assert refused.value.code == 401
    with pytest.raises(HTTPClientError) as refused:
        await here.connect(
            conversation, kernel, auth={"Cookie": "x=y", "Origin": "https://evil.example"}
        )
    assert refused.value.code in (401, 403, 404)
    assert len((await here.ask("GET", conversation, "/sessions"))[1]) == 1


@pytest.mark.own_server
async def test_when_the_feature_is_switched_off_an_open_websocket_begins_nothing_new(
    here, server_dir
):
    conversation = await here.api.conversation()
    client = await here.connect(conversation, await here.kernel(conversation))
    await client.run("1")
    policy = server_dir / "data" / "policy.json"
    policy.write_text(json.dumps({"flags": {"chat_sandbox": {"value": False}}}))
    async with asyncio.timeout(30):
        while (await here.raw("GET", conversation, "/kernels")).code != 503:
            await asyncio.sleep(0.05)
    await client.send("execute_request", {"code": "print(1)"})
    assert await asyncio.wait_for(client.socket.read_message(), 30) is None
    assert client.socket.close_code == 1008


async def test_an_open_notebook_finds_session_kernel_and_variables_on_the_next_server(here):
    conversation = await here.api.conversation()
    body = {"path": "a.ipynb", "name": "a", "type": "notebook", "kernel": {"name": KERNEL}}
    _, session = await here.ask("POST", conversation, "/sessions", body)
    kernel = session["kernel"]["id"]
    client = await here.connect(conversation, kernel)
    await client.run("x = 42")
    await here.app.stop_extension()  # the next request builds all parts anew, as a new server does
    client.close()

    _, listed = await here.ask("GET", conversation, "/sessions")
    assert [(each["id"], each["path"], each["kernel"]["id"]) for each in listed] == [
        (session["id"], "a.ipynb", kernel)
    ]
    status, found = await here.ask("GET", conversation, f"/sessions/{session['id']}")
    assert (status, found["id"], found["kernel"]["id"]) == (200, session["id"], kernel)
    assert (await here.ask("GET", conversation, f"/kernels/{kernel}"))[0] == 200
    assert (await here.ask("POST", conversation, "/sessions", body))[1]["id"] == session["id"]
    client = await here.connect(conversation, kernel)
    assert text(await client.run("print(x)")) == "42\n"
    client.close()


async def test_a_suspended_kernel_keeps_its_sessions_and_is_not_woken_by_looking(here):
    conversation = await here.api.conversation()
    body = {"path": "a.ipynb", "name": "a", "type": "notebook", "kernel": {"name": KERNEL}}
    _, session = await here.ask("POST", conversation, "/sessions", body)
    status, _ = await here.api.json("POST", "conversations", conversation, "suspend")
    assert status < 300
    _, listed = await here.ask("GET", conversation, "/sessions")
    assert [each["id"] for each in listed] == [session["id"]]
    assert (await here.ask("GET", conversation, f"/kernels/{session['kernel']['id']}"))[0] == 200
    _, model = await here.api.json("GET", "conversations", conversation)
    assert model["state"] == "suspended"
    await here.api.bash(conversation, "true")
    assert (await here.ask("GET", conversation, "/sessions"))[1][0]["id"] == session["id"]
    assert (
        await here.raw("DELETE", conversation, f"/kernels/{session['kernel']['id']}")
    ).code == 204
    assert (await here.ask("GET", conversation, "/sessions"))[1] == []
