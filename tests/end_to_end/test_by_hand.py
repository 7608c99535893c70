"""Suspend, wake and terminate by hand: nothing is lost that is said to be kept; who may do it."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys

import pytest

from jupyter_sandbox.engines.base import EngineState
from tests.conftest import on_each_engine, text_of
from tests.end_to_end import test_access
from tests.end_to_end.test_access import Users


async def services_of(app):
    return await app.web_app.settings["jupyter_sandbox"].ready()


@on_each_engine
async def test_a_suspended_sandbox_stands_still_and_its_next_use_wakes_it(api, jp_serverapp):
    conversation = await api.conversation()
    await api.text(conversation, "python", code="x = 41")
    await api.bash(
        conversation, "(while true; do date +%s%N > /workspace/beat; sleep 0.05; done) & export A=b"
    )
    status, shape = await api.json("POST", "conversations", conversation, "suspend")
    assert (status, shape["state"]) == (200, "suspended")
    services = await services_of(jp_serverapp)
    found = await services.engine.inspect(shape["sandbox_id"])
    assert found.state is EngineState.PAUSED
    assert (await api.json("GET", "conversations", conversation))[1]["state"] == "suspended"
    assert (await api.json("POST", "conversations", conversation, "suspend"))[0] == 200

    result = await api.bash(
        conversation, 'a=$(cat beat); sleep 1; echo "$A"; test "$a" != "$(cat beat)" && echo beats'
    )
    assert "[The sandbox was suspended and goes on now." in result
    assert "b\nbeats\n" in result
    assert "42" in await api.text(conversation, "python", code="x + 1")
    assert (await api.json("GET", "conversations", conversation))[1]["state"] == "running"


async def test_wake_by_hand_and_what_cannot_be_woken(api):
    conversation = await api.conversation()
    assert (await api.json("POST", "conversations", conversation, "wake"))[0] == 409
    assert (await api.json("POST", "conversations", conversation, "suspend"))[0] == 409
    await api.bash(conversation, "true")
    await api.json("POST", "conversations", conversation, "suspend")
    status, shape = await api.json("POST", "conversations", conversation, "wake")
    assert (status, shape["state"]) == (200, "running")
    assert (await api.json("POST", "conversations", conversation, "wake"))[0] == 200


@on_each_engine
async def test_a_running_call_is_not_frozen_but_terminating_ends_it(api, jp_serverapp):
    conversation = await api.conversation()
    await api.bash(conversation, "true")
    running = asyncio.ensure_future(api.call(conversation, "bash", command="sleep 60"))
    services = await services_of(jp_serverapp)
    live = services.conversations.live(conversation)
    async with asyncio.timeout(20):
        while not live.users:
            await asyncio.sleep(0.01)
    status, told = await api.json("POST", "conversations", conversation, "suspend")
    assert (status, told["code"]) == (409, "invalid_request")
    status, shape = await api.json("POST", "conversations", conversation, "terminate")
    assert (status, shape["state"]) == (200, "terminated")
    result = await asyncio.wait_for(running, 30)
    assert result["is_error"]
    assert text_of(result).startswith("exec failed:")


@on_each_engine
@pytest.mark.parametrize("suspended", [False, True], ids=["running", "suspended"])
async def test_a_terminated_sandbox_is_gone_and_the_next_call_makes_a_new_one_with_the_files(
    api, jp_serverapp, suspended
):
    conversation = await api.conversation()
    await api.raw("PUT", "conversations", conversation, "uploads", "kept.txt", body=b"kept")
    await api.bash(conversation, "echo lost > /workspace/lost.txt")
    if suspended:
        await api.json("POST", "conversations", conversation, "suspend")
    status, shape = await api.json("POST", "conversations", conversation, "terminate")
    assert (status, shape["state"]) == (200, "terminated")
    services = await services_of(jp_serverapp)
    assert await services.engine.inspect(shape["sandbox_id"]) is None
    assert (await api.json("POST", "conversations", conversation, "terminate"))[0] == 200

    result = await api.bash(conversation, "ls /workspace; cat /mnt/user-data/uploads/kept.txt")
    assert "The previous sandbox is gone (it was ended by hand)" in result
    assert "kept" in result
    assert "lost.txt" not in result
    _, model = await api.json("GET", "conversations", conversation)
    assert (model["state"], model["generation"]) == ("running", 2)


class TestWithOneEngine:
    """Where the engine does not matter."""

    @pytest.fixture
    def engine_name(self):
        return "bubblewrap"

    async def test_a_sandbox_that_another_server_suspended_is_woken(self, api, jp_serverapp):
        conversation = await api.conversation()
        await api.bash(conversation, "echo x > f")
        services = await services_of(jp_serverapp)
        record = await services.database.conversation(conversation)
        # As the other server does it: the state, then the engine; this one is not told.
        await services.database.set_state(conversation, "running", "suspended")
        await services.engine.pause(record.sandbox_id)
        services.conversations.live(conversation)._uses.forget()  # 5 s later
        assert "x\n" in await asyncio.wait_for(api.bash(conversation, "cat f"), 30)

    async def test_many_calls_at_once_wake_it_once(self, api):
        conversation = await api.conversation()
        await api.bash(conversation, "true")
        await api.json("POST", "conversations", conversation, "suspend")
        results = await asyncio.gather(*(api.bash(conversation, f"echo {n}") for n in range(5)))
        assert sum("was suspended" in result for result in results) == 1
        assert all(f"{n}\n[exit code 0" in result for n, result in enumerate(results))

    async def test_the_commands_list_show_suspend_and_terminate(self, api, jp_serverapp):
        conversation = await api.conversation()
        await api.bash(conversation, "true")
        environment = {
            **os.environ,
            "JUPYTER_TOKEN": jp_serverapp.identity_provider.token,
        }

        async def run(*words: str):
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "jupyter_sandbox.cli.app", *words),
                f"--url={jp_serverapp.connection_url}",
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
            out, err = await asyncio.wait_for(process.communicate(), 60)
            return process.returncode, out.decode(), err.decode()

        code, out, err = await run("list", "--all", "--json")
        assert code == 0, err
        (listed,) = json.loads(out)["sandboxes"]
        assert (listed["id"], listed["state"], listed["owner"]) == (
            conversation,
            "running",
            "local",
        )
        code, out, err = await run("suspend", conversation)
        assert (code, "suspended" in out) == (0, True), err
        code, out, err = await run("list")
        assert out.split("\n")[1].split()[:3] == [conversation, "suspended", "local"]
        code, out, err = await run("show", conversation, "--json")
        assert json.loads(out)["usage"]["uploads"] == 0
        code, out, err = await run("terminate", conversation)
        assert (code, "terminated" in out) == (0, True), err
        code, out, err = await run("show", "00000000-0000-4000-8000-000000000000")
        assert (code, err.strip()) == (1, "There is no such conversation.")


class TestWhoMay:
    @pytest.fixture
    def engine_name(self):
        return "bubblewrap"

    @pytest.fixture
    def sandbox_config(self):
        return {
            "ServerApp": {"identity_provider_class": Users},
            "SandboxApp": {"administrators": {"dora"}},
        }

    @pytest.fixture
    def policy_file(self, server_dir):
        path = server_dir / "data" / "policy.json"
        path.parent.mkdir(mode=0o700, exist_ok=True)
        path.write_text(json.dumps(test_access.NO_CAROL))
        return path

    @pytest.fixture
    def user(self, policy_file, api):
        return lambda name: test_access.As(api, name)

    async def test_an_administrator_manages_anybodys_and_sees_no_title(self, user, policy_file):
        status, model = await user("alice").json(
            "POST", "/sandbox/api/conversations", {"title": "private-title"}
        )
        assert status == 201
        at = f"/sandbox/api/conversations/{model['id']}"
        await user("alice").json("POST", f"{at}/tools/bash", {"command": "true"})
        for name, statuses in (("bob", 404), ("carol", 403)):
            for verb in ("suspend", "wake", "terminate"):
                assert (await user(name).json("POST", f"{at}/{verb}"))[0] == statuses
            assert (await user(name).json("GET", "/sandbox/api/sandboxes?all=1"))[0] == 403
        assert (await user("bob").json("GET", "/sandbox/api/sandboxes"))[1]["sandboxes"] == []
        assert (await user("alice").json("GET", "/sandbox/api/sandboxes?all=1"))[0] == 403

        policy_file.write_text(json.dumps(test_access.OFF))  # it does not bind administrators
        status, told = await user("dora").json("GET", "/sandbox/api/sandboxes?all=1")
        assert [each["owner"] for each in told["sandboxes"]] == ["alice"]
        assert "private-title" not in json.dumps(told)
        status, shape = await user("dora").json("POST", f"{at}/suspend")
        assert (status, shape["state"]) == (200, "suspended")
        assert (await user("alice").json("POST", f"{at}/terminate"))[0] == 503
        status, shape = await user("dora").json("POST", f"{at}/terminate")
        assert (status, shape["state"]) == (200, "terminated")
        assert (await user("dora").json("GET", at))[0] == 503
