"""A conversation as a notebook: valid, rendered by nbconvert, and never markup from inside."""

from __future__ import annotations

import asyncio
import json
import re

import nbformat
import pytest
from nbconvert import HTMLExporter, MarkdownExporter, PythonExporter

from jupyter_sandbox.tools.notebook_cells import CARD_TYPE, Cells, plain_markdown
from tests.conftest import text_of

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>"
PICTURE = (
    "import base64, IPython.display as d; d.display(d.Image(base64.b64decode("
    "'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=='"
    ")))"
)


@pytest.fixture(params=[pytest.param("bubblewrap", marks=pytest.mark.bubblewrap)])
def engine_name(request):
    """A notebook does not depend on the engine."""
    return request.param


async def exported(api, conversation: str):
    response = await api.raw("GET", "conversations", conversation, "notebook")
    assert response.code == 200, response.body
    assert response.headers["Content-Type"] == "application/x-ipynb+json"
    assert response.headers["Content-Disposition"].startswith("attachment;")
    return nbformat.reads(response.body.decode(), as_version=nbformat.NO_CONVERT)


async def test_a_conversation_is_a_valid_notebook_that_nbconvert_renders(api):
    conversation = await api.conversation(title="first steps")
    await api.json("POST", "conversations", conversation, "messages", body={"text": "**do** it"})
    bash = await api.call(
        conversation, "bash", command="echo one; exit 3", description="see *how* it ends"
    )
    python = await api.call(conversation, "python", code=f"print('two')\n{PICTURE}")
    path = "/mnt/user-data/outputs/b.txt"
    written = await api.call(conversation, "create_file", path=path, file_text="three\n")
    shared = await api.call(conversation, "share_files", paths=[path, "/no"])
    notebook = await exported(api, conversation)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    cells = {cell.id: cell for cell in notebook.cells}
    assert len(cells) == len(notebook.cells)
    cell = cells[bash["call_id"]]
    assert cell.source == "%%bash\necho one; exit 3"
    assert cell.metadata.jupyter_sandbox.exit_code == 3
    assert [output.output_type for output in cell.outputs] == ["stream", "error"]
    assert cell.outputs[0].text == "one\n"  # no notice, no status line
    cell = cells[python["call_id"]]
    assert cell.source.startswith("print('two')\nimport base64")
    assert "image/png" in cell.outputs[1].data
    assert cells[written["call_id"]].source == f"%%writefile {path}\nthree\n"
    cards = [o.data for o in cells[shared["call_id"]].outputs if o.output_type == "display_data"]
    assert cards[0][CARD_TYPE]["name"] == "b.txt"
    assert f"/sandbox/files/{conversation}/b.txt?version=1" in cards[0]["text/html"]
    assert "error" in cards[1][CARD_TYPE]
    texts = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    assert "**do** it" in texts
    for exporter in (HTMLExporter, MarkdownExporter, PythonExporter):
        body, _ = await asyncio.to_thread(exporter().from_notebook_node, notebook)
        assert "two" in body
    assert text_of(bash).count("one") == 1


async def test_what_comes_from_inside_or_from_a_user_is_not_markup(api):
    conversation = await api.conversation(title=HOSTILE)
    await api.json("POST", "conversations", conversation, "messages", body={"text": HOSTILE})
    name = "a<img src=x onerror=alert(3)>.txt"
    await api.bash(conversation, f"echo '{HOSTILE}'; touch '/mnt/user-data/outputs/{name}'")
    await api.call(conversation, "python", code=f"# {HOSTILE}\nraise ValueError('''{HOSTILE}''')")
    await api.call(conversation, "view", path=HOSTILE, description=HOSTILE)
    await api.call(conversation, "share_files", paths=[f"/mnt/user-data/outputs/{name}", HOSTILE])
    notebook = await exported(api, conversation)
    nbformat.validate(notebook)
    page, _ = await asyncio.to_thread(HTMLExporter().from_notebook_node, notebook)
    body = page[page.index("<body") :]
    body = re.sub(r"<script[^>]*>.*?mathjax.*?</script>", "", body, flags=re.S | re.I)
    assert "alert(1)" in body
    assert "<script>alert" not in body
    assert "<img src=x" not in body
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            assert "<img" not in output.get("data", {}).get("text/html", "")


def test_messages_of_any_text_make_valid_notebooks():
    for text in (
        "a\rimport os",
        "\ud800\0\x1b[31m",
        "```\n# h\n---\n$x$ [a](javascript:b)",
        "\u2028" * 9,
    ):
        cells = Cells()
        at = "2026-01-01T00:00:00+00:00"
        head = {"call_id": text, "tool": text, "at": at}
        cells.add(
            {**head, "seq": 1, "type": "call", "description": text, "arguments": {text: [text]}}
        )
        content = [
            {"type": "text", "text": text},
            {"type": "image", "media_type": "image/png", "size_bytes": 5},
        ]
        cells.add(
            {
                **head,
                "seq": 2,
                "type": "result",
                "state": "finished",
                "is_error": True,
                "content": content,
            }
        )
        cells.add(
            {"seq": 3, "type": "file", "at": at, "call_id": "else", "name": text, "error": text}
        )
        cells.add(
            {"seq": 4, "type": "user", "at": at, "text": text, "attachments": [{"name": text}]}
        )
        cells.add({"seq": 5, "type": "notice", "at": at, "text": text})
        notebook = {"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": cells.cells}
        nbformat.validate(notebook, relax_add_props=False)
        json.dumps(notebook, ensure_ascii=False).encode("utf-8")
        source = cells.cells[1]["source"]
        assert all(line.startswith("#") for line in source.splitlines())


def test_plain_text_is_no_markdown():
    assert plain_markdown("a*b<i>\n# c") == "a&#42;b&#60;i&#62;<br>\n&#35; c"
