"""The files of conversations in a real JupyterLab: list, open, upload, rename, delete, download."""

from __future__ import annotations

import hashlib
import json
import os
import re
import urllib.request
from pathlib import Path
from urllib.parse import quote

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output
from playwright.sync_api import expect

from .lab import Lab

BUILT = Path(__file__).parents[2] / "jupyter_sandbox/labextension"
LIMIT = 25_000_000
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c489"
    "0000000d49444154789c63f8cfc0f01f0005000201a3b5e2e60000000049454e44ae426082"
)


@pytest.fixture(scope="module")
def server_command():
    return ("-m", "jupyter", "lab")


@pytest.fixture(scope="module")
def server_settings(tmp_path_factory):
    """JupyterLab with the extension of this checkout, wherever else there may be one."""
    assert (BUILT / "package.json").exists(), "run `make labextension` first"
    directory = tmp_path_factory.mktemp("labextensions")
    (directory / "jupyter-sandbox").symlink_to(BUILT)
    return (f"--LabApp.extra_labextensions_path={directory}",)


@pytest.fixture
def lab(page, live_server):
    page.request.put(
        f"{live_server.url}lab/api/settings/@jupyterlab/apputils-extension:notification",
        data=json.dumps({"raw": '{"fetchNews": "false"}'}),
        headers={"Authorization": f"token {live_server.token}"},
    )
    return Lab(page, live_server.url)


@pytest.fixture
def file(tmp_path):
    """Make a file to drop: ``file(name, data)``."""

    def make(name: str, data: bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(data)
        return path

    return make


@pytest.fixture
def uploads(live_server):
    return Uploads(live_server)


class Uploads:
    """What the store has, asked of the server behind the browser's back."""

    def __init__(self, server) -> None:
        self._server = server

    def names(self, conversation: str) -> list[str]:
        model = self._server.json("GET", f"conversations/{conversation}/uploads")
        return [upload["name"] for upload in model["uploads"]]

    def data(self, conversation: str, name: str) -> bytes:
        path = f"conversations/{conversation}/uploads/{quote(name, safe='')}"
        request = urllib.request.Request(
            f"{self._server.url}sandbox/api/{path}",
            headers={"Authorization": f"token {self._server.token}"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.read()


# List


def test_the_panel_lists_conversations_and_the_files_of_the_one_that_is_chosen(
    lab, live_server, screenshot
):
    conversation = live_server.conversation("Sales report")
    live_server.upload(conversation, "data.csv", b"month,sold\n1,20\n2,35\n")
    live_server.share(conversation, "notes.txt", b"shared")
    lab.open()
    screenshot(lab.page, "lab-list")
    lab.show("Sales report")
    assert lab.names() == ["outputs", "uploads"]
    lab.enter("uploads")
    expect(lab.entry("data.csv")).to_contain_text("21 B")
    assert sorted(lab.names()) == ["data.csv", "notes.txt"]
    lab.entry("data.csv").dblclick()
    expect(lab.shown(".jp-CSVViewer-grid canvas").first).to_be_visible()
    screenshot(lab.page, "lab-files")
    lab.leave()
    lab.enter("outputs")
    assert lab.names() == ["notes.txt"]


def test_a_file_that_the_assistant_shares_appears_by_itself(lab, live_server):
    conversation = live_server.conversation("Appears")
    lab.open()
    lab.show("Appears", "outputs")
    assert lab.names() == []
    live_server.share(conversation, "late.txt", b"late")
    expect(lab.entry("late.txt")).to_be_visible()


# Open


def test_texts_tables_pictures_and_notebooks_open(lab, live_server):
    conversation = live_server.conversation("Opens")
    notebook = new_notebook(cells=[new_code_cell("print('in a cell')")])
    files = {
        "program.py": (b"answer = 42\n", ".jp-FileEditor .cm-content", "answer = 42"),
        "table.csv": (b"a,b\n1,2\n", ".jp-CSVViewer-grid canvas", None),
        "pixel.png": (PNG, ".jp-ImageViewer img", None),
        "cells.ipynb": (
            nbformat.writes(notebook).encode(),
            ".jp-Notebook .jp-CodeCell .cm-content",
            "print('in a cell')",
        ),
    }
    for name, (data, _, _) in files.items():
        live_server.upload(conversation, name, data)
    lab.open()
    lab.show("Opens", "uploads")
    for name, (_, widget, text) in files.items():
        lab.entry(name).dblclick()
        expect(lab.document(name)).to_be_visible()
        found = lab.shown(widget).first
        expect(found).to_be_visible()
        if text is not None:
            expect(found).to_contain_text(text)


def test_what_was_edited_is_saved(lab, live_server, uploads):
    conversation = live_server.conversation("Edits")
    live_server.upload(conversation, "notes.txt", b"before\n")
    lab.open()
    lab.show("Edits", "uploads")
    lab.entry("notes.txt").dblclick()
    editor = lab.shown(".jp-FileEditor .cm-content")
    expect(editor).to_contain_text("before")
    editor.click()
    lab.page.keyboard.press("Control+Home")
    lab.page.keyboard.type("after and ")
    lab.page.keyboard.press("Control+s")
    lab.until(lambda: uploads.data(conversation, "notes.txt") == b"after and before\n")
    expect(lab.dialog()).to_have_count(0)


def test_an_open_document_comes_back_after_a_reload(lab, live_server):
    conversation = live_server.conversation("Reload")
    live_server.upload(conversation, "kept.txt", b"still here\n")
    lab.open()
    lab.show("Reload", "uploads")
    lab.entry("kept.txt").dblclick()
    expect(lab.shown(".jp-FileEditor .cm-content")).to_contain_text("still here")
    lab.reload()
    expect(lab.document("kept.txt")).to_be_visible()
    expect(lab.shown(".jp-FileEditor .cm-content")).to_contain_text("still here")


# No file of a sandbox runs on the server


def expect_sandbox_kernel(lab: Lab) -> None:
    """Wait until the notebook in front has the sandbox's kernel, and it listens."""
    expect(lab.shown(".jp-KernelName")).to_have_text("Python (sandbox)")
    expect(lab.shown(".jp-Notebook-ExecutionIndicator")).to_have_attribute("data-status", "idle")


def test_a_notebook_of_a_sandbox_runs_in_it_and_never_on_the_server(lab, live_server, page):
    conversation = live_server.conversation("Kernel")
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    cell = new_code_cell("import os; where = os.getcwd(); print('ran in', where)")
    notebook = nbformat.writes(new_notebook(cells=[cell], metadata=metadata)).encode()
    live_server.upload(conversation, "cells.ipynb", notebook)
    lab.open()
    lab.show("Kernel", "uploads")

    def assert_the_kernel_is_the_sandboxs() -> None:
        expect_sandbox_kernel(lab)
        for what in ("kernels", "sessions"):
            assert page.request.get(f"{live_server.url}api/{what}").json() == []

    lab.entry("cells.ipynb").dblclick()
    assert_the_kernel_is_the_sandboxs()
    lab.shown(".jp-CodeCell .cm-content").click()
    page.keyboard.press("Control+Enter")
    expect(lab.shown(".jp-OutputArea-output").first).to_contain_text("ran in /workspace")
    page.keyboard.press("Control+s")
    assert_the_kernel_is_the_sandboxs()
    seen = live_server.call(conversation, "python", code="where")
    assert "/workspace" in seen["content"][0]["text"]
    lab.close("cells.ipynb")
    lab.menu(lab.entry("cells.ipynb"), "Open")
    assert_the_kernel_is_the_sandboxs()
    lab.reload()
    assert_the_kernel_is_the_sandboxs()


def test_a_new_notebook_is_an_upload_with_the_kernel_of_the_sandbox(
    lab, live_server, uploads, screenshot
):
    conversation = live_server.conversation("Analysis")
    live_server.upload(conversation, "data.csv", b"month,sold\n1,20\n2,35\n")
    lab.open()
    lab.show("Analysis", "uploads")
    lab.panel.get_by_title("New notebook, with the kernel of this sandbox").first.click()
    expect_sandbox_kernel(lab)
    lab.shown(".jp-CodeCell .cm-content").click()
    lab.page.keyboard.type("print(open('/mnt/user-data/uploads/data.csv').read())")
    lab.page.keyboard.press("Control+Enter")
    expect(lab.shown(".jp-OutputArea-output").first).to_contain_text("2,35")
    assert uploads.names(conversation) == ["Untitled.ipynb", "data.csv"]
    screenshot(lab.page, "lab-notebook")


def test_outputs_that_a_notebook_brings_do_not_run(lab, live_server, screenshot):
    conversation = live_server.conversation("Outputs")
    script = (
        "<b id='shown'>shown</b><script>window.ran = 1</script><img src=x onerror='window.ran=1'>"
    )
    outputs = [
        new_output("display_data", {"text/html": script}),
        new_output("display_data", {"application/javascript": "window.ran = 1"}),
    ]
    notebook = new_notebook(cells=[new_code_cell("1", outputs=outputs, metadata={"trusted": True})])
    live_server.upload(conversation, "outputs.ipynb", nbformat.writes(notebook).encode())
    lab.open()
    lab.show("Outputs", "uploads")
    lab.entry("outputs.ipynb").dblclick()
    expect(lab.shown(".jp-Notebook .jp-OutputArea").first).to_contain_text("shown")
    assert lab.page.evaluate("window.ran") is None


@pytest.mark.parametrize(
    ("name", "data", "inside"),
    [
        ("page.html", b"<h1>Hello</h1><script>document.body.append('ran')</script>", "Hello"),
        ("notes.md", b"# Hello\n\n<script>x</script>", "Hello"),
        (
            "drawing.svg",
            b"<svg xmlns='http://www.w3.org/2000/svg'><text y='20'>Hello</text></svg>",
            "",
        ),
    ],
)
def test_what_could_act_as_the_user_opens_as_a_preview(
    lab, live_server, screenshot, name, data, inside
):
    title = f"Previews {name}"
    conversation = live_server.conversation(title)
    live_server.share(conversation, name, data)
    lab.open()
    lab.show(title, "outputs")

    def assert_preview() -> None:
        frame = lab.shown("iframe.jsb-Preview-frame")
        expect(frame).to_have_attribute(
            "src", re.compile(f"/sandbox/preview/{conversation}/shares/{name}")
        )
        within = frame.content_frame.locator("iframe, img").first
        expect(within).to_be_visible()
        if inside:
            expect(within.content_frame.locator("body")).to_contain_text(inside)

    lab.entry(name).dblclick()
    assert_preview()
    screenshot(lab.page, f"lab-preview-{name}")
    lab.close(name)
    lab.menu(lab.entry(name), "Open")
    assert_preview()
    assert lab.page.locator(".jp-HTMLViewer, .jp-MarkdownViewer, .jp-ImageViewer").count() == 0


# Upload


def test_files_are_uploaded_by_drop(lab, live_server, file, uploads):
    conversation = live_server.conversation("Drops")
    data = os.urandom(3_000_000)
    lab.open()
    lab.show("Drops", "uploads")
    lab.drop(file("größe 測試.bin", data))
    expect(lab.entry("größe 測試.bin")).to_be_visible()
    assert uploads.names(conversation) == ["größe 測試.bin"]
    assert uploads.data(conversation, "größe 測試.bin") == data


def test_a_drop_at_the_top_goes_into_uploads(lab, live_server, file, uploads):
    conversation = live_server.conversation("Top")
    lab.open()
    lab.show("Top")
    lab.drop(file("a.txt", b"a"))
    expect(lab.entry("a.txt")).to_be_visible()
    assert uploads.data(conversation, "a.txt") == b"a"


def test_files_are_uploaded_by_the_button(lab, live_server, uploads):
    conversation = live_server.conversation("Button")
    lab.open()
    lab.show("Button", "uploads")
    with lab.page.expect_file_chooser() as chooser:
        lab.panel.locator(".jp-id-upload button, button.jp-id-upload").first.click()
    files = [
        {"name": f"{n}.txt", "mimeType": "text/plain", "buffer": str(n).encode()} for n in (1, 2)
    ]
    chooser.value.set_files(files)
    for n in (1, 2):
        expect(lab.entry(f"{n}.txt")).to_be_visible()
        assert uploads.data(conversation, f"{n}.txt") == str(n).encode()


def test_replacing_a_file_is_asked_first(lab, live_server, file, uploads):
    conversation = live_server.conversation("Replaces")
    live_server.upload(conversation, "a.txt", b"old")
    lab.open()
    lab.show("Replaces", "uploads")
    lab.drop(file("a.txt", b"new"))
    expect(lab.dialog()).to_contain_text("a.txt")
    lab.dialog().locator(".jp-mod-reject").click()
    expect(lab.dialog()).to_have_count(0)
    assert uploads.data(conversation, "a.txt") == b"old"
    lab.drop(file("a.txt", b"new"))
    lab.accept()
    lab.until(lambda: uploads.data(conversation, "a.txt") == b"new")


def test_a_file_that_is_too_large_is_refused_in_plain_words(
    lab, live_server, file, uploads, screenshot
):
    conversation = live_server.conversation("Too large")
    lab.open()
    lab.show("Too large", "uploads")
    lab.drop(file("fits.bin", bytes(LIMIT)))
    expect(lab.entry("fits.bin")).to_be_visible()
    lab.drop(file("large.bin", bytes(LIMIT + 1)))
    expect(lab.dialog()).to_contain_text("“large.bin” was not uploaded")
    expect(lab.dialog()).to_contain_text("The file is larger than 25,000,000 bytes.")
    screenshot(lab.page, "lab-too-large")
    lab.dismiss()
    assert uploads.names(conversation) == ["fits.bin"]
    data = uploads.data(conversation, "fits.bin")
    assert hashlib.sha256(data).digest() == hashlib.sha256(bytes(LIMIT)).digest()


def test_a_drop_into_outputs_is_refused_in_plain_words(lab, live_server, file, uploads):
    conversation = live_server.conversation("Read-only")
    lab.open()
    lab.show("Read-only", "outputs")
    lab.drop(file("a.txt", b"a"))
    expect(lab.dialog()).to_contain_text("The folder outputs is read-only.")
    lab.dismiss()
    assert lab.names() == []
    assert uploads.names(conversation) == []


# Rename, delete, download


def test_a_file_is_renamed(lab, live_server, uploads):
    conversation = live_server.conversation("Renames")
    live_server.upload(conversation, "old.txt", b"text")
    lab.open()
    lab.show("Renames", "uploads")
    lab.rename(lab.entry("old.txt"), "new ñ.txt")
    expect(lab.entry("new ñ.txt")).to_be_visible()
    lab.until(lambda: uploads.names(conversation) == ["new ñ.txt"])
    assert uploads.data(conversation, "new ñ.txt") == b"text"


def test_files_are_deleted(lab, live_server, uploads):
    conversation = live_server.conversation("Deletes")
    for name in ("a.txt", "b.txt"):
        live_server.upload(conversation, name, b"x")
    live_server.share(conversation, "c.txt", b"x")
    lab.open()
    lab.show("Deletes", "uploads")
    lab.menu(lab.entry("a.txt"), "(Delete|Move to Trash)")
    expect(lab.dialog()).to_contain_text("a.txt")
    lab.accept()
    expect(lab.entry("a.txt")).to_have_count(0)
    assert uploads.names(conversation) == ["b.txt", "c.txt"]
    lab.leave()
    lab.enter("outputs")
    lab.menu(lab.entry("c.txt"), "(Delete|Move to Trash)")
    lab.accept()
    expect(lab.entry("c.txt")).to_have_count(0)
    assert live_server.json("GET", f"conversations/{conversation}/shares")["shares"] == []


def test_files_are_downloaded_as_they_are(lab, live_server):
    conversation = live_server.conversation("Downloads")
    data = os.urandom(2_000_000)
    live_server.upload(conversation, "up.bin", data)
    live_server.share(conversation, "page.html", b"<h1>shared</h1>")
    lab.open()
    lab.show("Downloads", "uploads")
    with lab.page.expect_download() as download:
        lab.menu(lab.entry("up.bin"), "Download")
    assert download.value.suggested_filename == "up.bin"
    assert Path(download.value.path()).read_bytes() == data
    lab.leave()
    lab.enter("outputs")
    with lab.page.expect_download() as download:
        lab.menu(lab.entry("page.html"), "Download")
    assert download.value.suggested_filename == "page.html"
    assert Path(download.value.path()).read_bytes() == b"<h1>shared</h1>"


# Conversations


def test_two_conversations_do_not_mix(lab, live_server, file, uploads):
    first, second = (live_server.conversation(f"Mix {n}") for n in ("one", "two"))
    live_server.upload(first, "same.txt", b"of the first")
    live_server.upload(second, "same.txt", b"of the second")
    live_server.upload(second, "only.txt", b"x")
    lab.open()
    lab.show("Mix one", "uploads")
    assert lab.names() == ["same.txt"]
    lab.entry("same.txt").dblclick()
    expect(lab.shown(".jp-FileEditor .cm-content")).to_have_text("of the first")
    lab.show("Mix two", "uploads")
    assert sorted(lab.names()) == ["only.txt", "same.txt"]
    lab.entry("same.txt").dblclick()
    expect(lab.document("same.txt")).to_have_count(2)
    expect(lab.shown(".jp-FileEditor .cm-content")).to_have_text("of the second")
    lab.drop(file("new.txt", b"n"))
    expect(lab.entry("new.txt")).to_be_visible()
    lab.menu(lab.entry("same.txt"), "(Delete|Move to Trash)")
    lab.accept()
    expect(lab.document("same.txt")).to_have_count(1)
    assert uploads.names(first) == ["same.txt"]
    assert uploads.names(second) == ["new.txt", "only.txt"]
    lab.show("Mix one", "uploads")
    assert lab.names() == ["same.txt"]


def test_a_conversation_is_made_renamed_and_deleted(lab, live_server, file, screenshot):
    lab.open()
    screenshot(lab.page, "lab-launcher")
    lab.page.locator(".jp-LauncherCard", has_text="New conversation").click()
    lab.dialog().locator("input").fill("Made here")
    lab.accept()
    expect(lab.conversation("Made here")).to_have_attribute("aria-current", "true")
    expect(lab.entry("uploads")).to_be_visible()
    lab.drop(file("a.txt", b"a"))
    expect(lab.entry("a.txt")).to_be_visible()
    lab.entry("a.txt").dblclick()
    expect(lab.document("a.txt")).to_be_visible()

    lab.menu(lab.conversation("Made here"), "Rename Conversation")
    lab.dialog().locator("input").fill("Another title")
    lab.accept()
    expect(lab.conversation("Another title")).to_be_visible()
    expect(lab.conversation("Made here")).to_have_count(0)

    lab.menu(lab.conversation("Another title"), "Delete Conversation")
    lab.accept()
    expect(lab.conversation("Another title")).to_have_count(0)
    expect(lab.document("a.txt")).to_have_count(0)
    expect(lab.page.locator(".jsb-Files")).to_have_count(0)
    titles = [c["title"] for c in live_server.json("GET", "conversations")["conversations"]]
    assert "Another title" not in titles


def test_a_conversation_that_is_deleted_elsewhere_disappears(lab, live_server):
    conversation = live_server.conversation("Goes away")
    lab.open()
    lab.show("Goes away", "uploads")
    live_server.json("DELETE", f"conversations/{conversation}")
    expect(lab.conversation("Goes away")).to_have_count(0)
    expect(lab.page.locator(".jsb-Files")).to_have_count(0)
    expect(lab.dialog()).to_have_count(0)
