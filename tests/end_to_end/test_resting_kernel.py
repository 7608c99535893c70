"""Notebooks that are open while their sandbox is suspended: the kernel is there, and goes on."""

from __future__ import annotations

import asyncio

import pytest

from tests.conftest import on_each_engine
from tests.end_to_end.test_jupyter_api import Here, text
from tests.idle_clock import IdleClock

QUARTER = 15 * 60


@pytest.fixture
def here(api, jp_serverapp, jp_base_url, http_server_client, jp_auth_header):
    return Here(api, jp_serverapp, jp_base_url, http_server_client, jp_auth_header)


async def state(here, conversation: str) -> str:
    return (await here.api.json("GET", "conversations", conversation))[1]["state"]


async def until_connected(here, conversation: str, count: int) -> None:
    services = await here.app.ready()
    kernel = services.kernels.of(services.conversations.live(conversation))
    async with asyncio.timeout(30):
        while sum(client._channels is not None for client in kernel._clients) != count:
            await asyncio.sleep(0.02)


@on_each_engine
async def test_an_open_notebook_goes_on_after_an_idle_suspend_with_its_variables(here):
    conversation = await here.api.conversation()
    kernel = await here.kernel(conversation)
    client = await here.connect(conversation, kernel)
    await client.run("x = 41")
    clock = await IdleClock.of(here.app)
    clock.pass_time(QUARTER)
    await clock.look()
    clock.pass_time(20)
    await clock.look()
    assert await state(here, conversation) == "suspended"

    _, [model] = await here.ask("GET", conversation, "/kernels")
    assert (model["id"], model["execution_state"], model["connections"]) == (kernel, "idle", 1)
    assert (await here.ask("GET", conversation, f"/kernels/{kernel}"))[0] == 200
    [info] = await client.answers(await client.send("kernel_info_request", {}))
    assert info["content"]["language_info"]["name"] == "python"
    [refused] = await client.answers(
        await client.send("complete_request", {"code": "x", "cursor_pos": 1})
    )
    assert refused["header"]["msg_type"] == "complete_reply"
    assert refused["content"]["status"] == "error"
    assert await state(here, conversation) == "suspended", "looking wakes nothing"

    assert text(await client.run("print(x + 1)")) == "42\n"
    assert await state(here, conversation) == "running"
    [info] = await client.answers(await client.send("kernel_info_request", {}))
    assert info["content"]["implementation_version"], "the kernel's own answer again"
    client.close()


async def test_a_kernel_that_is_woken_between_two_looks_is_on_the_list(here, monkeypatch):
    conversation = await here.api.conversation()
    kernel = await here.kernel(conversation)
    await here.api.json("POST", "conversations", conversation, "suspend")
    live = (await here.app.ready()).conversations.live(conversation)
    asked = live.suspended_sandbox

    async def woken_just_now() -> str:
        monkeypatch.setattr(live, "suspended_sandbox", asked)
        async with live.use():
            return await asked()

    monkeypatch.setattr(live, "suspended_sandbox", woken_just_now)
    _, models = await here.ask("GET", conversation, "/kernels")
    assert [model["id"] for model in models] == [kernel]


async def test_a_notebook_that_is_opened_while_it_stands_wakes_it_with_its_first_cell(here):
    conversation = await here.api.conversation()
    kernel = await here.kernel(conversation)
    await here.api.text(conversation, "python", code="x = 41")
    await here.api.json("POST", "conversations", conversation, "suspend")
    services = await here.app.ready()
    await services.conversations.live(conversation).detach()  # as after a restart of the server
    status, session = await here.ask(
        "POST",
        conversation,
        "/sessions",
        {"path": "a.ipynb", "name": "", "type": "notebook", "kernel": {"id": kernel}},
    )
    assert status == 201, session
    client = await here.connect(conversation, kernel)
    [info] = await client.answers(await client.send("kernel_info_request", {}))
    assert info["content"]["language_info"]["file_extension"] == ".py"
    assert (await here.ask("GET", conversation, "/sessions"))[1][0]["kernel"]["id"] == kernel
    assert await state(here, conversation) == "suspended"
    assert text(await client.run("print(x + 1)")) == "42\n"
    assert await state(here, conversation) == "running"
    client.close()


class TestWithOneEngine:
    @pytest.fixture
    def engine_name(self):
        return "bubblewrap"

    @pytest.mark.parametrize("attached", [True, False], ids=["attached", "let-go"])
    async def test_when_the_assistant_wakes_it_all_notebooks_follow_again(self, here, attached):
        conversation = await here.api.conversation()
        kernel = await here.kernel(conversation)
        clients = [await here.connect(conversation, kernel, is_v1) for is_v1 in (True, False)]
        await here.api.json("POST", "conversations", conversation, "suspend")
        services = await here.app.ready()
        if not attached:
            await services.conversations.live(conversation).let_go_if_resting()
        assert "1" in await here.api.text(conversation, "python", code="print(1)")
        await until_connected(here, conversation, 2)
        for one, other in (clients, clients[::-1]):
            await one.run("print('seen by both')")
            seen = ""  # a line may come in two messages
            async with asyncio.timeout(30):
                while "seen by both\n" not in seen:
                    _, message = await other.receive()
                    seen += message["content"].get("text", "")
        for client in clients:
            client.close()

    async def test_its_kernel_restarts_itself_after_a_rest_too(self, here):
        conversation = await here.api.conversation()
        kernel = await here.kernel(conversation)
        client = await here.connect(conversation, kernel)
        await here.api.json("POST", "conversations", conversation, "suspend")
        await client.run("x = 1")
        await client.send("execute_request", {"code": "import os; os.kill(os.getpid(), 9)"})
        async with asyncio.timeout(60):
            while True:
                _, message = await client.receive()
                if message["content"].get("execution_state") == "restarting":
                    break
        assert text(await client.run("print('x' in globals())")) == "False\n"
        client.close()

    async def test_what_is_ended_by_time_lets_its_notebooks_go(self, here):
        conversation = await here.api.conversation()
        kernel = await here.kernel(conversation)
        client = await here.connect(conversation, kernel)
        clock = await IdleClock.of(here.app)
        clock.pass_time(31 * 86400)
        await clock.look()
        clock.pass_time(20)
        await clock.look()
        assert await state(here, conversation) == "terminated"
        await asyncio.wait_for(client.end(), 30)
        assert (await here.ask("GET", conversation, f"/kernels/{kernel}"))[0] == 404
        assert await here.ask("GET", conversation, "/kernels") == (200, [])

    async def test_what_another_server_suspended_is_known_here_and_woken_by_a_cell(self, here):
        conversation = await here.api.conversation()
        kernel = await here.kernel(conversation)
        client = await here.connect(conversation, kernel)
        await client.run("x = 41")
        services = await here.app.ready()
        records = services.idling._records
        seen = await services.database.conversation(conversation)
        assert await records.suspend(seen, "by hand", "another")
        await services.engine.pause(seen.sandbox_id)
        await records.frozen(seen, "another")
        await services.idling.note_uses()
        _, [model] = await asyncio.wait_for(here.ask("GET", conversation, "/kernels"), 5)
        assert model["id"] == kernel
        assert text(await client.run("print(x + 1)")) == "42\n"
        client.close()
