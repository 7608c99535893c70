"""Processes beside the server: the egress proxy and the worker of previews are killed or stopped."""

from __future__ import annotations

import asyncio
import logging
import os
import signal

import pytest

from jupyter_sandbox.policy.egress_rules import EgressRules
from jupyter_sandbox.previews import rendering
from jupyter_sandbox.previews.rendering import Renderer
from jupyter_sandbox.proxies import egress
from jupyter_sandbox.proxies.egress import EgressProxy

from .conftest import eventually
from .table import fault

LOG = logging.getLogger(__name__)


@pytest.fixture
def proxy(jp_asyncio_loop, monkeypatch):
    monkeypatch.setattr(egress, "_WATCH_SECONDS", 0.5)
    monkeypatch.setattr(egress, "_ANSWER_SECONDS", 2.0)
    proxy = EgressProxy(EgressRules(()), LOG)
    jp_asyncio_loop.run_until_complete(proxy.start())
    yield proxy
    jp_asyncio_loop.run_until_complete(proxy.stop())


@fault("egress-killed")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
async def test_an_egress_proxy_that_is_killed_or_stopped_is_replaced(proxy, short_dir, number):
    await proxy.open("a" * 12, "conversation", short_dir / "a.sock")
    before = proxy.pid
    os.kill(before, number)
    await eventually(lambda: proxy.pid not in (None, before))
    assert not os.path.exists(f"/proc/{before}")
    # It has the sockets of all sandboxes again, without being asked.
    await proxy.settle()
    reader, writer = await asyncio.open_unix_connection(str(short_dir / "a.sock"))
    writer.write(b"CONNECT blocked.example:443 HTTP/1.1\r\nHost: blocked.example:443\r\n\r\n")
    async with asyncio.timeout(10):
        assert b" 403 " in await reader.readline()
    writer.close()


@fault("preview-worker-killed")
async def test_a_preview_whose_worker_is_killed_shows_the_source_and_the_next_is_rendered(
    monkeypatch, tmp_path
):
    renderer = Renderer(LOG)
    begun = tmp_path / "begun"
    body = f"import os, time; open({str(begun)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    try:
        with monkeypatch.context() as patched:
            patched.setattr(rendering, "WORKER", ("-c", body))
            work = asyncio.ensure_future(renderer.render("markdown", "a.md", "# x"))
            await eventually(lambda: begun.exists() and begun.read_text())
        os.kill(int(begun.read_text()), signal.SIGKILL)
        assert await asyncio.wait_for(work, 5) is None
        assert "<h1" in await asyncio.wait_for(renderer.render("markdown", "a.md", "# x"), 20)
    finally:
        await renderer.close()
