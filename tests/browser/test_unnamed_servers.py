"""Previews on a server that no source of a content security policy can name: nothing runs there."""

from __future__ import annotations

import pytest

from tests.attacks import attack

from . import hostile
from .conftest import CHROMIUM
from .previewed import inner_frame

UNNAMED = ("[::1]", "my_server.test")
TRIES = {
    "webrtc": hostile.CONTACTS["webrtc"],
    "meta refresh": hostile.DEPARTURES["meta refresh"],
    "all": "\n".join([*hostile.CONTACTS.values(), *hostile.DEPARTURES.values()]),
}


@pytest.fixture(scope="module")
def server_settings():
    return ("--ServerApp.allow_remote_access=True",)


@pytest.fixture(scope="module")
def conversation(live_server):
    return live_server.conversation("unnamed")


@pytest.fixture(scope="module")
def browser(chromium):
    """A Chromium for which all these names are 127.0.0.1."""
    rules = "MAP ::1 127.0.0.1, MAP my_server.test 127.0.0.1, MAP canary.test 127.0.0.1"
    browser = chromium.browser_type.launch(
        executable_path=CHROMIUM,
        args=["--no-sandbox", f"--host-resolver-rules={rules}, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"],
    )
    yield browser
    browser.close()


@pytest.fixture
def open_at(browser, live_server, conversation):
    """Open the preview of an upload on the server by another of its names: ``open_at(host, name)``."""
    contexts = []

    def open_(host: str, name: str):
        context = browser.new_context(viewport={"width": 1000, "height": 720})
        contexts.append(context)
        context.set_default_timeout(20_000)
        url = live_server.url.replace("127.0.0.1", host)
        page = context.new_page()
        page.goto(f"{url}api/status?token={live_server.token}")
        answer = page.goto(f"{url}sandbox/preview/{conversation}/uploads/{name}")
        assert answer.status == 200
        return page

    yield open_
    for context in contexts:
        context.close()


@pytest.mark.parametrize("host", UNNAMED)
@pytest.mark.parametrize("name", TRIES)
@attack("T49")
def test_what_an_html_file_tries_reaches_nobody(
    name, host, live_server, conversation, canary, open_at, screenshot
):
    text = f"<p id=shown>shown</p>{TRIES[name]}<script>document.body.id = 'ran'</script>"
    live_server.upload(conversation, "hostile.html", hostile.page(text, canary))
    page = open_at(host, "hostile.html")
    frame = inner_frame(page)
    frame.wait_for_selector("text=shown")
    canary.assert_silent()
    assert frame.url.endswith("/view")
    assert frame.locator("body#ran").count() == 0
    assert "Scripts are off" in page.locator(".notice").inner_text()
    screenshot(page, f"unnamed-{host}-{name}")


def test_by_a_name_that_can_be_said_scripts_run(live_server, conversation, canary, open_at):
    text = "<p>x</p><script>document.body.id = 'ran'</script>"
    live_server.upload(conversation, "runs.html", text.encode())
    page = open_at("127.0.0.1", "runs.html")
    inner_frame(page).wait_for_selector("body#ran")
    assert page.locator(".notice").count() == 0


@pytest.mark.parametrize("host", UNNAMED)
def test_other_previews_are_shown_there(host, live_server, conversation, open_at):
    live_server.upload(conversation, "a.md", b"# Title")
    live_server.upload(
        conversation, "a.svg", b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>"
    )
    assert inner_frame(open_at(host, "a.md")).locator("h1").inner_text() == "Title"
    page = open_at(host, "a.svg")
    page.wait_for_function("document.images[0].complete")
    assert page.evaluate("document.images[0].naturalWidth") == 9
