"""The deep check starts a sandbox: no page of another site may ask for it with a user's cookie."""

from __future__ import annotations

import pytest
from jupyter_server.auth import IdentityProvider, User

from jupyter_sandbox import testing
from jupyter_sandbox.tools.five_steps import FiveSteps
from tests.attacks import attack


class CookieLogin(IdentityProvider):
    """Who sends the cookie ``who=alice`` is alice, as after a login; the usual token works too."""

    def get_user(self, handler):
        if handler.get_cookie("who") == "alice":
            return User("alice")
        return super().get_user(handler)


@pytest.fixture(params=["auto"])
def engine_name(request):
    return request.param


@pytest.fixture
def sandbox_config():
    return {"ServerApp": {"identity_provider_class": CookieLogin}}


@pytest.fixture
def ask(api, jp_serverapp, http_server_client, jp_base_url):
    """Send a request with a cookie and nothing else; gives the status and the code."""
    jp_serverapp.web_app.settings["jupyter_sandbox"]._sandbox_engine = testing.FakeEngine()

    async def send(method: str, path: str, **headers: str):
        response = await http_server_client.fetch(
            f"{jp_base_url}sandbox/api/{path}",
            method=method,
            headers=headers,
            body="" if method == "POST" else None,
            raise_error=False,
        )
        return response.code, response.body

    return send


@attack("T63", on="")
async def test_a_page_of_another_site_starts_no_sandbox_by_an_image(ask, monkeypatch):
    asked = []
    monkeypatch.setattr(FiveSteps, "run", lambda steps, owner: asked.append(owner))
    code, body = await ask("GET", "health?deep=1", Cookie="who=alice")
    assert (code, b"token" in body) == (403, True)
    code, body = await ask("GET", "health", Cookie="who=alice")
    assert b'"steps"' not in body
    assert code == 200  # looking is allowed
    assert asked == []


@attack("T63", on="")
async def test_by_post_the_page_must_be_the_servers_own(ask):
    code, _ = await ask("POST", "health", Cookie="who=alice")
    assert code == 403  # no XSRF token
    own = {"Cookie": "who=alice; _xsrf=a", "X-XSRFToken": "a"}
    code, body = await ask("POST", "health", **own)
    assert code in (200, 503)
    assert b'"steps"' in body


async def test_by_get_a_token_still_serves(ask, api):
    status, report = await api.json("GET", "health?deep=1")
    assert status in (200, 503)
    assert report["steps"]
