"""Files to preview, and what a preview page looks like to a test."""

from __future__ import annotations

from playwright.sync_api import Frame, Page

from tests.live_server import LiveServer


def open_preview(page: Page, server: LiveServer, conversation: str, name: str, query="") -> Page:
    """Open the page of an upload, as its ``preview_url`` says."""
    answer = page.goto(f"{server.url}sandbox/preview/{conversation}/uploads/{name}{query}")
    assert answer is not None
    assert answer.status == 200, answer.text()
    return page


def inner_frame(page: Page) -> Frame:
    """Give the frame with the document, when it has loaded."""
    page.wait_for_selector("iframe")
    frame = page.frames[1]
    frame.wait_for_load_state()
    return frame
