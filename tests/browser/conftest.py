"""A real Chromium, a real server process on loopback, and a canary that nobody may reach.

The tests are synchronous: Playwright's own loop runs in them, so they take no fixture of
pytest-jupyter. Chromium resolves no name and reaches nothing but loopback.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from benchmarks.server import BenchServer, running_server

from .canary import listening_canary

CHROMIUM = "/usr/bin/chromium"
OUTPUTS = "/mnt/user-data/outputs"
_HERE = Path(__file__).parent


def pytest_collection_modifyitems(items):
    for item in items:
        if _HERE in item.path.parents:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(autouse=True)
def jp_asyncio_loop():
    """Take the place of pytest-jupyter's, which would close the loop that Playwright uses."""


@pytest.fixture(autouse=True)
def jp_server_cleanup():
    """Take the place of pytest-jupyter's: no server runs in this process."""


@pytest.fixture(scope="package")
def chromium():
    """One Chromium for the tests of this folder; elsewhere its loop would be in the way."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=[
                "--no-sandbox",
                "--host-resolver-rules=MAP canary.test 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
            ],
        )
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def server_settings() -> tuple[str, ...]:
    """Further words for the server's command line; a module overrides it."""
    return ()


@pytest.fixture(scope="module")
def server_command() -> tuple[str, ...]:
    """What Python runs; ``("-m", "jupyter", "lab")`` for JupyterLab."""
    return ("-m", "jupyter", "server")


@pytest.fixture(scope="module")
def live_server(server_settings, server_command):
    """A server process with sandboxes of bubblewrap; what browsers see is the same on each engine."""
    with running_server("bubblewrap", settings=server_settings, command=server_command) as server:
        yield LiveServer(server)


class LiveServer:
    """The server, and its API as an assistant uses it.

    Attributes
    ----------
    url : str
        Ends with ``/``.
    """

    def __init__(self, server: BenchServer) -> None:
        self._server = server
        self.url = server.url
        self.token = server.token
        self.directory = server.directory

    def json(self, method: str, path: str, body: object = None) -> Any:
        """Ask the API (``path`` below ``sandbox/api/``); what is no success fails."""
        client = self._server.client()
        try:
            return client.json(method, path, body)
        finally:
            client.close()

    def conversation(self, title: str = "") -> str:
        return self.json("POST", "conversations", {"title": title})["id"]

    def call(self, conversation: str, tool: str, **arguments: object) -> dict[str, Any]:
        return self.json("POST", f"conversations/{conversation}/tools/{tool}", arguments)

    def upload(self, conversation: str, name: str, data: bytes) -> None:
        client = self._server.client()
        try:
            client.put(f"conversations/{conversation}/uploads/{name}", data)
        finally:
            client.close()

    def share(self, conversation: str, name: str, data: bytes) -> dict[str, Any]:
        """Share a file of this name and contents; give its card."""
        self.upload(conversation, name, data)
        copied = self.call(
            conversation, "bash", command=f"cp '/mnt/user-data/uploads/{name}' {OUTPUTS}/"
        )
        assert copied["exit_code"] == 0, copied
        result = self.call(conversation, "share_files", paths=[f"{OUTPUTS}/{name}"])
        assert not result["is_error"], result
        return next(part for part in result["content"] if part["type"] == "file")

    def kill(self) -> None:
        """End the server as a crash does."""
        self._server.kill()

    def start_again(self) -> None:
        """Start the server once more, on the same data, at the same address."""
        self._server.start_again()

    def log(self) -> str:
        """Give what the server has logged."""
        return (self.directory / "server.log").read_text(errors="replace")


@pytest.fixture
def context(chromium: Browser, live_server: LiveServer):
    """A browser session of a user who has logged in (by cookie, as in JupyterLab)."""
    context = chromium.new_context(viewport={"width": 1000, "height": 720})
    context.set_default_timeout(20_000)
    log_in(context, live_server)
    yield context
    context.close()


def log_in(context: BrowserContext, live_server: LiveServer) -> None:
    page = context.new_page()
    page.goto(f"{live_server.url}api/status?token={live_server.token}")
    page.close()
    assert any(cookie["name"].startswith("username-") for cookie in context.cookies())


@pytest.fixture
def page(context: BrowserContext) -> Page:
    return context.new_page()


@pytest.fixture
def canary():
    with listening_canary() as canary:
        yield canary


@pytest.fixture
def screenshot(request, tmp_path_factory):
    """Keep a picture to look at: in $JSBX_SCREENSHOTS, else in pytest's directory.

    ``screenshot(page, "name")`` gives its path.
    """
    kept = os.environ.get("JSBX_SCREENSHOTS")
    directory = Path(kept) if kept else tmp_path_factory.mktemp("screenshots")

    def take(page: Page, name: str, **options: Any) -> Path:
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / f"{re.sub(r'[^A-Za-z0-9._-]+', '-', name)}.png"
        page.screenshot(path=path, animations="disabled", **options)
        return path

    return take
