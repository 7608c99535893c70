"""JupyterLab as a person uses it: its panel of sandboxes, menus, dialogs, open documents."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Locator, Page, TimeoutError, expect

# What an assistant does shows after the next poll, at most ten seconds later.
expect.set_options(timeout=20_000)

LISTING = ".jsb-Files .jp-DirListing"


class Lab:
    """One browser page with JupyterLab."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self._url = url

    def open(self) -> None:
        """Start with an empty workspace, the panel of sandboxes in front."""
        self.page.goto(f"{self._url}lab?reset")
        self.panel.wait_for(state="attached")
        self.page.locator(".jp-SideBar [data-id=jsb-panel]").click()
        expect(self.panel).to_be_visible()

    @property
    def panel(self) -> Locator:
        return self.page.locator("#jsb-panel")

    def conversation(self, title: str) -> Locator:
        """Give an entry of the list of conversations."""
        return self.panel.locator(".jsb-List-item").filter(has_text=title)

    def show(self, title: str, folder: str = "") -> None:
        """Show a conversation's files, and go into a folder."""
        self.conversation(title).click()
        expect(self.conversation(title)).to_have_attribute("aria-current", "true")
        expect(self.entry("uploads")).to_be_visible()
        if folder:
            self.enter(folder)

    def enter(self, folder: str) -> None:
        """Go into a folder that is shown."""
        self.entry(folder).dblclick()
        expect(self.entry(folder)).to_have_count(0)

    def leave(self) -> None:
        """Go up."""
        self.panel.get_by_title("All folders of this conversation").first.click()
        expect(self.entry("uploads")).to_be_visible()

    def entry(self, name: str) -> Locator:
        """Give an entry of the file browser."""
        return self.page.locator(f"{LISTING} .jp-DirListing-item").filter(
            has=self.page.locator(
                ".jp-DirListing-itemText", has_text=re.compile(f"^{re.escape(name)}$")
            )
        )

    def names(self) -> list[str]:
        return self.page.locator(f"{LISTING} .jp-DirListing-itemText").all_inner_texts()

    def drop(self, file: Path) -> None:
        """Drop a file of this machine on the file browser; the browser itself makes the events."""
        box = self.page.locator(f"{LISTING} .jp-DirListing-content").bounding_box()
        assert box is not None
        place = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2}
        data = {"items": [], "files": [str(file)], "dragOperationsMask": 1}
        session = self.page.context.new_cdp_session(self.page)
        for kind in ("dragEnter", "dragOver", "drop"):
            session.send("Input.dispatchDragEvent", {"type": kind, "data": data, **place})
        session.detach()

    def menu(self, target: Locator, item: str) -> None:
        """Choose from an entry's context menu."""
        target.click(button="right")
        self.page.locator(".lm-Menu-item", has_text=re.compile(f"^{item}")).first.click()

    def rename(self, target: Locator, name: str) -> None:
        """Give an entry another name; once more if the listing was read anew under the hand.

        JupyterLab's listing forgets then which entry was chosen, and "Rename" does nothing.
        """
        editor = self.panel.locator(".jp-DirListing-editor")
        for _ in range(3):
            self.menu(target, "Rename")
            with contextlib.suppress(TimeoutError):
                editor.wait_for(timeout=5_000)
                break
        editor.fill(name)
        editor.press("Enter")

    def dialog(self) -> Locator:
        return self.page.locator(".jp-Dialog")

    def accept(self) -> None:
        """Press the button of a dialog that goes on."""
        self.dialog().locator(".jp-mod-accept").click()
        expect(self.dialog()).to_have_count(0)

    def reload(self) -> None:
        """Load the page again, when JupyterLab has kept what is open."""
        with self.page.expect_response(
            lambda answer: "/api/workspaces/" in answer.url and answer.request.method == "PUT"
        ):
            pass
        self.page.goto(f"{self._url}lab")

    def close(self, name: str) -> None:
        """Close an open document."""
        self.document(name).locator(".lm-TabBar-tabCloseIcon").click()
        expect(self.document(name)).to_have_count(0)

    def shown(self, selector: str) -> Locator:
        """Give parts of the document in front."""
        return self.page.locator(
            f"#jp-main-dock-panel .lm-DockPanel-widget:not(.lm-mod-hidden) {selector}"
        )

    def until(self, holds: Callable[[], bool], seconds: float = 15.0) -> None:
        """Wait for what is not in the page."""
        deadline = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < deadline, "it did not happen in time"
            self.page.wait_for_timeout(50)

    def dismiss(self) -> None:
        """Close a dialog that only tells something."""
        self.dialog().get_by_role("button", name="Close").click()
        expect(self.dialog()).to_have_count(0)

    def document(self, name: str) -> Locator:
        """Give the tab of an open document."""
        return self.page.locator(".lm-DockPanel-tabBar .lm-TabBar-tab").filter(has_text=name)
