"""A websocket client that vanishes: no FIN, no answer to pings. The server lets go of it."""

from __future__ import annotations

import asyncio
import base64
import os
from urllib.parse import urlsplit

import pytest

from .conftest import Held, eventually
from .table import fault


@pytest.fixture(params=[pytest.param("bubblewrap", marks=pytest.mark.bubblewrap)])
def engine_name(request):
    return request.param


@pytest.fixture
def connect(jp_serverapp, jp_base_url, jp_http_port, jp_auth_header):
    """Open a websocket by hand, over which nothing is said any more."""

    async def open_websocket(*parts: str):
        reader, writer = await asyncio.open_connection("127.0.0.1", jp_http_port)
        path = urlsplit(jp_base_url).path + "/".join(parts)
        head = [
            f"GET {path} HTTP/1.1",
            f"Host: 127.0.0.1:{jp_http_port}",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}",
            "Sec-WebSocket-Version: 13",
            *(f"{name}: {value}" for name, value in jp_auth_header.items()),
        ]
        writer.write(("\r\n".join(head) + "\r\n\r\n").encode())
        line = await reader.readline()
        assert b"101" in line, line
        return reader, writer

    return open_websocket


@fault("websocket-vanishes")
@pytest.mark.own_server
async def test_a_websocket_of_a_client_that_vanished_is_closed(api, app, jp_serverapp, connect):
    jp_serverapp.web_app.settings["ws_ping_interval"] = 200  # ms; 30 s by default
    jp_serverapp.web_app.settings["ws_ping_timeout"] = 1000  # 90 s by default
    conversation = await api.conversation()
    await api.text(conversation, "python", code="1")
    services = await app.ready()
    held = Held()
    kernel_id = services.conversations.live(conversation).sandbox.python.kernel_id
    opened = [
        await connect("sandbox", "api", "conversations", conversation, "messages"),
        await connect("sandbox", "c", conversation, "api", "kernels", kernel_id, "channels"),
    ]
    kernel = services.kernels.of(services.conversations.live(conversation))
    await eventually(lambda: len(kernel._clients) == 1)
    assert "of 1 " in repr(services.message_feeds)
    await eventually(lambda: not kernel._clients)
    await eventually(lambda: "of 0 " in repr(services.message_feeds))
    for _, writer in opened:
        writer.close()
    assert "hello\n[exit code 0" in await api.bash(conversation, "echo hello")
    await held.is_back(slack=8)
