"""The switch switches: what was written is in force, and no fault in the file opens what was closed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import stat

import pytest

from jupyter_sandbox import testing
from jupyter_sandbox.conversations.access_file import AccessFile
from jupyter_sandbox.conversations.journal import Journal
from jupyter_sandbox.conversations.message_feeds import MessageFeeds
from jupyter_sandbox.errors import Misconfigured
from jupyter_sandbox.stores.audit_log import AuditLog
from jupyter_sandbox.stores.audit_records import AuditRecords
from jupyter_sandbox.stores.database import Database
from jupyter_sandbox.stores.master_keys import load_master_keys
from tests.attacks import attack
from tests.conftest import Api
from tests.end_to_end.test_access import NO_CAROL, As, Users
from tests.jupyter_servers import in_directories
from tests.sealed_rows import messages_of
from tests.test_wrong_settings import CONTRACT

OFF = '{"flags": {"chat_sandbox": {"value": false}}}'
LOG = logging.getLogger("access")


async def until(condition) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.02)


# --- on a server


@pytest.fixture
def engine_name():
    return "auto"


@pytest.fixture
def sandbox_config(short_dir):
    return {
        "ServerApp": {"identity_provider_class": Users},
        "SandboxApp": {"administrators": {"dora"}, **in_directories(short_dir)},
    }


@pytest.fixture
def policy(short_dir):
    """The policy file, which is not right before the server's first request."""
    path = short_dir / "data" / "policy.json"
    path.parent.mkdir(mode=0o700)
    path.write_text('{\n "grants": 1}')
    return path


@pytest.fixture
def server(policy, jp_serverapp):
    app = jp_serverapp.web_app.settings["jupyter_sandbox"]
    app._sandbox_engine = testing.FakeEngine()
    return app


@attack("T42", on="")
@pytest.mark.own_server
async def test_the_policy_of_an_idle_server_changes_at_once_and_a_bad_file_opens_nothing(
    server, policy, jp_fetch, caplog, short_dir
):
    api = Api(jp_fetch)
    alice, carol, dora = (As(api, name) for name in ("alice", "carol", "dora"))
    health, conversations = "/sandbox/api/health", "/sandbox/api/conversations"

    # At the start there is no policy before it: nothing is served, nothing made.
    assert await alice.json("GET", conversations) == (
        503,
        {"ok": False, "code": "misconfigured", "message": CONTRACT},
    )
    _, told = await dora.json("GET", health)
    assert told["problems"] == [f"{policy}: line 2: grants: 1 is not of type 'array'"]
    assert any(told["problems"][0] in r.getMessage() for r in caplog.records if r.levelno > 30)
    assert os.listdir(short_dir / "data") == ["policy.json"]

    # It is put right, without a restart.
    policy.write_text("{}")
    for who in (alice, carol, dora):
        assert (await who.json("GET", conversations))[0] == 200
    audit = (await server.ready()).audit

    # Idle, and then a change by REST: in force with the answer.
    await until(lambda: audit._task is None)
    status, told = await dora.json("PUT", "/sandbox/api/policy", NO_CAROL)
    assert (status, told["in_force"]) == (200, {"chat_sandbox": True, "grants": 1})
    assert (await carol.json("GET", conversations))[0] == 403
    await until(lambda: audit._task is None)

    # A bad text, no text: what is in force stays, and is told.
    for spoil in (
        lambda: policy.write_text('{\n "grants": }'),
        policy.unlink,
        lambda: policy.write_bytes(
            b'{"grants": [{"src": {"users": ["\xff"]}, "enable_chat_ui": false}]}'
        ),
        lambda: (policy.unlink(), policy.mkdir()),
    ):
        spoil()
        assert (await carol.json("GET", conversations))[0] == 403
        status, told = await dora.json("GET", "/sandbox/api/policy")
        assert (status, told["policy"]) == (200, None)
        assert told["in_force"] == {"chat_sandbox": True, "grants": 1}
        problem = told["problem"]["reason"]
        assert any(problem in r.getMessage() for r in caplog.records if r.levelname == "ERROR")
        status, told = await dora.json("GET", health)
        assert (status, told["policy"]["available"]) == (503, False)
        assert problem in told["message"]
        status, told = await alice.json("GET", health)
        assert status == 503
        assert problem not in json.dumps(told)
        assert str(policy) not in json.dumps(told)
    policy.rmdir()
    status, _ = await dora.json("PUT", "/sandbox/api/policy", {})
    assert status == 200
    assert (await carol.json("GET", conversations))[0] == 200


# --- the file


@pytest.fixture
def file(tmp_path):
    return AccessFile(tmp_path / "policy.json", LOG)


@attack("T42", on="")
def test_what_was_seen_counts_when_its_policy_is_in_force_not_before(tmp_path):
    noted = []

    def note(action: str, **detail: object) -> None:
        noted.append(action)
        if len(noted) == 2:
            raise RuntimeError("no running event loop")

    file = AccessFile(tmp_path / "policy.json", LOG, note)
    assert file.current().chat_sandbox
    file.path.write_text(OFF)
    with pytest.raises(RuntimeError):
        file.current()
    assert not file.current().chat_sandbox
    assert len(noted) == 2


@attack("T42", on="")
def test_a_file_that_is_gone_or_cannot_be_read_opens_nothing_and_is_read_when_it_can(
    file, monkeypatch
):
    file.path.write_text(OFF)
    assert not file.current().chat_sandbox
    file.path.rename(file.path.with_suffix(".away"))
    for _ in range(3):
        assert not file.current().chat_sandbox
        assert file.problem is not None
    file.path.with_suffix(".away").rename(file.path)
    assert not file.current().chat_sandbox
    assert file.problem is None

    # A file that cannot be opened, and then can: its contents are the same all the time.
    file.path.write_text("{}")
    opening = os.open
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", _refuse)
        assert not file.current().chat_sandbox
    assert os.open is opening
    assert file.current().chat_sandbox


def _refuse(*args: object, **kwargs: object) -> None:
    raise PermissionError(13, "Permission denied")


@attack("T42", on="")
def test_a_file_that_was_named_must_exist_at_the_start(tmp_path, caplog):
    file = AccessFile(tmp_path / "polcy.json", LOG, must_exist=True)
    assert not file.current().chat_sandbox
    with pytest.raises(Misconfigured) as refused:
        file.require()
    assert refused.value.problems == (
        f"{file.path}: there is no such file (`jupyter sandbox enable` makes one)",
    )
    assert len(caplog.records) == 1
    file.path.symlink_to(tmp_path / "nowhere")  # as good as none, also where none is needed
    assert not AccessFile(file.path, LOG).current().chat_sandbox
    file.path.unlink()
    file.replace("{}")
    file.require()


@attack("T42", on="")
def test_a_text_that_is_not_utf_8_is_no_policy(file):
    file.path.write_bytes(
        b'{"grants": [\n{"src": {"users": ["Jos\xe9"]}, "enable_chat_ui": false}]}'
    )
    assert not file.current().chat_sandbox
    assert (file.problem.line, file.problem.reason) == (2, "not UTF-8")


def test_who_may_read_the_file_stays_as_it_was_and_a_link_stays_a_link(tmp_path):
    target = tmp_path / "shared" / "policy.json"
    target.parent.mkdir()
    target.touch()
    target.chmod(0o640)
    (tmp_path / "policy.json").symlink_to(target)
    file = AccessFile(tmp_path / "policy.json", LOG)
    assert file.current().chat_sandbox
    file.replace(OFF)
    assert not file.current().chat_sandbox
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    assert file.path.is_symlink()
    assert os.listdir(target.parent) == ["policy.json"]


@attack("T42", on="")
def test_a_pipe_in_the_place_of_the_file_keeps_nobody_waiting(tmp_path):
    path = tmp_path / "policy.json"
    path.write_text('{"flags": {"chat_sandbox": {"value": false}}}')
    access = AccessFile(path, LOG)
    assert not access.current().chat_sandbox
    path.unlink()
    os.mkfifo(path)
    assert not access.current().chat_sandbox
    assert str(access.problem).endswith("is no regular file")


# --- what is for the loop only


@attack("T42", on="")
async def test_what_is_for_the_loop_only_is_refused_in_a_thread_whatever_else_goes_on(tmp_path):
    database = Database(f"sqlite:///{tmp_path / 'sandbox.db'}")
    await database.open()
    master = load_master_keys(tmp_path / "master.key", {})
    audit = AuditLog(AuditRecords(database.connections, master), tmp_path / "mark", LOG)
    records = messages_of(database)
    journal, feeds = Journal(records, LOG), MessageFeeds(records)
    try:
        audit.note("call")  # its task is there now, so nothing would fail by itself
        journal.add("c", "notice", {})
        feeds.open("c")
        for call in (
            lambda: audit.note("call"),
            lambda: audit.note_denial("c"),
            lambda: journal.add("c", "notice", {}),
            lambda: feeds.open("c"),
            lambda: feeds.written({"c": 1}),
        ):
            with pytest.raises(RuntimeError, match="no running event loop"):
                await asyncio.to_thread(call)
    finally:
        feeds.end()
        with contextlib.suppress(Exception):
            await journal.close()
        await audit.close()
        await database.close()
