"""Many at once: nothing fails, nothing is left."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys

import psutil
import pytest

from tests.attacks import attack
from tests.conftest import on_each_engine, on_gvisor_too, text_of

pytestmark = pytest.mark.alone


async def test_fifty_calls_at_once_into_one_conversation_provision_once(api, jp_serverapp):
    conversation = await api.conversation()
    results = await asyncio.gather(
        *(api.call(conversation, "bash", command=f"echo {n}") for n in range(50))
    )
    assert sorted(int(text_of(r).split("[exit")[0].split("]")[-1]) for r in results) == list(
        range(50)
    )
    services = await jp_serverapp.web_app.settings["jupyter_sandbox"].ready()
    assert len(await services.conversations._around.sandboxes.list()) == 1
    assert (await services.database.conversation(conversation)).generation == 1
    assert sum("[New sandbox" in text_of(r) for r in results) == 1


@on_each_engine
async def test_twenty_conversations_at_once_leave_nothing_behind(api, jp_serverapp, server_dir):
    services = await jp_serverapp.web_app.settings["jupyter_sandbox"].ready()
    sandboxes = services.conversations._around.sandboxes
    process = psutil.Process()

    def held() -> tuple[int, int, int]:
        return process.num_fds(), len(asyncio.all_tasks()), process.num_threads()

    async def crowd() -> None:
        ids = [await api.conversation(title=str(n)) for n in range(20)]
        results = await asyncio.gather(
            *(api.call(c, "bash", command=f"echo conversation-{n}") for n, c in enumerate(ids))
        )
        for n, result in enumerate(results):
            assert f"conversation-{n}\n" in text_of(result)
        await asyncio.gather(*(api.raw("DELETE", "conversations", c) for c in ids))

    await crowd()  # fills the pools of threads and connections, which are bounded and stay
    before = held()
    await crowd()
    for _ in range(100):
        after = held()
        if all(a <= b + 2 for a, b in zip(after, before, strict=True)):
            break
        await asyncio.sleep(0.05)
    assert all(a <= b + 2 for a, b in zip(after, before, strict=True)), (before, after)
    assert await sandboxes.list() == []
    shared = ("guest-", "site-", "servers")  # of all sandboxes of a server
    assert [p for p in (server_dir / "run").iterdir() if not p.name.startswith(shared)] == []


_OTHER_PROCESS = """
import asyncio, json, sys
from jupyter_server.serverapp import ServerApp
from jupyter_sandbox.app import SandboxApp
async def main():
    data, run, engine, conversation = sys.argv[1:5]
    app = SandboxApp(engine=engine, data_dir=data, runtime_dir=run)
    app.settings = {}
    app.serverapp.init_event_logger()
    app.initialize_settings()
    services = await app.ready()
    record = await services.database.conversation(conversation)
    call = await services.calls.start(record, "bash", {"command": "echo other; hostname; cat /proc/sys/kernel/random/boot_id; echo $$ >> /workspace/pids; cat /proc/1/stat"})
    await call.done
    print(json.dumps(call.to_json()))
    await app.stop_extension()
asyncio.run(main())
"""


async def test_two_server_processes_provision_one_sandbox_and_both_use_it(
    api, jp_serverapp, engine_name, server_dir
):
    conversation = await api.conversation()
    other = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        _OTHER_PROCESS,
        str(server_dir / "data"),
        str(server_dir / "run"),
        engine_name,
        conversation,
        stdout=subprocess.PIPE,
        env=os.environ,
    )
    ours, (output, _) = await asyncio.gather(
        api.call(conversation, "bash", command="echo ours; cat /proc/1/stat"),
        other.communicate(),
    )
    theirs = __import__("json").loads(output.splitlines()[-1])
    services = await jp_serverapp.web_app.settings["jupyter_sandbox"].ready()
    assert len(await services.conversations._around.sandboxes.list()) == 1
    assert "ours" in text_of(ours)
    assert "other" in text_of(theirs)
    start_time = [
        line.split()[21]
        for t in (ours, theirs)
        for line in text_of(t).split("\n")
        if line.startswith("1 (python")
    ]
    assert len(start_time) == 2
    assert start_time[0] == start_time[1]


@attack("T39")
@on_gvisor_too
async def test_a_restarted_server_finds_sandbox_variables_and_the_running_command(
    api, jp_serverapp
):
    app = jp_serverapp.web_app.settings["jupyter_sandbox"]
    conversation = await api.conversation()
    await api.bash(conversation, "export HERE=1; cd /tmp")
    await api.text(conversation, "python", code="x = 42")
    _, call = await api.json(
        "POST",
        "conversations",
        conversation,
        "tools",
        "bash?wait=0",
        body={"command": "echo begun; sleep 3; echo ended"},
    )
    await asyncio.sleep(0.5)
    await app.stop_extension()  # the next request builds all parts anew, as a new server does

    _, done = await api.json(
        "GET", "conversations", conversation, "calls", call["call_id"] + "?wait=20"
    )
    assert "begun\nended\n" in text_of(done)
    assert "1 /tmp\n" in await api.bash(conversation, "echo $HERE $PWD")
    assert "42" in await api.text(conversation, "python", code="x")
