"""The warm pool: first calls get sandboxes that were ready, each once; what is not fit is ended."""

from __future__ import annotations

import asyncio
import contextlib
import time

import pytest
from prometheus_client import REGISTRY

from jupyter_sandbox.app import SandboxApp
from jupyter_sandbox.engines.base import EngineState
from jupyter_sandbox.errors import SandboxError, Unavailable
from jupyter_sandbox.policy.memory import Level
from tests.conftest import on_each_engine, text_of

SECONDS = 60


pytestmark = pytest.mark.own_server


@pytest.fixture
def size() -> int:
    return 1


def lifecycle(size: int) -> dict[str, int]:
    """Give settings of a pool that does not mind how much memory this host has left."""
    return {
        "warm_pool_size": size,
        "python_kernel": "eager",
        "memory_low_bytes": 1,
        "memory_stalled_percent": 0,
    }


@pytest.fixture
def sandbox_config(size):
    return {"SandboxLifecycle": lifecycle(size)}


async def services_of(app):
    return await app.web_app.settings["jupyter_sandbox"].ready()


async def a_full_pool(services, size: int = 1, without: str = ""):
    """Wait for so many spare sandboxes, ``without`` not among them; give the pool."""
    pool = services.warm_pool
    async with asyncio.timeout(SECONDS):
        while len(pool.ready) != size or without in pool.ready:
            await asyncio.sleep(0.02)
    return pool


async def no_engine_sandbox(services, sandbox_id: str) -> None:
    async with asyncio.timeout(SECONDS):
        while await services.engine.inspect(sandbox_id) is not None:
            await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def another_server(jp_serverapp):
    """A second server process of the same installation, but for the process."""
    app = SandboxApp(config=jp_serverapp.config)
    app.serverapp = jp_serverapp
    app.initialize_settings()
    services = await app.ready()
    try:
        yield services
    finally:
        await app.stop_extension()


def takes(outcome: str) -> float:
    name = "jupyter_sandbox_pool_takes_total"
    return REGISTRY.get_sample_value(name, {"outcome": outcome}) or 0.0


@on_each_engine
async def test_a_first_call_gets_a_ready_sandbox_with_the_conversations_own_things(
    api, jp_serverapp
):
    services = await services_of(jp_serverapp)
    pool = await a_full_pool(services)
    [ready] = pool.ready
    hits = takes("hit")
    conversation = await api.conversation()
    await api.raw("PUT", "conversations", conversation, "uploads", "a.txt", body=b"uploaded")

    result = await api.bash(conversation, "cat /mnt/user-data/uploads/a.txt; pwd; ls -A")
    assert "[New sandbox" in result
    assert "uploaded/workspace\n[exit code 0" in result
    record = await services.database.conversation(conversation)
    assert (record.sandbox_id, record.state, record.generation) == (ready, "running", 1)
    assert takes("hit") == hits + 1

    age = "import os, time; print(time.time() - os.stat(f'/proc/{os.getpid()}').st_mtime >= 0)"
    assert "True" in await api.text(conversation, "python", code=age)
    await a_full_pool(services, without=ready)  # another is made in its place
    status, page = await api.json("GET", "conversations", conversation, "messages")
    assert status == 200
    assert "[New sandbox" in str(page)


async def test_shared_files_are_in_place_when_a_ready_sandbox_follows_a_terminated_one(
    api, jp_serverapp
):
    services = await services_of(jp_serverapp)
    conversation = await api.conversation()
    out = "/mnt/user-data/outputs"
    await api.bash(conversation, f"mkdir {out}/d; echo kept > {out}/d/a.txt; echo x > /tmp/gone")
    await api.call(conversation, "share_files", paths=[f"{out}/d/a.txt"])
    await api.json("POST", "conversations", conversation, "terminate")
    [ready] = (await a_full_pool(services)).ready
    result = await api.bash(conversation, f"cat {out}/d/a.txt; ls /tmp/gone")
    assert "The previous sandbox is gone" in result
    assert "kept" in result
    assert "No such file" in result
    assert (await services.database.conversation(conversation)).sandbox_id == ready


async def test_the_first_python_call_uses_the_kernel_that_was_started_before(api, jp_serverapp):
    services = await services_of(jp_serverapp)
    pool = await a_full_pool(services)
    asked_at = time.time()
    conversation = await api.conversation()
    await api.text(conversation, "python", code="x = 1")
    sandbox = services.conversations.live(conversation).sandbox
    frame = await sandbox.link.request("control", {"op": "status"})
    [kernel] = frame.body["ok"]["kernels"]
    assert kernel["started_at"] < asked_at
    assert sandbox.sandbox_id not in pool.ready


class TestTheWayOut:
    @pytest.fixture
    def sandbox_config(self, size):
        return {
            "SandboxLifecycle": lifecycle(size),
            "SandboxEgress": {"allow_hosts": ["allowed.example"]},
        }

    async def test_there_is_none_before_the_sandbox_is_somebodys_and_then_it_is_theirs(
        self, api, jp_serverapp, server_dir
    ):
        services = await services_of(jp_serverapp)
        [ready] = (await a_full_pool(services)).ready
        egress = server_dir / "run" / ready[:12] / "egress"
        way_out = services.conversations._around.sandboxes.way_out
        assert list(egress.iterdir()) == []
        assert ready not in way_out._openings
        conversation = await api.conversation()
        # The first command finds it: nobody has to wait or ask again.
        result = await api.bash(conversation, "curl -sS https://blocked.example/")
        assert "Network access to blocked.example:443 was refused" in result
        assert (await services.database.conversation(conversation)).sandbox_id == ready
        assert way_out._openings[ready].conversation_id == conversation
        [denial] = way_out._proxy.denials(conversation, 0.0)
        assert "blocked.example" in denial.text


class TestManyAtOnce:
    @pytest.fixture
    def size(self):
        return 5

    async def test_twenty_first_calls_get_twenty_sandboxes_and_the_pool_is_full_again(
        self, api, jp_serverapp
    ):
        services = await services_of(jp_serverapp)
        ready = list((await a_full_pool(services, 5)).ready)
        conversations = [await api.conversation() for _ in range(20)]
        results = await asyncio.gather(
            *(api.bash(each, f"echo {n} > n; cat n") for n, each in enumerate(conversations))
        )
        for n, result in enumerate(results):
            assert f"\n{n}\n[exit code 0" in result
        records = [await services.database.conversation(each) for each in conversations]
        ids = [record.sandbox_id for record in records]
        assert len(set(ids)) == 20
        assert set(ready) < set(ids)
        pool = await a_full_pool(services, 5)
        assert not set(pool.ready) & set(ids)
        found = {each.sandbox_id for each in await services.conversations._around.sandboxes.list()}
        assert found == set(ids) | set(pool.ready)


async def test_spares_that_were_killed_or_removed_are_replaced_and_never_given(api, jp_serverapp):
    services = await services_of(jp_serverapp)
    pool = await a_full_pool(services)
    [first] = pool.ready
    await services.engine.remove(first)
    conversation = await api.conversation()
    result = await api.bash(conversation, "echo works")  # by a cold start
    assert "\nworks\n[exit code 0" in result
    record = await services.database.conversation(conversation)
    assert record.sandbox_id != first
    await a_full_pool(services, without=first)


@on_each_engine
async def test_a_spare_that_does_not_answer_is_ended_in_bounded_time(api, jp_serverapp):
    services = await services_of(jp_serverapp)
    pool = await a_full_pool(services)
    [sick] = pool.ready
    unfit = takes("unfit")
    await services.engine.pause(sick)  # its link stands, and nobody answers
    conversation = await api.conversation()
    result = await api.bash(conversation, "echo works")
    assert "\nworks\n[exit code 0" in result
    assert (await services.database.conversation(conversation)).sandbox_id != sick
    assert takes("unfit") == unfit + 1
    await no_engine_sandbox(services, sick)
    await a_full_pool(services, without=sick)


async def test_a_round_ends_what_does_not_run(api, jp_serverapp):
    services = await services_of(jp_serverapp)
    pool = await a_full_pool(services)
    [sick] = pool.ready
    await services.engine.pause(sick)
    await pool.look()
    assert sick not in pool.ready
    await no_engine_sandbox(services, sick)
    await a_full_pool(services, without=sick)


async def test_what_was_made_in_another_way_is_not_given_and_made_anew(api, jp_serverapp):
    services = await services_of(jp_serverapp)
    pool = await a_full_pool(services)
    [old] = pool.ready
    services.conversations._around.sandboxes.settings.env["SITE"] = "changed"
    await services.housekeeping.run_now("warm pool")
    await no_engine_sandbox(services, old)
    await a_full_pool(services, without=old)
    conversation = await api.conversation()
    assert "changed" in await api.bash(conversation, "echo $SITE")


async def test_a_smaller_pool_ends_what_is_too_much(api, jp_serverapp):
    services = await services_of(jp_serverapp)
    pool = await a_full_pool(services)
    [spare] = pool.ready
    pool.resize(0)
    await pool.look()
    assert pool.ready == []
    await no_engine_sandbox(services, spare)
    async with asyncio.timeout(SECONDS):
        while await pool._records.all():
            await asyncio.sleep(0.02)


async def test_while_memory_is_short_none_is_kept_and_none_is_made(api, jp_serverapp):
    services = await services_of(jp_serverapp)
    pool = await a_full_pool(services)
    [spare] = pool.ready
    level = pool.memory_level
    pool.memory_level = lambda: Level.SHORT
    await pool.look()
    assert pool.ready == []
    await no_engine_sandbox(services, spare)
    async with asyncio.timeout(SECONDS):
        while await pool._records.all():
            await asyncio.sleep(0.02)
    pool.memory_level = level
    await a_full_pool(services, without=spare)


@on_each_engine
async def test_the_next_server_adopts_what_fits_and_ends_what_does_not(api, jp_serverapp):
    app = jp_serverapp.web_app.settings["jupyter_sandbox"]
    [spare] = (await a_full_pool(await app.ready())).ready
    await app.stop_extension()
    services = await app.ready()
    assert (await a_full_pool(services)).ready == [spare]
    conversation = await api.conversation()
    assert "7" in await api.text(conversation, "python", code="3 + 4")
    assert (await services.database.conversation(conversation)).sandbox_id == spare

    [spare] = (await a_full_pool(services, without=spare)).ready
    await app.stop_extension()
    app._resources = type(app._resources)(memory_bytes=700_000_000)
    services = await app.ready()
    await no_engine_sandbox(services, spare)
    await a_full_pool(services, without=spare)


async def test_a_server_without_a_pool_ends_what_an_earlier_one_left(api, jp_serverapp):
    app = jp_serverapp.web_app.settings["jupyter_sandbox"]
    [spare] = (await a_full_pool(await app.ready())).ready
    await app.stop_extension()
    app._lifecycle = type(app._lifecycle)(**lifecycle(0))
    services = await app.ready()
    await no_engine_sandbox(services, spare)
    assert services.warm_pool.ready == []


class TestWithOneEngine:
    """Where the engine does not matter."""

    @pytest.fixture
    def engine_name(self):
        return "bubblewrap"

    async def test_two_servers_have_pools_of_their_own_and_give_each_sandbox_once(
        self, api, jp_serverapp
    ):
        first = await services_of(jp_serverapp)
        await a_full_pool(first)
        async with another_server(jp_serverapp) as second:
            await a_full_pool(second)
            for services in (first, second):
                await services.housekeeping.run_now("warm pool")
            ready = [*first.warm_pool.ready, *second.warm_pool.ready]
            assert len(set(ready)) == 2
            conversations = [await api.conversation() for _ in range(4)]

            async def use(services, conversation: str) -> str:
                async with services.conversations.live(conversation).use() as sandbox:
                    return sandbox.sandbox_id

            # Both servers want each conversation at once.
            given = await asyncio.gather(
                *(use(services, each) for each in conversations for services in (first, second))
            )
            assert given[0::2] == given[1::2]
            assert len(set(given)) == 4
            # One server may win all four; what the other has ready is then still its own.
            assert set(ready) & set(given)
            kept = {*first.warm_pool.ready, *second.warm_pool.ready}
            assert not kept & set(given)
            await a_full_pool(first)
            await a_full_pool(second)
        # The second has stopped: the first ends its spare ones, which are too many here.
        await first.warm_pool.look()
        async with asyncio.timeout(SECONDS):
            while len(await first.warm_pool._records.all()) != 1:
                await asyncio.sleep(0.02)

    async def test_what_was_given_and_cannot_be_filled_is_ended(
        self, api, jp_serverapp, monkeypatch
    ):
        services = await services_of(jp_serverapp)
        pool = await a_full_pool(services)
        [spare] = pool.ready
        placing = services.conversations._around.placing

        async def fail(*args):
            raise Unavailable("the store does not answer")

        with monkeypatch.context() as broken:
            broken.setattr(placing, "place_all", fail)
            conversation = await api.conversation()
            await api.raw("PUT", "conversations", conversation, "uploads", "a", body=b"there")
            failed = await api.call(conversation, "bash", command="true")
        assert text_of(failed).startswith("exec failed: ")
        await no_engine_sandbox(services, spare)
        assert spare not in pool.ready
        assert "fine" in await api.bash(conversation, "echo fine")
        assert (await services.database.conversation(conversation)).sandbox_id != spare

    async def test_a_call_that_is_cancelled_while_it_takes_one_leaves_nothing(
        self, api, jp_serverapp, monkeypatch
    ):
        services = await services_of(jp_serverapp)
        pool = await a_full_pool(services)
        [spare] = pool.ready
        conversation = await api.conversation()
        asked = asyncio.Event()

        async def hang(*args):
            asked.set()
            await asyncio.Event().wait()

        with monkeypatch.context() as broken:
            broken.setattr(pool._records, "give", hang)

            async def use() -> None:
                async with services.conversations.live(conversation).use():
                    pass

            task = asyncio.ensure_future(use())
            await asyncio.wait_for(asked.wait(), SECONDS)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, SandboxError):
                await task
        await no_engine_sandbox(services, spare)
        await a_full_pool(services, without=spare)

    async def test_real_first_calls_go_first(self, api, jp_serverapp):
        services = await services_of(jp_serverapp)
        pool = await a_full_pool(services)
        sandboxes = services.conversations._around.sandboxes
        sandboxes.wanted += 1  # somebody waits for a cold start
        conversation = await api.conversation()
        await api.bash(conversation, "true")
        before = {each.sandbox_id for each in await sandboxes.list()}
        await asyncio.sleep(1.5)  # longer than the pool waits after a sandbox was taken
        assert pool.ready == []
        assert {each.sandbox_id for each in await sandboxes.list()} == before
        sandboxes.wanted -= 1
        await a_full_pool(services)

    async def test_the_sweep_leaves_spare_sandboxes_their_directories(self, api, jp_serverapp):
        services = await services_of(jp_serverapp)
        [spare] = (await a_full_pool(services)).ready
        assert await services.housekeeping.run_now("reap")
        conversation = await api.conversation()
        await api.raw("PUT", "conversations", conversation, "uploads", "a", body=b"there")
        assert "there" in await api.bash(conversation, "cat /mnt/user-data/uploads/a")
        assert (await services.database.conversation(conversation)).sandbox_id == spare
        found = await services.engine.inspect(spare)
        assert found.state is EngineState.RUNNING
