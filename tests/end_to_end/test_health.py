"""The health report, by REST and by ``jupyter sandbox doctor``, on each engine and on broken ones."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest

from jupyter_sandbox import testing
from jupyter_sandbox.cli.doctor import to_lines
from jupyter_sandbox.models import LIMITS
from tests.conftest import on_each_engine

STEPS = ["start", "echo", "create_file", "share_files", "download"]


@pytest.fixture
def given(jp_serverapp):
    """Make the server use this engine."""

    def use(engine):
        jp_serverapp.web_app.settings["jupyter_sandbox"]._sandbox_engine = engine
        return engine

    return use


@on_each_engine
async def test_the_deep_check_goes_five_steps_and_leaves_nothing(api, engine_name):
    status, report = await api.json("GET", "health?deep=1")
    assert status == 200, report
    assert report["ok"]
    assert report["engine"]["name"] == engine_name
    assert [step["step"] for step in report["steps"]] == STEPS
    assert all(step["ok"] and not step["advice"] for step in report["steps"])
    _, left = await api.json("GET", "conversations")
    assert left["conversations"] == []


@on_each_engine
async def test_it_says_what_holds_every_limit_as_read_back(api, engine_name):
    _, report = await api.json("GET", "health?deep=1")
    limits = {each["limit"]: each for each in report["limits"]}
    assert tuple(limits) == LIMITS
    for limit in ("memory", "processes", "system_calls", "network", "file_size"):
        assert (limits[limit]["strength"], limits[limit]["read_back"]) == ("enforced", True)
        assert limits[limit]["advice"] == ""
    assert limits["memory"]["value"] == f"{2 * 1024**3} bytes"
    assert limits["kernel"]["strength"] == "weaker"
    assert "runsc" in limits["kernel"]["advice"]
    assert report["tier"]["name"] == ("root" if engine_name == "docker" else "ordinary_user")


async def test_the_shallow_check_reads_the_limits_of_a_sandbox_that_runs(api):
    status, report = await api.json("GET", "health")
    assert (status, report["limits"], report["tier"]) == (200, [], None)
    assert "steps" not in report
    await api.bash(await api.conversation(), "true")
    _, report = await api.json("GET", "health")
    assert tuple(each["limit"] for each in report["limits"]) == LIMITS
    assert report["tier"]["text"]


async def test_one_deep_check_at_a_time(api):
    both = await asyncio.gather(*(api.json("GET", "health?deep=1") for _ in range(2)))
    assert sorted(status for status, _ in both) == [200, 429]


@pytest.mark.parametrize("query", ["deep=2", "deep=yes"])
@pytest.mark.own_server
@pytest.mark.parametrize("engine_name", ["auto"])
async def test_another_depth_is_refused(given, api, query):
    given(testing.FakeEngine())
    status, answer = await api.json("GET", f"health?{query}")
    assert (status, answer["code"]) == (422, "invalid_request")


@pytest.mark.own_server
@pytest.mark.parametrize("engine_name", ["auto"])
async def test_an_engine_that_is_down_is_said_with_503(given, api):
    given(testing.EngineThatIsDown())
    status, report = await api.json("GET", "health")
    assert (status, report["ok"], report["code"]) == (503, False, "unhealthy")
    assert report["message"] == "the engine does not answer"


@pytest.mark.own_server
@pytest.mark.parametrize("engine_name", ["auto"])
async def test_a_step_that_fails_says_what_to_do_and_later_ones_are_not_tried(given, api):
    given(testing.EngineThatFailsToStart())
    status, report = await api.json("GET", "health?deep=1")
    assert (status, report["ok"]) == (503, False)
    (step,) = report["steps"]
    assert (step["step"], step["ok"]) == ("start", False)
    assert step["message"] == report["message"] == "the engine could not start the sandbox"
    assert "build-image" in step["advice"]
    assert report["limits"] == []
    _, left = await api.json("GET", "conversations")
    assert left["conversations"] == []
    lines = list(to_lines(report))
    assert "FAILED    start a conversation" in "\n".join(lines)
    assert f"          what to do: {step['advice']}" in lines


@pytest.mark.own_server
@pytest.mark.parametrize("engine_name", ["auto"])
async def test_an_engine_without_isolation_is_reported_as_such(given, api):
    given(testing.FakeEngine())
    _, report = await api.json("GET", "health?deep=1")
    assert {each["strength"] for each in report["limits"]} == {"not_enforced"}
    assert report["tier"]["name"] == "not_isolated"
    assert all(each["advice"] for each in report["limits"])


@on_each_engine
def test_the_doctor_prints_steps_limits_and_the_tier(engine_name):
    done = doctor(f"--engine={engine_name}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ok        download it" in done.stdout
    assert "control group" in done.stdout
    assert "NO        " in done.stdout or "weak      " in done.stdout
    assert "tier      " in done.stdout


@pytest.mark.own_server
@pytest.mark.parametrize("engine_name", ["auto"])
def test_the_doctor_exits_with_1_where_nothing_works(engine_name, monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere.sock")
    done = doctor("--engine=docker")
    assert done.returncode == 1
    assert "FAILED    start a conversation" in done.stdout
    assert "what to do: " in done.stdout


def doctor(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "jupyter_sandbox.cli.app", "doctor", *words],
        capture_output=True,
        text=True,
        timeout=170,
    )
