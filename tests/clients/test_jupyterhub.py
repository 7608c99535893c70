"""JupyterHub with several users: their own servers, a shared server, and one server for all.

alice and bob are in the group research, carol is in none, dora administers the Hub.
"""

from __future__ import annotations

import json

import httpx
import pytest

from .hub import running_hub, wait_for

ALICES = "/user/alice/"
BOBS = "/user/bob/"
FOR_ALL = "/services/sandbox/"
ONLY_RESEARCH = {"grants": [{"src": {"groups": ["research"]}, "enable_chat_ui": True}]}


@pytest.fixture(scope="module")
def hub():
    with running_hub() as hub:
        for name in ("alice", "bob", "carol", "dora"):
            if name not in {user["name"] for user in hub.hub("GET", "/users").json()}:
                hub.hub("POST", f"/users/{name}")
        hub.start_servers("alice", "bob")
        yield hub


@pytest.fixture(autouse=True)
def no_policy(hub):
    yield
    hub.policy.write_text("{}")


class Sandbox:
    """A user's conversation on a server."""

    def __init__(self, client: httpx.Client, below: str) -> None:
        self._client = client
        self._conversations = f"{below}sandbox/api/conversations"
        created = client.post(self._conversations, json={})
        assert created.status_code == 201, created.text
        self.path = f"{self._conversations}/{created.json()['id']}"

    def bash(self, command: str) -> str:
        answer = self._client.post(f"{self.path}/tools/bash", json={"command": command})
        assert answer.status_code == 200, answer.text
        return "\n".join(part["text"] for part in answer.json()["content"])

    def delete(self) -> None:
        assert self._client.delete(self.path).status_code == 204


def ids(client: httpx.Client, below: str) -> list[str]:
    listed = client.get(f"{below}sandbox/api/conversations")
    assert listed.status_code == 200, listed.text
    return [each["id"] for each in listed.json()["conversations"]]


def test_each_user_has_sandboxes_on_a_server_that_others_do_not_reach(hub):
    clients = {
        "alice": (hub.by_token("alice"), hub.by_cookie("alice", ALICES), ALICES),
        "bob": (hub.by_token("bob"), hub.by_cookie("bob", BOBS), BOBS),
    }
    made = {}
    for name, (by_token, by_cookie, below) in clients.items():
        made[name] = [Sandbox(by_token, below), Sandbox(by_cookie, below)]
        for sandbox in made[name]:
            assert f"{name}s\n" in sandbox.bash(f"echo {name}s > mine; cat mine")
    for name, other in (("alice", "bob"), ("bob", "alice")):
        by_token, by_cookie, below = clients[name]
        assert len(ids(by_token, below)) == len(ids(by_cookie, below)) == 2
        for stranger in (*clients[other][:2], hub.by_cookie(other, below)):
            for sandbox in made[name]:
                assert stranger.get(sandbox.path).status_code == 401
                call = stranger.post(f"{sandbox.path}/tools/bash", json={"command": "id"})
                assert call.status_code in (401, 403)
    for sandbox in (*made["alice"], *made["bob"]):
        sandbox.delete()


def test_a_server_that_is_shared_keeps_its_users_apart(hub):
    alice = hub.by_token("alice")
    hers = Sandbox(alice, ALICES)
    hub.hub("POST", "/shares/alice/", {"user": "bob"})
    try:
        bob = hub.by_token("bob")  # a new one: servers remember for minutes what a token may
        his = Sandbox(bob, ALICES)
        assert "his\n" in his.bash("echo his > mine; cat mine")
        assert "hers\n" in hers.bash("echo hers > mine; cat mine")
        assert [his.path.endswith(each) for each in ids(bob, ALICES)] == [True]
        assert [hers.path.endswith(each) for each in ids(alice, ALICES)] == [True]
        for stranger, path in ((bob, hers.path), (alice, his.path)):
            assert stranger.get(path).status_code == 404
            call = stranger.post(f"{path}/tools/bash", json={"command": "id"})
            assert call.status_code == 404
        his.delete()
    finally:
        hub.hub("DELETE", "/shares/alice/?user=bob")
    hers.delete()


def test_one_server_for_all_has_sandboxes_and_nothing_else(hub):
    alice, carol = hub.by_token("alice"), hub.by_cookie("carol", FOR_ALL)
    hers, carols = Sandbox(alice, FOR_ALL), Sandbox(carol, FOR_ALL)
    assert "carols\n" in carols.bash("echo carols > mine; cat mine")
    assert alice.get(carols.path).status_code == carol.get(hers.path).status_code == 404
    for path in ("api/kernels", "api/contents", "api/sessions", "api/terminals", "files/x"):
        assert alice.get(f"{FOR_ALL}{path}").status_code in (403, 404), path
    started = alice.post(f"{FOR_ALL}api/kernels", json={})
    assert started.status_code == 403
    hers.delete()
    carols.delete()


def test_grants_are_by_the_hubs_groups(hub):
    alice, carol = hub.by_token("alice"), hub.by_token("carol")
    conversations = f"{FOR_ALL}sandbox/api/conversations"
    assert carol.get(conversations).status_code == 200
    hub.policy.write_text(json.dumps(ONLY_RESEARCH))
    wait_for(lambda: carol.get(conversations).status_code == 403, "the policy")  # a watched file
    assert alice.get(conversations).status_code == 200
    assert alice.get(f"{ALICES}sandbox/api/conversations").status_code == 200
    by_cookie = hub.by_cookie("alice", FOR_ALL), hub.by_cookie("carol", FOR_ALL)
    assert [client.get(conversations).status_code for client in by_cookie] == [200, 403]


def test_the_hubs_administrators_may_change_flags_and_grants(hub):
    policy = f"{FOR_ALL}sandbox/api/policy"
    for client, status in (
        (hub.by_token("dora"), 200),
        (hub.by_cookie("dora", FOR_ALL), 200),
        (hub.by_token("alice"), 403),
        (hub.by_cookie("alice", FOR_ALL), 403),
    ):
        assert client.get(policy).status_code == status
        changed = client.put(policy, json={"flags": {"chat_sandbox": {"value": True}}})
        assert changed.status_code == status, changed.text
