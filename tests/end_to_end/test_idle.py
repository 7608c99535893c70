"""What nobody uses is suspended and ended by time; what is in use is not; what is told of it."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from jupyter_sandbox.engines.base import EngineState
from jupyter_sandbox.stores.server_marks import ServerMarks
from tests.conftest import on_each_engine
from tests.faults.table import fault
from tests.idle_clock import IdleClock

QUARTER = 15 * 60


pytestmark = pytest.mark.own_server


@pytest.fixture
def app(jp_serverapp):
    return jp_serverapp.web_app.settings["jupyter_sandbox"]


async def model(api, conversation: str) -> dict:
    status, shape = await api.json("GET", "conversations", conversation)
    assert status == 200, shape
    return shape


async def state(api, conversation: str) -> str:
    return (await model(api, conversation))["state"]


async def engine_state(app, conversation: str):
    services = await app.ready()
    record = await services.database.conversation(conversation)
    found = await services.engine.inspect(record.sandbox_id)
    return None if found is None else found.state


async def notices(api, conversation: str) -> list[str]:
    _, stream = await api.json("GET", "conversations", conversation, "messages")
    return [each["text"] for each in stream["messages"] if each["type"] == "notice"]


@on_each_engine
async def test_an_unused_sandbox_is_suspended_and_its_next_use_wakes_it_with_all(api, app):
    conversation = await api.conversation()
    await api.text(conversation, "python", code="x = 41")
    await api.bash(conversation, "sleep 1000 & export A=b")
    clock = await IdleClock.of(app)
    used_at = datetime.fromisoformat((await model(api, conversation))["used_at"])
    clock.pass_time(QUARTER - 60)
    await clock.look()
    await clock.look()
    assert await state(api, conversation) == "running"
    clock.pass_time(60)
    await clock.look()
    assert await state(api, conversation) == "suspended"
    assert await engine_state(app, conversation) is EngineState.PAUSED
    shape = await model(api, conversation)
    assert shape["suspends_at"] is None
    ends = datetime.fromisoformat(shape["terminates_at"])
    assert ends == used_at + timedelta(days=30)

    clock.pass_time(3 * 3600)
    await clock.look()
    result = await api.bash(conversation, 'echo "$A"; pgrep -c sleep')
    assert (
        "[The sandbox was suspended and goes on now. It stood still for 3 hours: it had not been "
        "used for 15 minutes. Kept: all files"
    ) in result
    assert "b\n1\n" in result
    assert "42" in await api.text(conversation, "python", code="x + 1")
    assert await state(api, conversation) == "running"
    told = await notices(api, conversation)
    assert told[1].startswith("[The sandbox was suspended: it had not been used for 15 minutes.")
    assert told[2].startswith("[The sandbox was suspended and goes on now.")


async def test_there_is_nothing_to_interrupt_in_one_that_stands_still(api, app):
    conversation = await api.conversation()
    await api.bash(conversation, "sleep 1000 &")
    status, _ = await api.json("POST", "conversations", conversation, "suspend")
    assert status == 200
    async with asyncio.timeout(5):
        status, said = await api.json("POST", "conversations", conversation, "interrupt")
    assert (status, said) == (200, {"interrupted": 0})
    assert await state(api, conversation) == "suspended"
    assert "1" in await api.bash(conversation, "pgrep -c sleep")


async def test_after_thirty_days_it_is_ended_and_the_next_result_says_what_is_lost(api, app):
    conversation = await api.conversation()
    await api.raw("PUT", "conversations", conversation, "uploads", "kept.txt", body=b"kept")
    await api.bash(conversation, "echo lost > /workspace/lost.txt")
    clock = await IdleClock.of(app)
    clock.pass_time(QUARTER)
    await clock.look()
    clock.pass_time(20)
    await clock.look()
    assert await state(api, conversation) == "suspended"
    clock.pass_time(30 * 86400 - QUARTER - 120)
    await clock.look()
    assert await state(api, conversation) == "suspended"
    clock.pass_time(120)
    await clock.look()
    shape = await model(api, conversation)
    assert (shape["state"], shape["terminates_at"]) == ("terminated", None)
    assert await engine_state(app, conversation) is None
    result = await api.bash(conversation, "ls /workspace; cat /mnt/user-data/uploads/kept.txt")
    assert "The previous sandbox is gone (it had not been used for 30 days)" in result
    assert "Lost: the workspace" in result
    assert "kept" in result
    assert "lost.txt" not in result
    assert any("30 days" in each for each in await notices(api, conversation))


@on_each_engine
async def test_memory_that_code_has_freed_is_given_back_before_it_stands(api):
    conversation = await api.conversation()
    size = "int(open('/proc/self/status').read().split('VmRSS:')[1].split()[0]) // 1024"
    many = "[bytes(1000) for _ in range(100_000)]"
    before = await api.text(
        *(conversation, "python"), code=f"a = {many}; b = {many}; del a; del b[:-1]; print({size})"
    )
    status, _ = await api.json("POST", "conversations", conversation, "suspend")
    assert status == 200
    after = await api.text(conversation, "python", code=f"print(len(b), {size})")
    kept, left_mib = re.findall(r"^(\d+) (\d+)$", after, re.MULTILINE)[0]
    had_mib = re.findall(r"^(\d+)$", before, re.MULTILINE)[0]
    assert kept == "1"
    assert int(left_mib) < int(had_mib) - 50, (before, after)


async def test_a_call_in_flight_keeps_it_awake_and_its_end_counts(api, app):
    conversation = await api.conversation()
    await api.bash(conversation, "true")
    clock = await IdleClock.of(app)
    running = asyncio.ensure_future(api.bash(conversation, "sleep 400"))
    live = clock.services.conversations.live(conversation)
    async with asyncio.timeout(20):
        while not live.users:
            await asyncio.sleep(0.01)
    clock.pass_time(2 * QUARTER)
    await clock.look()
    clock.pass_time(20)
    await clock.look()
    assert await state(api, conversation) == "running"
    await live.interrupt()
    await asyncio.wait_for(running, 30)
    clock.pass_time(QUARTER - 60)
    await clock.look()
    await clock.look()
    assert await state(api, conversation) == "running", "its end was the last use"
    clock.pass_time(120)
    await clock.look()
    assert await state(api, conversation) == "suspended"


@on_each_engine
async def test_a_background_job_counts_while_it_works_and_not_for_ever(api, app):
    conversation = await api.conversation()
    await api.bash(conversation, "(while :; do :; done) >/dev/null 2>&1 &")
    clock = await IdleClock.of(app)
    clock.stop()
    services = clock.services
    sandbox_id = (await services.database.conversation(conversation)).sandbox_id

    async def cpu_seconds() -> float:
        return (await services.engine.usage(sandbox_id)).cpu_seconds

    async def look_at_work(seconds: float) -> None:
        """Let so much time pass, in whose last twenty seconds the job works for 1.5."""
        clock.pass_time(seconds - 20)
        services.idling._samples.clear()
        await clock.look()
        begun = await cpu_seconds()
        async with asyncio.timeout(120):
            while await cpu_seconds() < begun + 1.5:
                await asyncio.sleep(0.05)
        clock.pass_time(20)
        await clock.look()

    await look_at_work(QUARTER)
    shape = await model(api, conversation)
    assert shape["state"] == "running"
    assert datetime.fromisoformat(shape["suspends_at"]) > services.database.now()
    await look_at_work(7200 - QUARTER)
    assert await state(api, conversation) == "running"
    clock.pass_time(QUARTER)
    await clock.look()
    await clock.look()
    assert await state(api, conversation) == "suspended"
    assert "was suspended" in await api.bash(conversation, "true")


async def test_kept_awake_it_is_left_alone_until_then(api, app):
    conversation = await api.conversation()
    await api.bash(conversation, "true")
    clock = await IdleClock.of(app)
    until = clock.services.database.now() + timedelta(hours=2)
    body = {"keep_awake_until": until.isoformat()}
    status, shape = await api.json("PATCH", "conversations", conversation, body=body)
    assert status == 200
    assert datetime.fromisoformat(shape["keep_awake_until"]) == until
    assert datetime.fromisoformat(shape["suspends_at"]) == until
    clock.pass_time(2 * QUARTER)
    await clock.look()
    await clock.look()
    assert await state(api, conversation) == "running"
    clock.pass_time(6 * QUARTER + 60)
    await clock.look()
    assert await state(api, conversation) == "suspended"


class TestWithOneEngine:
    """Where the engine does not matter."""

    @pytest.fixture
    def engine_name(self):
        return "bubblewrap"

    async def test_looking_is_no_use(self, api, app):
        conversation = await api.conversation()
        await api.bash(conversation, "true")
        clock = await IdleClock.of(app)
        used_at = (await model(api, conversation))["used_at"]
        clock.pass_time(QUARTER)
        for path in ("", "messages", "uploads", "shares"):
            status, _ = await api.json("GET", "conversations", conversation, *([path] * bool(path)))
            assert status == 200
        assert (await model(api, conversation))["used_at"] == used_at
        await clock.look()
        clock.pass_time(20)
        await clock.look()
        assert await state(api, conversation) == "suspended"

    async def test_keeping_awake_is_capped_and_can_be_ended(self, api, app):
        conversation = await api.conversation()
        body = {"keep_awake_until": "2999-01-01T00:00:00Z", "title": "both"}
        status, shape = await api.json("PATCH", "conversations", conversation, body=body)
        assert (status, shape["title"]) == (200, "both")
        until = datetime.fromisoformat(shape["keep_awake_until"])
        assert timedelta(hours=23) < until - datetime.now(UTC) <= timedelta(hours=24)
        assert (await model(api, conversation))["state"] == "absent", "it provisions nothing"
        body = {"keep_awake_until": None}
        _, shape = await api.json("PATCH", "conversations", conversation, body=body)
        assert (shape["keep_awake_until"], shape["title"]) == (None, "both")

    @pytest.mark.parametrize(
        "wrong", ["soon", 5, "2030-01-01", "2030-01-01T00:00:00", "0001-01-01T00:00:00+23:00"]
    )
    async def test_what_is_no_time_is_refused(self, api, wrong):
        conversation = await api.conversation()
        body = {"keep_awake_until": wrong}
        status, told = await api.json("PATCH", "conversations", conversation, body=body)
        assert (status, told["code"]) == (422, "invalid_request")

    @fault("clock-jumps")
    async def test_a_clock_set_forward_suspends_nothing_that_is_in_use_anywhere(self, api, app):
        conversation = await api.conversation()
        await api.bash(conversation, "true")
        clock = await IdleClock.of(app)
        await clock.settle()
        clock.jump(86400)
        await clock.look()
        assert await state(api, conversation) == "running"
        # Another server, which has a call in flight, notes it now.
        await clock.services.idling._records.note_use(conversation)
        await clock.settle()
        assert await state(api, conversation) == "running"
        clock.jump(86400)
        await clock.settle()
        assert await state(api, conversation) == "suspended", "nobody uses it"

    @fault("clock-jumps")
    async def test_a_clock_set_back_keeps_nothing_for_longer_than_usual(self, api, app):
        conversation = await api.conversation()
        await api.bash(conversation, "true")
        clock = await IdleClock.of(app)
        until = clock.services.database.now() + timedelta(hours=20)
        body = {"keep_awake_until": until.isoformat()}
        await api.json("PATCH", "conversations", conversation, body=body)
        clock.jump(-365 * 86400)
        await clock.look()
        shape = await model(api, conversation)
        now = clock.services.database.now()
        assert abs(datetime.fromisoformat(shape["used_at"]) - now) < timedelta(seconds=30)
        assert datetime.fromisoformat(shape["keep_awake_until"]) <= now + timedelta(days=1)
        clock.pass_time(86400 + 60)
        await clock.look()
        clock.pass_time(20)
        await clock.look()
        assert await state(api, conversation) == "suspended"

    async def test_a_command_that_outlived_its_server_keeps_it_awake_until_its_time(self, api, app):
        conversation = await api.conversation()
        await api.bash(conversation, "true")
        clock = await IdleClock.of(app)
        clock.pass_time(QUARTER - 300)
        # As a server leaves it that is killed: recorded, and nobody in this process follows it.
        await clock.services.database.begin_call(conversation, "0" * 36, "bash")
        clock.pass_time(400)
        await clock.look()
        clock.pass_time(20)
        await clock.look()
        assert await state(api, conversation) == "running"
        clock.pass_time(300)
        await clock.look()
        assert await state(api, conversation) == "suspended"

    async def test_a_use_at_another_server_that_began_meanwhile_wins(self, api, app):
        conversation = await api.conversation()
        await api.bash(conversation, "true")
        clock = await IdleClock.of(app)
        clock.pass_time(QUARTER)
        records = clock.services.idling._records
        seen = await clock.services.database.conversation(conversation)
        await records.note_use(conversation)
        assert not await records.suspend(seen, "late", "another")
        assert await state(api, conversation) == "running"

    async def test_who_wakes_it_waits_for_the_server_that_freezes_it_unless_that_died(
        self, api, app
    ):
        conversation = await api.conversation()
        await api.bash(conversation, "true")
        services = await app.ready()
        records = services.idling._records
        await services.conversations.live(conversation).detach()
        seen = await services.database.conversation(conversation)
        another = ServerMarks(Path(app.data_dir), "ab" * 8)
        await asyncio.to_thread(another.set)
        assert await records.suspend(seen, "x", another.process_id)
        call = asyncio.ensure_future(api.bash(conversation, "echo woken"))
        done, _ = await asyncio.wait([call], timeout=1.0)
        assert not done, "it stands in a moment"
        await services.engine.pause(seen.sandbox_id)
        await records.frozen(seen, another.process_id)
        await asyncio.to_thread(another.clear)
        assert "woken\n" in await asyncio.wait_for(call, 30)

        await services.conversations.live(conversation).detach()
        seen = await services.database.conversation(conversation)
        assert await records.suspend(seen, "x", "dead-server")
        assert "again\n" in await asyncio.wait_for(api.bash(conversation, "echo again"), 30)

    async def test_what_another_server_suspends_under_a_call_goes_on_at_the_next_note(
        self, api, app
    ):
        conversation = await api.conversation()
        await api.bash(conversation, "true")
        clock = await IdleClock.of(app)
        command = "for i in $(seq 100); do sleep 0.02; done; echo through"
        running = asyncio.ensure_future(api.bash(conversation, command))
        services = clock.services
        live = services.conversations.live(conversation)
        async with asyncio.timeout(20):
            while not live.users:
                await asyncio.sleep(0.01)
        seen = await services.database.conversation(conversation)
        assert await services.idling._records.suspend(seen, "by hand", "another")
        await services.engine.pause(seen.sandbox_id)
        await services.idling._records.frozen(seen, "another")
        done, _ = await asyncio.wait([running], timeout=3)
        assert not done
        await services.idling.note_uses()
        assert "through\n" in await asyncio.wait_for(running, 30)
        assert await state(api, conversation) == "running"

    async def test_only_so_many_suspended_sandboxes_stay_connected(self, api, app, monkeypatch):
        monkeypatch.setattr("jupyter_sandbox.conversations.idling._MOST_RESTING", 1)
        first, second = await api.conversation(), await api.conversation()
        services = await app.ready()
        for conversation in (first, second):
            await api.bash(conversation, f"echo {conversation} > f")
            await api.json("POST", "conversations", conversation, "suspend")
        await services.idling.note_uses()
        live = services.conversations.live
        assert live(first).sandbox is None
        assert live(second).sandbox is not None
        for conversation in (first, second):
            assert f"{conversation}\n" in await api.bash(conversation, "cat f")


class TestGroups:
    @pytest.fixture
    def engine_name(self):
        return "bubblewrap"

    @pytest.fixture
    def sandbox_config(self):
        return {
            "SandboxApp": {"groups_hook": lambda handler: ["patient"]},
            "SandboxLifecycle": {"group_times": {"patient": {"suspend_seconds": 7200}}},
        }

    async def test_the_times_of_the_users_group_apply_from_its_first_use(self, api, app):
        conversation = await api.conversation()
        await api.bash(conversation, "true")
        clock = await IdleClock.of(app)
        clock.pass_time(7000)
        await clock.look()
        clock.pass_time(20)
        await clock.look()
        assert await state(api, conversation) == "running"
        clock.pass_time(200)
        await clock.look()
        assert await state(api, conversation) == "suspended"


@pytest.mark.parametrize("rounds", [50])
async def test_uses_at_the_moment_of_a_suspension_succeed(api, app, rounds):
    conversation = await api.conversation()
    await api.text(conversation, "python", code="n = 0")
    clock = await IdleClock.of(app)
    live = clock.services.conversations.live(conversation)
    suspended = 0
    for n in range(rounds):
        await asyncio.gather(live.suspend(), return_exceptions=True) if n % 2 else None
        calls = [
            asyncio.ensure_future(api.bash(conversation, f"echo {n}.{i}")) for i in range(1 + n % 3)
        ]
        await asyncio.sleep(n % 7 / 1000)
        clock.pass_time(QUARTER)
        await asyncio.gather(live.suspend(), clock.look(), return_exceptions=True)
        results = await asyncio.wait_for(asyncio.gather(*calls), 60)
        for i, result in enumerate(results):
            assert f"{n}.{i}\n" in result
        suspended += await state(api, conversation) == "suspended"
    assert "n=0" in await api.text(conversation, "python", code="print(f'{n=}')")
    assert suspended, "no round met a suspension"
