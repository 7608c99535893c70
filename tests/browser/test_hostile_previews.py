"""What a hostile file tries in its preview: nothing leaves, nothing is read, in a new tab neither."""

from __future__ import annotations

import json
import time

import pytest

from tests.attacks import attack

from . import hostile
from .previewed import inner_frame, open_preview


@pytest.fixture(scope="module")
def conversation(live_server):
    return live_server.conversation("hostile")


def direct_url(page) -> str:
    """Give the address of the document in the frame."""
    return page.locator("iframe").evaluate("frame => frame.src")


@pytest.mark.parametrize("name", ["img", "fetch", "webrtc", "self navigation", "form", "popup"])
def test_without_our_headers_the_canary_hears(name, canary, page, live_server):
    body = hostile.page({**hostile.CONTACTS, **hostile.DEPARTURES}[name], canary).decode()
    bare = f"{live_server.url}bare"
    page.route(bare, lambda route: route.fulfill(body=body, content_type="text/html"))
    page.goto(bare, wait_until="commit")
    deadline = time.monotonic() + 10
    while not (canary.connections or canary.datagrams) and time.monotonic() < deadline:
        page.wait_for_timeout(50)
    assert canary.connections or canary.datagrams


@attack("T31")
def test_an_html_file_that_tries_every_contact_reaches_nobody(
    live_server, conversation, page, canary
):
    parts = [*hostile.CONTACTS.values(), "<script>document.body.id = 'ran'</script>"]
    live_server.upload(conversation, "hostile.html", hostile.page("\n".join(parts), canary))
    open_preview(page, live_server, conversation, "hostile.html")
    inner_frame(page).wait_for_selector("body#ran")
    canary.assert_silent()


@pytest.mark.parametrize("name", hostile.DEPARTURES)
@attack("T31")
def test_an_html_file_cannot_lead_away(name, live_server, conversation, context, page, canary):
    live_server.upload(conversation, "hostile.html", hostile.page(hostile.DEPARTURES[name], canary))
    open_preview(page, live_server, conversation, "hostile.html")
    shell = page.url
    canary.assert_silent()
    assert page.url == shell
    assert len(context.pages) == 1, "a window was opened"


@attack("T31")
def test_an_html_file_reads_nothing_that_is_the_users(
    live_server, conversation, context, page, screenshot
):
    before = context.cookies()
    context.grant_permissions(["geolocation", "clipboard-read", "camera"])
    live_server.upload(conversation, "reads.html", hostile.READS.encode())
    open_preview(page, live_server, conversation, "reads.html")
    found = json.loads(inner_frame(page).locator("#found").inner_text())
    shell = page.url.encode()
    assert found.pop("referrer", shell.decode()) == page.url  # of its own shell: without a secret
    assert found == {}
    known = {(cookie["name"], cookie["value"]) for cookie in before}
    planted = {c["name"] for c in context.cookies()} - {name for name, _ in known} - {"_xsrf"}
    assert planted == set()
    assert live_server.json("GET", "conversations")["conversations"]


@pytest.mark.parametrize(
    ("name", "text"), [("svg.svg", hostile.SVG), ("markdown.md", hostile.MARKDOWN)]
)
@attack("T32", "T33")
def test_svg_and_markdown_reach_nobody(
    name, text, live_server, conversation, context, page, canary, screenshot
):
    live_server.upload(conversation, name, hostile.page(text, canary))
    open_preview(page, live_server, conversation, name)
    canary.assert_silent()
    screenshot(page, f"hostile-{name}")
    assert len(context.pages) == 1
    assert not [cookie for cookie in context.cookies() if cookie["name"] == "planted"]
    # The download itself, opened in a tab.
    tab = context.new_page()
    with pytest.raises(Exception, match=r"Download is starting|ERR_ABORTED"):
        tab.goto(f"{live_server.url}sandbox/api/conversations/{conversation}/uploads/{name}")
    canary.assert_silent()


@pytest.mark.parametrize("name", ["hostile.html", "hostile.md"])
def test_a_documents_own_address_in_a_new_tab_leads_to_its_shell(
    name, live_server, conversation, context, page, canary
):
    text = "\n".join(hostile.CONTACTS.values()) if name.endswith("html") else hostile.MARKDOWN
    live_server.upload(conversation, name, hostile.page(text, canary))
    shell = open_preview(page, live_server, conversation, name).url
    address = direct_url(page)
    assert "/preview/leased/" in address
    tab = context.new_page()
    tab.goto(address)
    assert tab.url == shell
    inner_frame(tab)
    canary.assert_silent()


@attack("T37")
def test_a_stranger_with_the_address_sees_nothing(live_server, conversation, page, chromium):
    live_server.upload(conversation, "mine.txt", b"my secret")
    open_preview(page, live_server, conversation, "mine.txt")
    address = direct_url(page)
    stranger = chromium.new_context()
    tab = stranger.new_page()
    answer = tab.goto(address)
    assert answer.status == 401  # of the shell that it was led to
    assert "secret" not in tab.content()
    stranger.close()


def test_another_sites_page_can_neither_frame_nor_read_a_preview(
    live_server, conversation, context, page, canary
):
    live_server.upload(conversation, "mine.txt", b"my secret")
    open_preview(page, live_server, conversation, "mine.txt")
    addresses = [page.url, direct_url(page)]
    frames = "".join(f"<iframe src='{address}'></iframe>" for address in addresses)
    evil = context.new_page()
    evil.route(
        "http://canary.test/**",
        lambda route: route.fulfill(body=f"<h1>evil</h1>{frames}", content_type="text/html"),
    )
    evil.goto("http://canary.test/")
    assert len(evil.frames) == 3
    for frame in evil.frames[1:]:
        assert "secret" not in frame.content()
        assert frame.locator("iframe, pre").count() == 0


def test_no_line_of_the_log_has_a_token(live_server, conversation, context, page):
    live_server.upload(conversation, "logged.txt", b"x")
    open_preview(page, live_server, conversation, "logged.txt")
    address = direct_url(page)
    token = address.split("/leased/")[1].split("/")[0]
    context.new_page().goto(address)  # 302
    wrong = address.replace("/view", "/other")
    assert context.request.get(wrong).status == 404
    log = live_server.log()
    assert "/sandbox/preview/leased/[token]/" in log
    assert token not in log
