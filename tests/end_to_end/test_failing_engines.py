"""What an assistant sees when an engine fails: a clear text in bounded time, and recovery."""

from __future__ import annotations

import time

import pytest

from jupyter_sandbox import testing
from tests.conftest import text_of
from tests.faults.table import fault

pytestmark = pytest.mark.own_server


@pytest.fixture
def engine_name():
    return "auto"  # replaced below, before anything is built


@pytest.fixture
def sandbox_config():
    return {"SandboxApp": {"start_timeout_seconds": 2.0}}


@pytest.fixture
def given(jp_serverapp):
    """Make the server use this engine."""

    def use(engine):
        jp_serverapp.web_app.settings["jupyter_sandbox"]._sandbox_engine = engine
        return engine

    return use


@fault("engine-down")
async def test_an_engine_that_is_down_is_said_and_a_retry_may_succeed(given, api):
    given(testing.EngineThatIsDown())
    conversation = await api.conversation()
    result = await api.call(conversation, "bash", command="echo hello")
    assert result["is_error"]
    assert result["code"] == "unavailable"
    assert text_of(result).startswith("exec failed: ")
    assert "retry" in text_of(result)
    _, model = await api.json("GET", "conversations", conversation)
    assert model["state"] == "error"


@fault("start-fails")
async def test_an_engine_that_fails_once_is_asked_again_by_the_next_call(given, api):
    given(testing.EngineThatFailsToStart(failures=1))
    conversation = await api.conversation()
    first = await api.call(conversation, "bash", command="echo hello")
    second = await api.call(conversation, "bash", command="echo hello")
    assert text_of(first).startswith("exec failed: ")
    assert "hello\n[exit code 0" in text_of(second)
    assert "[New sandbox" in text_of(second)


@pytest.mark.parametrize("kind", ["EngineThatStartsNoGuest", "EngineThatHangs"])
@fault("start-fails", "engine-hangs")
async def test_a_sandbox_that_never_answers_is_given_up_in_bounded_time(
    given, api, kind, server_dir
):
    engine = given(getattr(testing, kind)())
    conversation = await api.conversation()
    started = time.monotonic()
    result = await api.call(conversation, "bash", command="echo hello")
    assert time.monotonic() - started < 10
    assert text_of(result).startswith("exec failed: ")
    left = [path.name for path in (server_dir / "run").iterdir()]
    assert [name for name in left if not name.startswith(("guest-", "site-", "servers"))] == []
    if kind == "EngineThatHangs":
        engine.release()


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("bash", {"command": "echo begun; sleep 60"}),
        ("python", {"code": "import time; print('begun'); time.sleep(60)"}),
    ],
)
@fault("killed")
async def test_a_sandbox_that_dies_under_a_call_is_said_and_replaced(given, api, tool, arguments):
    engine = given(testing.FakeEngine())
    conversation = await api.conversation()
    await api.text(conversation, "python", code="1")
    _, call = await api.json(
        "POST",
        "conversations",
        conversation,
        "tools",
        f"{tool}?wait=1",
        body=arguments,
    )
    for sandbox_id in engine._records.ids():
        await engine.kill(sandbox_id)
    _, done = await api.json(
        "GET", "conversations", conversation, "calls", call["call_id"] + "?wait=20"
    )
    assert done["is_error"]
    # The connection may end a moment before the engine knows of the end.
    ended, closed = "ended while this ran: it had stopped.", "closed the connection."
    assert text_of(done).startswith(
        (f"exec failed: the sandbox {ended}", f"exec failed: the sandbox {closed}")
    )
    after = await api.bash(conversation, "echo back")
    assert "The previous sandbox is gone" in after
    assert "back\n[exit code 0" in after
