"""What a previewed page can do with the user's clipboard and screen, after the user has clicked it."""

from __future__ import annotations

import pytest

from tests.attacks import attack

from .previewed import inner_frame, open_preview

TRIES = {
    "the clipboard's interface": """
        try { await navigator.clipboard.writeText('planted'); } catch (error) { said = `${error}`; }
    """,
    "the old command": """
        const area = document.body.appendChild(document.createElement('textarea'));
        area.value = 'planted'; area.select(); said = `${document.execCommand('copy')}`;
    """,
    "an event of its own": """
        document.addEventListener('copy', event => {
            event.clipboardData.setData('text/plain', 'planted'); event.preventDefault();
        });
        said = `${document.execCommand('copy')}`;
    """,
}
PAGE = """<!doctype html><button id="press">press</button><p id="said"></p><script>
document.getElementById('press').addEventListener('click', async () => {
    let said = 'done';
    %s
    document.getElementById('said').textContent = said;
});
</script>"""


@pytest.fixture(scope="module")
def conversation(live_server):
    return live_server.conversation("clipboard")


@pytest.fixture
def clipboard(context, live_server):
    """The user's clipboard, through a page that may use it; it begins with "mine"."""
    bare = f"{live_server.url}clipboard"
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    context.route(bare, lambda route: route.fulfill(body="<p>mine", content_type="text/html"))
    page = context.new_page()
    page.goto(bare)
    page.evaluate("navigator.clipboard.writeText('mine')")

    def read() -> str:
        page.bring_to_front()
        return page.evaluate("navigator.clipboard.readText()")

    return read


@pytest.mark.parametrize("name", TRIES)
def test_without_our_headers_the_clipboard_is_written(name, clipboard, context, live_server):
    bare = f"{live_server.url}bare"
    page = context.new_page()
    page.route(bare, lambda route: route.fulfill(body=PAGE % TRIES[name], content_type="text/html"))
    page.goto(bare)
    page.click("#press")
    page.wait_for_selector("#said:not(:empty)")
    assert clipboard() == "planted"


@pytest.mark.parametrize("name", TRIES)
@attack("T64")
def test_a_click_into_a_previewed_page_leaves_the_clipboard_alone(
    name, clipboard, live_server, conversation, page
):
    live_server.upload(conversation, "page.html", (PAGE % TRIES[name]).encode())
    page.bring_to_front()
    open_preview(page, live_server, conversation, "page.html")
    frame = inner_frame(page)
    frame.click("#press")
    frame.wait_for_selector("#said:not(:empty)")
    said = frame.inner_text("#said")
    assert clipboard() == "mine", said
