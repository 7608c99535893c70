"""The parts of previews: what is rendered, cleaned and bounded, and with which headers."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import subprocess
import sys
import time

import pytest

from jupyter_sandbox.errors import LimitExceeded
from jupyter_sandbox.policy.previews import decide_preview, view_of
from jupyter_sandbox.previews import rendering
from jupyter_sandbox.previews.file_previews import text_of
from jupyter_sandbox.previews.highlighting import highlight_file
from jupyter_sandbox.previews.markdown import render_markdown
from jupyter_sandbox.previews.pages import MOST_LINES, ShownFile, error_page, shell_page, text_page
from jupyter_sandbox.previews.rendering import Renderer
from jupyter_sandbox.previews.sanitizing import sanitize_page
from jupyter_sandbox.routes.preview_headers import (
    SANDBOX_LINKS,
    SANDBOX_NOTHING,
    SANDBOX_SCRIPTS,
    SANDBOX_VIEWER,
    document_headers,
    shell_headers,
    source,
    viewer_headers,
)
from tests.faults.table import fault

LOG = logging.getLogger("test")


@pytest.mark.parametrize(
    ("kind", "size", "allowed"),
    [
        ("text", 10**12, True),
        ("video", 10**12, True),
        ("image", 50_000_000, True),
        ("image", 50_000_001, False),
        ("html", 25_000_000, True),
        ("html", 25_000_001, False),
        ("pdf", 200_000_000, True),
        ("pdf", 200_000_001, False),
        ("svg", 10_000_001, False),
        ("download", 1, False),
        ("nonsense", 1, False),
    ],
)
def test_which_files_have_a_preview(kind, size, allowed):
    decision = decide_preview(kind, size)
    assert decision.allowed is allowed
    assert bool(decision.reason) is not allowed


def test_what_could_run_is_framed_and_what_is_inert_is_not():
    assert {k for k in ("html", "pdf", "markdown", "text") if view_of(k) == "frame"} == {
        *("html", "pdf", "markdown", "text")
    }
    assert (view_of("svg"), view_of("image"), view_of("video")) == ("image", "image", "video")


# Headers


def test_no_document_has_the_origin_of_the_user_and_none_loads():
    documents = [
        document_headers(sandbox, "host:8888", "/p/")
        for sandbox in (SANDBOX_SCRIPTS, SANDBOX_LINKS, SANDBOX_NOTHING)
    ]
    for headers in (*documents, viewer_headers("abc")):
        policy = headers["Content-Security-Policy"]
        assert policy.startswith(("sandbox ", "sandbox;"))
        assert "allow-same-origin" not in policy
        assert "allow-top-navigation" not in policy
        assert "default-src 'none'" in policy
        assert "form-action 'none'; base-uri 'none'; frame-ancestors 'self'" in policy
        assert not re.search(
            r"https?:|'self'(?! *$)|\*", policy.replace("frame-ancestors 'self'", "")
        )
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cache-Control"] == "private, no-store"


def test_the_viewer_of_pdfs_runs_our_scripts_only_and_connects_to_nothing():
    headers = viewer_headers("abc")
    policy = headers["Content-Security-Policy"]
    assert policy.startswith("sandbox allow-scripts; default-src 'none'; script-src 'nonce-abc' ")
    for word in ("'unsafe-eval'", "'self';", "connect-src", "frame-src", "data: blob:; worker"):
        assert word not in policy.replace("frame-ancestors 'self'", "")
    assert "script-src 'nonce-abc' 'wasm-unsafe-eval';" in policy
    assert headers["Connection-Allowlist"] == "()"
    fetched = shell_headers("n", framed="h/f/", renew="h/r", fetched="h/d")
    assert "connect-src h/r h/d; frame-src h/f/;" in fetched["Content-Security-Policy"]


def test_scripts_and_popups_never_go_together():
    for sandbox in (SANDBOX_SCRIPTS, SANDBOX_VIEWER, SANDBOX_LINKS, SANDBOX_NOTHING):
        assert not ("allow-scripts" in sandbox and "allow-popups" in sandbox)
    assert "script-src" not in document_headers(SANDBOX_LINKS)["Content-Security-Policy"]
    assert "Connection-Allowlist" not in document_headers(SANDBOX_LINKS)


def test_the_shell_frames_its_document_only_and_runs_its_own_script_only():
    headers = shell_headers("abc", framed="h:1/p/", renew="h:1/r")
    policy = headers["Content-Security-Policy"]
    assert "frame-src h:1/p/;" in policy
    assert "script-src 'nonce-abc'; connect-src h:1/r;" in policy
    assert "unsafe" not in policy
    picture = shell_headers("abc", shown="h:1/f")["Content-Security-Policy"]
    assert "img-src h:1/f; media-src h:1/f" in picture
    assert "script-src" not in picture
    assert "frame-src" not in picture


@pytest.mark.parametrize(
    "host",
    ["[::1]:8888", "my_server", "a b", "evil;script-src *", "x,y", "", "a\n", "a..b", "a.", "a:٣"],
)
def test_a_host_that_cannot_stand_in_a_policy_does_not(host):
    assert source(host, "/p/") == "'self'"
    assert "Connection-Allowlist" not in document_headers(SANDBOX_SCRIPTS, host, "/p/")


# Rendering


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("a.py", "def f(): pass", '<span class="k">def</span>'),
        ("a.jsx", "const a = <b/>", "<span"),
        ("a.tsx", "const a: string = <b/>", "<span"),
        ("a.json", '{"a": 1}', '<span class="nt">"a"</span>'),
        ("a.sql", "SELECT 1", '<span class="k">SELECT</span>'),
        ("a.pl", "my $a;", '<span class="k">my</span>'),
        ("Makefile", "all:\n\techo", "<span"),
        ("a.ipynb", "{}", "<span"),
        ("a.txt", "<b>", None),
        ("a.csv", "a,b", None),
        ("a.mermaid", "graph TD", None),
        ("no-extension", "x", None),
        ("../../etc/passwd.py\n", "x", None),
    ],
)
def test_the_name_says_the_language(name, text, expected):
    html = highlight_file(name, text)
    assert (html is None) if expected is None else (expected in html)


def test_highlighted_text_is_the_same_text():
    text = '\n\n  """a\nmulti <line>\n"""\n\tx = "&amp;"   \n\n'
    html = highlight_file("a.py", text)
    plain = text_page("a.py", text, None, [], "")
    coloured = text_page("a.py", text, html, [], "")
    assert shown(plain) == shown(coloured) == text


def shown(page: str) -> str:
    """Give the text of a page with a text."""
    inside = page.split('<pre class="file"', 1)[1].partition(">")[2].rpartition("</pre>")[0]
    plain = re.sub(r"<[^>]+>", "", inside)
    for entity, character in (("&lt;", "<"), ("&gt;", ">"), ("&quot;", '"'), ("&#39;", "'")):
        plain = plain.replace(entity, character)
    return plain.replace("&#x27;", "'").replace("&amp;", "&")


def test_text_is_escaped_and_its_lines_are_bounded():
    page = text_page("<x>", "</pre><script>alert(1)</script>\n" * 3, None, ["<notice>"], "dark")
    assert "<script" not in page
    assert "<title>&lt;x&gt;</title>" in page
    assert "&lt;notice&gt;" in page
    assert 'data-theme="dark"' in page
    many = text_page("x", "\n" * 100_000, None, [], "")
    assert many.count("<span>") == MOST_LINES
    assert f"The first {MOST_LINES:,} lines are shown." in many
    assert "The file is empty." in text_page("x", "", None, [], "")


def test_the_shell_shows_names_as_text():
    name = '"><script>alert(1)</script>'
    file = ShownFile(name, "image", "1 byte", "/f?a=1&b=2", 2)
    page = shell_page(file, "image", nonce="n")
    assert "<script>" not in page
    assert "version 2" in page
    assert 'src="/f?a=1&amp;b=2"' in page
    assert "<script" not in error_page(name)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("| a | b |\n|--|--:|\n| 1 | 2 |", '<td style="text-align:right">2</td>'),
        ("```python\ndef f(): pass\n```", '<span class="k">def</span>'),
        ("```nonsense\n<b>\n```", "&lt;b&gt;"),
        ("- [x] done", 'checked="checked"'),
        ("~~gone~~", "<s>gone</s>"),
        ("# A title", '<h1 id="a-title">A title</h1>'),
        ("a[^1]\n\n[^1]: note", 'class="footnotes"'),
        ("---\nsecret: x\n---\ntext", "<p>text</p>"),
        ("[x](https://example.org)", 'target="_blank"'),
        ("[x](#part)", '<a href="#part"'),
        ("![x](data:image/png;base64,AAAA)", 'src="data:image/png;base64,AAAA"'),
        ("<details><summary>s</summary>t</details>", "<details><summary>s</summary>t</details>"),
    ],
)
def test_markdown(text, expected):
    assert expected in render_markdown(text)


@pytest.mark.parametrize(
    "text",
    [
        "![x](http://example.org/a)",
        "![x](//example.org/a)",
        "![x](other.png)",
        "![x](data:text/html,x)",
        "[x](javascript:alert)",
        "[x](file:///etc/passwd)",
        "[x](../other)",
        '<img src="x" onerror="y">',
        '<a href="&#x6a;avascript:x">',
        '<iframe src="x"></iframe><object data="x"></object><embed src="x">',
        '<form action="x"><button formaction="x"></form><input type="image" src="x" onfocus="y">',
        '<svg onload="x"><image href="y"/></svg><math href="x">',
        '<link rel="preconnect" href="x"><meta http-equiv="refresh" content="0"><base href="x">',
        "<script>x</script><style>@import 'x'</style>",
        '<video src="x" poster="y"></video><p style="background: url(x)">y</p>',
    ],
)
def test_markdown_and_html_lose_what_runs_or_loads(text):
    banned = (
        r"src=|\son\w+=|action=|url\(|http:|:|href=\"(?!#)|^<(?:script|iframe|object|embed|form|svg|math"
        r"|link|meta|base|video|button)"
    )
    own_looks = re.compile(r'style="[^"]*"')  # of a page: what CSS would load the policy refuses
    for html in (render_markdown(text), own_looks.sub("", sanitize_page(text))):
        for tag in re.findall(r"<[^>]*>", html):
            assert not re.search(banned, tag.replace("text-align:", ""), re.IGNORECASE), tag
    assert "@import" not in render_markdown(text)


@pytest.mark.parametrize(
    ("data", "whole", "text"),
    [
        (b"a\r\nb\rc\n", True, "a\nb\nc\n"),
        ("Grüße".encode(), True, "Grüße"),
        ("Grüß".encode()[:-1], False, "Grü"),
        ("Grüß".encode("latin-1"), True, "Grüß"),
        ("Grüße".encode("utf-16"), True, "Grüße"),
        ("Grüße".encode("utf-16")[:-1], False, "Grüß"),
        (b"\xef\xbb\xbfa", True, "a"),
        (b"", True, ""),
    ],
)
def test_bytes_become_text(data, whole, text):
    assert text_of(data, whole) == text


# The worker


async def test_the_worker_renders(jp_asyncio_loop):
    renderer = Renderer(LOG)
    try:
        assert "<h1" in await renderer.render("markdown", "a.md", "# x")
        assert '<span class="k">' in await renderer.render("text", "a.py", "def f(): pass")
        assert await renderer.render("html", "a.html", "<p onclick=x>y<script>z</script>") == (
            "<p>y</p>"
        )
        assert await renderer.render("text", "a.txt", "plain") is None
        assert await renderer.render("markdown", "a", "\ud800") == "<p>?</p>\n"
    finally:
        await renderer.close()
    assert await renderer.render("markdown", "a.md", "# x") is None


@fault("preview-worker-killed")
async def test_a_worker_that_never_ends_is_ended_and_the_loop_goes_on(monkeypatch):
    monkeypatch.setattr(rendering, "_SECONDS", 0.5)
    monkeypatch.setattr(rendering, "WORKER", ("-c", "while True: pass"))
    renderer = Renderer(LOG)
    try:
        works = [asyncio.ensure_future(renderer.render("text", "a.py", "x")) for _ in range(4)]
        started, longest = time.monotonic(), 0.0
        while not all(work.done() for work in works):
            before = time.monotonic()
            await asyncio.sleep(0.01)
            longest = max(longest, time.monotonic() - before)
        assert [work.result() for work in works] == [None] * 4
        assert time.monotonic() - started < 20
        assert longest < 2
    finally:
        await renderer.close()


async def test_no_more_wait_than_the_bound(monkeypatch):
    monkeypatch.setattr(rendering, "_SECONDS", 3.0)
    monkeypatch.setattr(rendering, "WORKER", ("-c", "import time; time.sleep(9)"))
    monkeypatch.setattr(rendering, "_OF_OWNER", 1)
    renderer = Renderer(LOG)

    def ask(owner: str):
        return asyncio.ensure_future(renderer.render("text", "a", "x", owner))

    try:
        waiting = [ask("alice") for _ in range(17)]  # one of them is being done
        await asyncio.sleep(0)
        with pytest.raises(LimitExceeded, match="16 of this user wait") as refused:
            await asyncio.wait_for(ask("alice"), 1)
        assert (refused.value.status, refused.value.retry_after_seconds) == (429, 5)
        waiting.append(ask("bob"))
        await asyncio.sleep(0)
        assert not any(work.done() for work in waiting)
    finally:
        await renderer.close()
        for work in waiting:
            work.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


async def test_the_worker_has_none_of_the_servers_secrets(monkeypatch):
    body = (
        "import os, sys; sys.stdin.buffer.readline()\n"
        "found = len([name for name in os.environ if 'SECRET' in name])\n"
        """print(f'{{"end": 0, "size_bytes": 1}}\\n{found}', end="", flush=True)"""
    )
    monkeypatch.setenv("MY_SECRET", "x")
    monkeypatch.setattr(rendering, "WORKER", ("-c", body))
    renderer = Renderer(LOG)
    try:
        assert await renderer.render("text", "a", "x") == "0"
    finally:
        await renderer.close()


def test_the_worker_bounds_itself():
    code = (
        "import resource; from jupyter_sandbox.previews import worker\n"
        "limits = (resource.RLIMIT_CPU, resource.RLIMIT_AS)\n"
        "worker.render = lambda *_: str([resource.getrlimit(r)[1] for r in limits]).encode()\n"
        "worker.main()"
    )
    request = b'{"kind": "text", "name": "a", "size_bytes": 1}\nx'
    done = subprocess.run(
        [sys.executable, "-c", code], input=2 * request, capture_output=True, check=True
    )
    answer = str([3, 1024**3]).encode()
    assert done.stdout == 2 * (b'{"end": 0, "size_bytes": %d}\n' % len(answer) + answer)


async def test_a_worker_is_used_again_and_no_document_changes_it_for_the_next():
    renderer = Renderer(LOG)
    try:
        first = await renderer.render("display", "html", "<b>x</b>", "alice")
        worker = renderer._idle[-1]
        assert await renderer.render("display", "html", "<b>x</b>", "bob") == first == "<b>x</b>"
        assert renderer._idle[-1] is worker
        for each in renderer._idle:
            each._process.kill()
            each._process.wait()
        assert await renderer.render("display", "html", "<b>x</b>", "bob") == first
    finally:
        await renderer.close()
    assert worker._process.poll() is not None


async def test_a_notebook_opens_without_the_displays_that_take_too_long():
    output = {"output_type": "display_data", "metadata": {}}
    dear = {**output, "data": {"text/markdown": "![" * 14_000}}
    plain = {**output, "data": {"text/html": "<b>x</b><script>"}}
    cell = {"cell_type": "code", "id": "a", "metadata": {}, "source": "", "execution_count": None}
    cell["outputs"] = [plain, *[dear] * 12]
    notebook = {"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [cell]}
    renderer = Renderer(LOG)
    try:
        read = await renderer.read("notebook", "", json.dumps(notebook).encode())
    finally:
        await renderer.close()
    message, found = map(json.loads, read.split(b"\n"))
    shown = [each["data"] for each in found["cells"][0]["outputs"]]
    assert message is None
    assert shown[0] == {"text/html": "<b>x</b>"}
    assert shown[-1] == {"text/plain": "[not shown: text/markdown]"}


async def test_a_client_that_goes_ends_the_work_for_it(monkeypatch):
    monkeypatch.setattr(rendering, "WORKER", ("-c", "import time; time.sleep(60)"))
    renderer = Renderer(LOG)
    work = asyncio.ensure_future(renderer.render("text", "a", "x"))
    try:
        while "running=1" not in repr(renderer):
            await asyncio.sleep(0)
        work.cancel()
        async with asyncio.timeout(5):
            while "running=0" not in repr(renderer):
                await asyncio.sleep(0.01)
    finally:
        await renderer.close()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.md", "[" * 50_000),
        ("a.md", "> " * 20_000 + "x"),
        ("a.md", "*a **b " * 20_000),
        ("a.md", "<" * 100_000),
        ("a.md", "`" * 9_999 + " x"),
        ("a.js", "/" * 100_000),
        ("a.pl", "s{" * 50_000),
        ("a.html", "<a " * 50_000),
    ],
)
async def test_pathological_texts_have_an_answer_in_bounded_time(name, text):
    renderer = Renderer(LOG)
    kind = "markdown" if name.endswith("md") else "text"
    try:
        html = await asyncio.wait_for(renderer.render(kind, name, text), 30)
        assert html is None or isinstance(html, str)
    finally:
        await renderer.close()
