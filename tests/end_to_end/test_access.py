"""Every route and method × every kind of caller, made from the table of routes; the switch at work.

alice owns the conversation; bob is another user; dora administers; carol has no chat access; nobody
has no token.
"""

from __future__ import annotations

import asyncio
import json
import re
import statistics
import time
import uuid

import pytest
from jupyter_server.auth import IdentityProvider, User

from jupyter_sandbox.routes import ROUTES
from jupyter_sandbox.routes.by_hand import ByHandHandler
from tests.attacks import attack
from tests.conftest import text_of

USERS = ("alice", "bob", "carol", "dora")
MISSING = "00000000-0000-4000-8000-000000000000"
OPEN = {
    "/sandbox/api/tools",
    "/sandbox/mcp",
    "/sandbox/api/policy",
    "/sandbox/api/health",
    "/sandbox/api/openapi.json",
}
"""Routes that say themselves what they give to whom; each has a test of its own."""

NO_CAROL = {"grants": [{"src": {"users": ["carol"]}, "enable_chat_ui": False}]}
OFF = {"flags": {"chat_sandbox": {"value": False}}, **NO_CAROL}


class Users(IdentityProvider):
    """A token is the name of its user."""

    async def get_user(self, handler):
        token = handler.request.headers.get("Authorization", "").removeprefix("token ")
        if token not in USERS:
            return None
        handler._token_authenticated = True
        return User(token)


pytestmark = pytest.mark.own_server


@pytest.fixture(params=[pytest.param("bubblewrap", marks=pytest.mark.bubblewrap)])
def engine_name(request):
    """Access is decided before any engine is asked: one engine shows it."""
    return request.param


@pytest.fixture
def sandbox_config():
    return {
        "ServerApp": {"identity_provider_class": Users},
        "SandboxApp": {"administrators": {"dora"}},
    }


@pytest.fixture
def policy_file(server_dir):
    path = server_dir / "data" / "policy.json"
    path.parent.mkdir(mode=0o700, exist_ok=True)  # a server makes it with its first request

    def put(policy: object) -> None:
        path.write_text(policy if isinstance(policy, str) else json.dumps(policy))

    put(NO_CAROL)
    return put


class As:
    """The routes as one user asks them."""

    def __init__(self, api, user: str) -> None:
        self.api, self.user = api, user

    async def ask(self, method: str, path: str, body=None, **headers: str):
        token = {"Authorization": f"token {self.user}"} if self.user else {"Authorization": ""}
        sent = b"{}" if body is None and method in ("POST", "PUT", "PATCH") else body
        parts = path.strip("/").split("/")
        old, self.api.base = self.api.base, ()
        try:
            return await self.api.raw(
                method, *parts, body=sent, headers={**token, **headers}, follow_redirects=False
            )
        finally:
            self.api.base = old

    async def json(self, method: str, path: str, body: object = None):
        response = await self.ask(method, path, None if body is None else json.dumps(body))
        return response.code, json.loads(response.body) if response.body else None


@pytest.fixture
def user(api, policy_file):
    return lambda name: As(api, name)


def every_method() -> list[tuple[str, str]]:
    found = []
    for pattern, handler in ROUTES:
        for method in ("get", "head", "post", "put", "patch", "delete"):
            if method in vars(handler):
                found.append((method.upper(), pattern))
    return found


def url(pattern: str, conversation_id: str) -> str:
    values = {"conversation_id": conversation_id, "path": "/uploads/a.txt", "name": "a.txt"}

    def value(match: re.Match) -> str:
        given = values.get(match[1], MISSING)
        return given.lstrip("/") if "/" not in match[0] else given

    return re.sub(r"\(\?P<(\w+)>[^)]*\)", value, pattern).replace("\\.", ".").replace("//", "/")


async def conversation_of(who: As) -> str:
    status, model = await who.json("POST", "/sandbox/api/conversations", {})
    assert status == 201, model
    path = f"/sandbox/api/conversations/{model['id']}/uploads/a.txt"
    assert (await who.ask("PUT", path, b"secret of alice")).code == 201
    return model["id"]


def shape(response) -> tuple:
    """Everything of an answer but what names the moment or the request itself."""
    skipped = {"Date", "X-Request-Id"}
    headers = sorted((k, v) for k, v in response.headers.get_all() if k not in skipped)
    return response.code, headers, response.body


@attack("T40", on="")
async def test_nobody_without_a_token_is_answered(user):
    conversation = await conversation_of(user("alice"))
    implemented = set(every_method())
    for pattern, _ in ROUTES:
        for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"):
            response = await user("").ask(method, url(pattern, conversation))
            expected = {401} if (method, pattern) in implemented else {401, 405}
            assert response.code in expected, (method, pattern, response.body)
            assert b"secret" not in (response.body or b"")


async def test_a_foreign_conversation_answers_as_a_missing_one_does(user):
    conversation = await conversation_of(user("alice"))
    for name in ("bob", "dora"):
        for method, pattern in every_method():
            if "conversation_id" not in pattern:
                continue
            if name == "dora" and issubclass(dict(ROUTES)[pattern], ByHandHandler):
                continue  # administrators manage all sandboxes: tests/end_to_end/test_by_hand.py
            foreign = await user(name).ask(method, url(pattern, conversation))
            missing = await user(name).ask(method, url(pattern, MISSING))
            assert foreign.code in (404, 405), (method, pattern, foreign.body)
            assert shape(foreign) == shape(missing), (method, pattern)
    status, _ = await user("alice").json("GET", f"/sandbox/api/conversations/{conversation}")
    assert status == 200


async def test_without_a_grant_all_is_forbidden_before_any_look_up(user):
    conversation = await conversation_of(user("alice"))
    for method, pattern in every_method():
        if pattern.replace("\\.", ".") in OPEN:
            continue
        for conversation_id in (conversation, MISSING):
            response = await user("carol").ask(method, url(pattern, conversation_id))
            assert response.code == 403, (method, pattern, response.body)
            if method != "HEAD":
                assert json.loads(response.body)["code"] == "forbidden"


async def test_while_the_feature_is_off_all_is_unavailable_for_everybody(user, policy_file):
    conversation = await conversation_of(user("alice"))
    policy_file(OFF)
    for method, pattern in every_method():
        if pattern.replace("\\.", ".") in OPEN:
            continue
        for name in ("alice", "carol"):  # 503 comes before 403
            response = await user(name).ask(method, url(pattern, conversation))
            assert response.code == 503, (method, pattern, response.body)
            if method != "HEAD":
                assert json.loads(response.body)["code"] == "feature_off"
    policy_file(NO_CAROL)
    path = f"/sandbox/api/conversations/{conversation}/uploads/a.txt"
    assert (await user("alice").ask("GET", path)).body == b"secret of alice"


async def test_who_has_no_access_finds_no_tools(user, policy_file):
    async def tools(name: str) -> list:
        return (await user(name).json("GET", "/sandbox/api/tools"))[1]["tools"]

    async def mcp(user_name: str, method: str, **params: object) -> dict:
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        return (await user(user_name).json("POST", "/sandbox/mcp", body))[1]["result"]

    assert await tools("alice")
    assert not await tools("carol")
    assert (await mcp("alice", "tools/list"))["tools"]
    assert not (await mcp("carol", "tools/list"))["tools"]
    refused = await mcp("carol", "tools/call", name="bash", arguments={"command": "true"})
    assert refused["isError"]
    assert "Chat access was taken" in refused["content"][0]["text"]
    policy_file(OFF)
    assert not await tools("alice")
    assert not (await mcp("alice", "tools/list"))["tools"]
    policy_file({})
    assert await tools("carol")


async def test_the_list_of_conversations_has_the_callers_own(user):
    conversation = await conversation_of(user("alice"))
    _, mine = await user("alice").json("GET", "/sandbox/api/conversations")
    _, others = await user("bob").json("GET", "/sandbox/api/conversations")
    assert [model["id"] for model in mine["conversations"]] == [conversation]
    assert others["conversations"] == []


async def test_the_same_key_of_two_users_gives_two_conversations(user):
    ids = {
        (await user(name).json("POST", "/sandbox/api/conversations", {"key": "k"}))[1]["id"]
        for name in ("alice", "bob")
    }
    assert len(ids) == 2


async def test_switching_off_lets_a_running_command_complete_and_loses_nothing(user, policy_file):
    alice = user("alice")
    conversation = await conversation_of(alice)
    bash = f"/sandbox/api/conversations/{conversation}/tools/bash"
    assert text_of((await alice.json("POST", bash, {"command": "echo kept > f"}))[1])
    running = asyncio.ensure_future(
        alice.json("POST", bash, {"command": "touch began; sleep 3; echo whole"})
    )
    await asyncio.sleep(0)
    deadline = time.monotonic() + 20
    while "began" not in text_of((await alice.json("POST", bash, {"command": "ls"}))[1]):
        assert time.monotonic() < deadline
    policy_file(OFF)
    status, refused = await alice.json("POST", bash, {"command": "true"})
    assert (status, refused["code"]) == (503, "feature_off")
    status, result = await running
    assert status == 200
    assert text_of(result).startswith("whole\n")
    policy_file(NO_CAROL)
    status, result = await alice.json("POST", bash, {"command": "cat f"})
    assert text_of(result).startswith("kept\n")


async def test_a_malformed_policy_changes_nothing(user, policy_file):
    policy_file("{ not json")
    status, _ = await user("alice").json("POST", "/sandbox/api/conversations", {})
    assert status == 503  # it was malformed from the start: nobody has access
    policy_file(NO_CAROL)
    assert (await user("alice").json("GET", "/sandbox/api/conversations"))[0] == 200
    policy_file('{\n "grants": 1}')
    assert (await user("alice").json("GET", "/sandbox/api/conversations"))[0] == 200
    assert (await user("carol").json("GET", "/sandbox/api/conversations"))[0] == 403
    _, told = await user("dora").json("GET", "/sandbox/api/policy")
    assert told["problem"]["line"] == 2
    assert told["in_force"] == {"chat_sandbox": True, "grants": 1}


async def test_administrators_read_and_change_the_policy_and_others_do_not(user):
    path = "/sandbox/api/policy"
    for name in ("alice", "carol"):
        assert (await user(name).json("GET", path))[0] == 403
        assert (await user(name).json("PUT", path, OFF))[0] == 403
    status, told = await user("dora").json("GET", path)
    assert (status, told["policy"]) == (200, NO_CAROL)
    status, refused = await user("dora").json("PUT", path, {"flags": {"chat_sandbox": 1}})
    assert (status, refused["code"]) == (422, "invalid_request")
    assert "Line 1" in refused["message"]
    assert (await user("alice").json("GET", "/sandbox/api/conversations"))[0] == 200
    status, told = await user("dora").json("PUT", path, OFF)
    assert (status, told["in_force"]) == (200, {"chat_sandbox": False, "grants": 1})
    assert (await user("alice").json("GET", "/sandbox/api/conversations"))[0] == 503
    assert (await user("dora").json("PUT", path, {}))[0] == 200
    assert (await user("carol").json("GET", "/sandbox/api/conversations"))[0] == 200


@attack("T26", on="")
@pytest.mark.alone
async def test_foreign_and_missing_cannot_be_told_apart_by_time(user):
    """1,000 tries of each, taken in turn: the medians differ by less than the spread of one."""
    conversation = await conversation_of(user("alice"))
    bob, times = user("bob"), {"foreign": [], "missing": []}
    for _ in range(1000):
        for kind, target in (("foreign", conversation), ("missing", str(uuid.uuid4()))):
            began = time.perf_counter()
            response = await bob.ask("GET", f"/sandbox/api/conversations/{target}")
            times[kind].append(time.perf_counter() - began)
            assert response.code == 404
    quartiles = statistics.quantiles(times["missing"], n=4)
    difference = abs(statistics.median(times["foreign"]) - statistics.median(times["missing"]))
    assert difference < quartiles[2] - quartiles[0]


async def test_stock_routes_of_the_server_know_nothing_of_a_sandbox(user):
    alice = user("alice")
    conversation = await conversation_of(alice)
    run = f"/sandbox/api/conversations/{conversation}/tools/python"
    await alice.json("POST", run, {"code": "marker = 1"})
    for path in ("kernels", "sessions", "kernelspecs", "contents", "terminals"):
        response = await user("bob").ask("GET", f"/api/{path}")
        assert conversation.encode() not in (response.body or b"")
        assert b"sandbox" not in (response.body or b"").lower(), path
    assert json.loads((await user("bob").ask("GET", "/api/kernels")).body) == []
    assert json.loads((await user("bob").ask("GET", "/api/sessions")).body) == []
