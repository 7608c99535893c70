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

from benchmarks.server import running_server
from tests.live_server import LiveServer

from .canary import listening_canary

CHROMIUM = "/usr/bin/chromium"
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
