"""PDF previews: what is in them can be read, searched and enlarged, and leads nowhere."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from tests.attacks import attack

from . import hostile
from .previewed import inner_frame, open_preview

# Links as annotations over the whole page, one that opens a window, and an address as text.
LINKS = """<style>@page {{ margin: 0 }} a {{ position: absolute; left: 0; width: 100%; height: 33% }}</style>
<a href='{at}/one' style='top: 0'>one</a><a href='{at}/two' target=_blank style='top: 33%'>two</a>
<p style='position: absolute; top: 70%; font-size: 40px'>{at}/three</p>"""
PAGES = "".join(
    f"<h1 style='break-before: page'>Page {n}</h1><p>{'A line of words. ' * 60}</p><p>needle{n}</p>"
    for n in range(1, 6)
)


@pytest.fixture(scope="module")
def conversation(live_server):
    return live_server.conversation("pdf")


@pytest.fixture
def printed(context):
    """Print HTML as a PDF: ``printed(html)``."""

    def print_(html: str) -> bytes:
        writer = context.new_page()
        writer.set_content(html)
        data = writer.pdf(format="A4")
        writer.close()
        return data

    return print_


def shown(page):
    """Give the frame when the first page of the PDF is drawn."""
    frame = inner_frame(page)
    frame.wait_for_selector("body[data-rendered]")
    return frame


def click_everywhere(page):
    """Click on the frame in many places, with each button, and wait for what comes of it."""
    box = page.locator("iframe").bounding_box()
    for button in ("left", "middle"):
        for down in range(1, 6):
            for right in range(1, 4):
                x = box["x"] + box["width"] * right / 4
                page.mouse.click(x, box["y"] + 60 + (box["height"] - 60) * down / 6, button=button)


def test_in_the_browsers_own_viewer_a_click_leads_away(page, canary, printed):
    bare = "http://canary.test/bare"
    data = printed(LINKS.format(at=canary.url))
    framed = "<iframe src=/bare.pdf style='width: 100%; height: 600px'></iframe>"
    page.route(f"{bare}.pdf", lambda r: r.fulfill(body=data, content_type="application/pdf"))
    page.route(bare, lambda r: r.fulfill(body=framed, content_type="text/html"))
    page.goto(bare)
    for _ in range(100):
        click_everywhere(page)
        if canary.requests or page.locator("iframe").count() == 0:
            break
        page.wait_for_timeout(100)
    assert canary.wait_for_request().startswith("GET /")


@pytest.mark.parametrize("name", ["annotations", "actions"])
@attack("T32", "T48")
def test_nothing_in_a_pdf_leads_away_or_connects(
    name, live_server, conversation, context, page, canary, printed, screenshot
):
    made = {"annotations": lambda: printed(LINKS.format(at=canary.url))}
    data = made.get(name, lambda: hostile.page(hostile.PDF, canary))()
    live_server.upload(conversation, "hostile.pdf", data)
    shell = open_preview(page, live_server, conversation, "hostile.pdf").url
    frame = shown(page)
    click_everywhere(page)
    screenshot(page, f"hostile-pdf-{name}")
    canary.assert_silent()
    assert (page.url, len(context.pages)) == (shell, 1)
    assert frame.locator("a, .annotationLayer, form").count() == 0


@attack("T48")
def test_the_frame_of_a_pdf_has_no_network_and_nothing_that_is_the_users(
    live_server, conversation, page, canary, printed
):
    live_server.upload(conversation, "a.pdf", printed("<h1>Title</h1>"))
    open_preview(page, live_server, conversation, "a.pdf")
    frame = shown(page)
    tries = "".join(part for part in hostile.CONTACTS.values())
    frame.evaluate(
        """html => { const room = document.createElement('div'); room.innerHTML = html;
        document.body.append(room); }""",
        hostile.page(tries, canary).decode(),
    )
    found = frame.evaluate(
        """async ([url, host]) => {
          const found = {};
          const keep = async (name, read) => {
            try { const value = await read(); if (value) found[name] = String(value); } catch {} };
          await keep('fetch', async () => (await fetch(url)).status);
          await keep('own server', async () => (await fetch(location.href)).status);
          await keep('webrtc', async () => {
            const p = new RTCPeerConnection({iceServers: [{urls: `stun:${host}`}]});
            p.createDataChannel('x'); await p.setLocalDescription(await p.createOffer()); });
          await keep('cookie', () => document.cookie);
          await keep('storage', () => localStorage.length + 1);
          await keep('parent', () => parent.document.title);
          await keep('origin', () => origin === 'null' ? '' : origin);
          await keep('eval', () => eval('1'));
          await keep('window', () => window.open(url));
          return found;
        }""",
        [canary.url, f"127.0.0.1:{canary.port}"],
    )
    assert found == {}
    canary.assert_silent()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_pdf_is_read_searched_and_enlarged(
    scheme, live_server, conversation, page, printed, screenshot
):
    page.emulate_media(color_scheme=scheme)
    live_server.upload(conversation, "report.pdf", printed(PAGES))
    open_preview(page, live_server, conversation, "report.pdf")
    frame = shown(page)
    first = frame.locator(".page[data-page-number='1'] .textLayer")
    expect(first).to_contain_text("A line of words.")
    screenshot(page, f"pdf-{scheme}")
    expect(frame.locator("#pages")).to_have_text("of 5")
    frame.locator("#next").click()
    expect(frame.locator("#page")).to_have_value("2")
    frame.locator("#page").fill("5")
    frame.locator("#page").press("Enter")
    expect(frame.locator(".page[data-page-number='5'] .textLayer")).to_contain_text("Page 5")
    width = frame.locator(".page").first.bounding_box()["width"]
    frame.locator("#larger").click()
    expect(frame.locator("#scale")).to_have_value("other")
    assert frame.locator(".page").first.bounding_box()["width"] > width * 1.15
    frame.locator("#scale").select_option("page-width")
    frame.locator("#container").press("Control+f")
    expect(frame.locator("#find")).to_be_focused()
    frame.locator("#find").fill("needle3")
    frame.locator("#find").press("Enter")
    expect(frame.locator("#matches")).to_have_text("1 of 1")
    expect(frame.locator("#page")).to_have_value("3")
    expect(frame.locator(".highlight.selected")).to_have_text("needle3")
    screenshot(page, f"pdf-found-{scheme}")
    frame.locator("#find").fill("nowhere")
    expect(frame.locator("#matches")).to_have_text("not found")


def test_text_of_a_pdf_can_be_selected(live_server, conversation, page, printed):
    live_server.upload(conversation, "report.pdf", printed("<p>some words</p>"))
    open_preview(page, live_server, conversation, "report.pdf")
    frame = shown(page)
    frame.get_by_text("some words").dblclick()
    assert frame.evaluate("getSelection().toString().trim()") in ("some", "words")


@pytest.mark.parametrize(
    ("data", "message"), [(b"%PDF-1.7\nnot really", "cannot be shown"), (b"%PDF-1.7", "cannot be")]
)
def test_what_cannot_be_shown_is_said(data, message, live_server, conversation, page, screenshot):
    live_server.upload(conversation, "broken.pdf", data)
    open_preview(page, live_server, conversation, "broken.pdf")
    expect(inner_frame(page).locator("#message")).to_contain_text(message)
    screenshot(page, "pdf-broken")
