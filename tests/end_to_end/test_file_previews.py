"""Previews over HTTP: statuses in their order, headers, leases, versions; the browser is elsewhere."""

from __future__ import annotations

import html
import re

import pytest

OUT = "/mnt/user-data/outputs"
UNKNOWN = "00000000-0000-4000-8000-000000000000"
IN_FRAME = {"Sec-Fetch-Dest": "iframe", "Sec-Fetch-Site": "cross-site"}
PAGE = {"Accept": "text/html"}


@pytest.fixture
def engine_name():
    return "bubblewrap"  # what is previewed comes from the store, not from the sandbox


class Previews:
    def __init__(self, api, client, auth, base_url, app) -> None:
        self.api = api
        self.app = app
        self._client = client
        self._auth = auth
        self._base_url = base_url

    async def fetch(self, url: str, login=True, method="GET", **headers):
        headers = {**(self._auth if login else {}), **headers}
        origin = self._base_url.rstrip("/") if not url.startswith(self._base_url) else ""
        return await self._client.fetch(
            origin + url,
            method=method,
            headers=headers,
            body="" if method == "POST" else None,
            raise_error=False,
            follow_redirects=False,
        )

    async def upload(self, conversation: str, name: str, data: bytes) -> str:
        """Upload a file; give its ``preview_url``."""
        status, model = await self.api.json(
            "PUT", "conversations", conversation, "uploads", name, body=data
        )
        assert status in (200, 201), model
        return model["preview_url"] or (
            f"{self._base_url}sandbox/preview/{conversation}/uploads/{name}"
        )

    async def framed(self, shell_url: str) -> str:
        """Open a shell; give the address of its frame."""
        shell = await self.fetch(shell_url, **PAGE)
        assert shell.code == 200, shell.body
        found = re.search(r'<iframe[^>]* src="([^"]+)"', shell.body.decode())
        return html.unescape(found[1]).partition("#")[0]

    async def services(self):
        return await self.app.ready()


@pytest.fixture
def previews(api, http_server_client, jp_auth_header, jp_base_url, jp_serverapp):
    app = jp_serverapp.web_app.settings["jupyter_sandbox"]
    return Previews(api, http_server_client, jp_auth_header, jp_base_url, app)


async def test_cards_and_models_say_where_the_preview_is(previews):
    api = previews.api
    conversation = await api.conversation()
    await api.bash(
        conversation, f"mkdir {OUT}/d; echo 1 > '{OUT}/d/a b.md'; head -c9 /dev/zero > {OUT}/z"
    )
    results = [
        await api.call(
            conversation, "share_files", paths=[f"{OUT}/d/a b.md", f"{OUT}/z", "/nowhere"]
        )
        for _ in range(2)
    ]
    card, binary, refused = (part for part in results[1]["content"] if part["type"] == "file")
    assert card["url"].endswith(f"/sandbox/files/{conversation}/d/a%20b.md?version=2")
    assert card["preview_url"].endswith(
        f"/sandbox/preview/{conversation}/shares/d/a%20b.md?version=2"
    )
    assert (binary["preview"], binary["preview_url"]) == ("download", None)
    assert "preview_url" not in refused
    _, call = await api.json("GET", "conversations", conversation, "calls", results[1]["call_id"])
    assert call["content"] == results[1]["content"]
    _, model = await api.json("GET", "conversations", conversation, "shares")
    share = model["shares"][0]
    assert share["preview_url"].endswith("/shares/d/a%20b.md")
    assert [v["preview_url"].rpartition("?")[2] for v in share["versions"]] == [
        *("version=2", "version=1")
    ]
    for url in (card["preview_url"], share["preview_url"], share["versions"][1]["preview_url"]):
        assert (await previews.fetch(url, **PAGE)).code == 200
    assert (await previews.fetch(card["url"])).body == b"1\n"


async def test_an_older_version_is_shown_as_it_was(previews):
    api = previews.api
    conversation = await api.conversation()
    for text in ("first", "second"):
        await api.bash(conversation, f"echo {text} > {OUT}/a.txt")
        await api.call(conversation, "share_files", paths=[f"{OUT}/a.txt"])
    url = f"/sandbox/preview/{conversation}/shares/a.txt"
    for query, version, text in (("", 2, "second"), ("?version=1", 1, "first")):
        shell = await previews.fetch(url + query, **PAGE)
        assert f"version {version}<" in shell.body.decode()
        inner = await previews.fetch(await previews.framed(url + query), login=False, **IN_FRAME)
        assert text in inner.body.decode()
    assert (await previews.fetch(f"{url}?version=3", **PAGE)).code == 404
    assert (await previews.fetch(f"{url}?version=x", **PAGE)).code == 422


async def test_the_shell_says_401_then_404_and_alike_for_missing_and_foreign(previews):
    conversation = await previews.api.conversation()
    await previews.upload(conversation, "a.txt", b"x")
    services = await previews.services()
    foreign, _ = await services.database.create_conversation("somebody else")
    paths = [
        f"/sandbox/preview/{conversation}/uploads/b.txt",
        f"/sandbox/preview/{conversation}/shares/a.txt",
        f"/sandbox/preview/{foreign.conversation_id}/uploads/a.txt",
        f"/sandbox/preview/{foreign.conversation_id}/shares/a.txt",
        f"/sandbox/preview/{UNKNOWN}/uploads/a.txt",
        f"/sandbox/preview/{UNKNOWN}/shares/a.txt",
        f"/sandbox/preview/{UNKNOWN}/shares/..%2F..%2Fetc/passwd",
        "/sandbox/preview/not-a-uuid/uploads/a.txt",
    ]
    for accept in (PAGE, {}):
        answers = [await previews.fetch(path, **accept) for path in paths]
        assert {answer.code for answer in answers} == {404}
        assert len({answer.body for answer in answers}) == 1
        seen = {
            tuple(sorted((n, v) for n, v in a.headers.get_all() if n != "Date")) for a in answers
        }
        assert len(seen) == 1
        for path in (*paths, f"/sandbox/preview/{conversation}/uploads/a.txt"):
            assert (await previews.fetch(path, login=False, **accept)).code == 401


async def test_a_frames_address_lets_in_without_cookies_and_only_there(previews):
    conversation = await previews.api.conversation()
    shell_url = await previews.upload(conversation, "a.py", b"print(1)\n")
    address = await previews.framed(shell_url)
    shown = await previews.fetch(address, login=False, **IN_FRAME)
    assert shown.code == 200
    assert '<span class="nb">print</span>' in shown.body.decode()
    assert "Set-Cookie" not in shown.headers
    # Opened in a tab, or by a browser that does not say where it shows it: to the shell.
    for headers in ({"Sec-Fetch-Dest": "document"}, {}, {"Sec-Fetch-Dest": "script"}):
        led = await previews.fetch(address, login=False, **headers)
        assert (led.code, led.headers["Location"]) == (302, shell_url), headers
    host = {"Host": "localhost:1234"}
    referred = {**host, "Referer": f"http://localhost:1234{shell_url}"}
    assert (await previews.fetch(address, login=False, **referred)).code == 200
    foreign = {**host, "Referer": f"http://evil.example{shell_url}"}
    assert (await previews.fetch(address, login=False, **foreign)).code == 302
    # The shell's own load has the cookie; without it the user has logged out.
    own = {**IN_FRAME, "Sec-Fetch-Site": "same-origin"}
    assert (await previews.fetch(address, login=False, **own)).code == 401
    assert (await previews.fetch(address, **own)).code == 200


async def test_unknown_ended_and_foreign_leases_answer_alike(previews):
    conversation = await previews.api.conversation()
    services = await previews.services()
    shell_url = await previews.upload(conversation, "a.txt", b"secret")
    address = await previews.framed(shell_url)
    head, token, _ = re.split(r"(?<=/leased/)([^/]+)", address)
    other = await services.conversations.create("somebody else")
    share = services.previews.leases.find(token).target
    foreign, _ = services.previews.leases.open("somebody else", other[0].conversation_id, share)
    ended = await previews.framed(shell_url)
    services.previews.leases.end_conversation(conversation)
    addresses = [f"{head}{foreign}/view", f"{head}{'A' * 43}/view", ended, address, f"{head}x/y"]
    answers = [await previews.fetch(each, **IN_FRAME) for each in addresses]
    assert {answer.code for answer in answers} == {404}
    assert len({answer.body for answer in answers}) == 1
    without = [await previews.fetch(each, login=False, **IN_FRAME) for each in addresses[1:]]
    assert {answer.code for answer in without} == {401}


async def test_leases_end_with_their_conversation_and_by_time(previews):
    conversation = await previews.api.conversation()
    services = await previews.services()
    shell_url = await previews.upload(conversation, "a.txt", b"x")
    address = await previews.framed(shell_url)
    renew = re.search(
        r'data-renew="([^"]+)"', (await previews.fetch(shell_url, **PAGE)).body.decode()
    )[1]
    assert (await previews.fetch(renew, method="POST")).code == 204
    assert (await previews.fetch(renew, method="POST", login=False)).code in (401, 403)
    cross = {"Sec-Fetch-Site": "cross-site"}
    assert (await previews.fetch(renew, method="POST", **cross)).code == 403
    leases, now = services.previews.leases, services.previews.leases._clock
    leases._clock = lambda: now() + 119
    assert (await previews.fetch(address, login=False, **IN_FRAME)).code == 200
    leases._clock = lambda: now() + 122
    assert (await previews.fetch(address, **IN_FRAME)).code == 404
    leases._clock = now
    address = await previews.framed(shell_url)
    # Another server process deletes the conversation: this one's leases are asked again all the same.
    await services.conversations.delete("local", conversation)
    assert (await previews.fetch(address, **IN_FRAME)).code == 404
    assert (await previews.fetch(shell_url, **PAGE)).code == 404


async def test_deleting_a_conversation_over_rest_ends_its_leases(previews):
    leases = (await previews.services()).previews.leases
    before = repr(leases)
    conversation = await previews.api.conversation()
    await previews.framed(await previews.upload(conversation, "a.txt", b"x"))
    assert repr(leases) != before
    assert (await previews.api.raw("DELETE", "conversations", conversation)).code == 204
    assert repr(leases) == before


@pytest.mark.parametrize(
    ("name", "data", "media_type", "sandbox"),
    [
        ("a.html", b"<p>x", "text/html; charset=utf-8", "sandbox allow-scripts allow-forms;"),
        ("l.html", b"<p>\xfc" + b"x" * 99, "text/html", "sandbox allow-scripts allow-forms;"),
        ("a.pdf", b"%PDF-1.4\n", "text/html; charset=utf-8", "sandbox allow-scripts;"),
        ("a.md", b"# x", "text/html; charset=utf-8", "sandbox allow-popups allow-popups-to-"),
        ("a.txt", b"<script>alert(1)</script>", "text/html; charset=utf-8", "sandbox;"),
        ("a.xhtml", b"<html xmlns='x'/>", "text/html; charset=utf-8", "sandbox;"),
        ("evil.svg", b"<html><svg onload=x>", "text/html; charset=utf-8", "sandbox;"),
        ("empty.txt", b"", "text/html; charset=utf-8", "sandbox;"),
    ],
)
async def test_every_document_is_held_by_its_headers(previews, name, data, media_type, sandbox):
    conversation = await previews.api.conversation()
    shell_url = await previews.upload(conversation, name, data)
    shell = await previews.fetch(shell_url, **PAGE)
    policy = shell.headers["Content-Security-Policy"]
    assert re.search(r"frame-src [\w.:]+/[^; ]*sandbox/preview/leased/[\w-]{43}/;", policy), policy
    assert "frame-ancestors 'self'" in policy
    assert shell.headers.get_list("Content-Security-Policy") == [policy]
    inner = await previews.fetch(await previews.framed(shell_url), login=False, **IN_FRAME)
    assert inner.code == 200
    assert inner.headers["Content-Type"] == media_type
    held = inner.headers["Content-Security-Policy"]
    assert held.startswith(sandbox)
    assert "default-src 'none'" in held
    assert inner.headers.get_list("Content-Security-Policy") == [held]
    for header, value in (
        ("X-Content-Type-Options", "nosniff"),
        ("Cache-Control", "private, no-store"),
        ("Referrer-Policy", "no-referrer"),
        ("X-DNS-Prefetch-Control", "off"),
    ):
        assert inner.headers[header] == value
    assert "Access-Control-Allow-Origin" not in inner.headers
    if name.endswith(".html"):  # as it is, behind our line
        assert inner.body.endswith(b"</script>" + data)
        assert inner.body.count(b"<script") == 1
    elif name == "a.pdf":  # the viewer; the file is handed to it
        assert data not in inner.body
        nonce = re.search(r"script-src 'nonce-([\w-]+)' 'wasm-unsafe-eval';", held)[1]
        assert inner.body.count(f'nonce="{nonce}"'.encode()) == inner.body.count(
            b'<script type="module'
        )
        assert inner.headers["Connection-Allowlist"] == "()"
    else:
        assert b"<script" not in inner.body
    iframe = re.search(r"<iframe[^>]*>", shell.body.decode())[0]
    assert f'sandbox="{sandbox[8:-1]}' in iframe


@pytest.mark.parametrize(
    ("name", "data", "tag"),
    [
        ("a.png", b"\x89PNG\r\n\x1a\n" + bytes(9), "img"),
        ("png.html", b"\x89PNG\r\n\x1a\n" + bytes(9), "img"),
        ("a.svg", b"<svg xmlns='http://www.w3.org/2000/svg' onload='x'/>", "img"),
        ("a.webm", b"\x1a\x45\xdf\xa3\x01\x42\x82\x84webm", "video"),
        ("a.wav", b"RIFF\x00\x00\x00\x00WAVEfmt ", "audio"),
        ("a.zip", b"PK\x03\x04" + bytes(20), None),
    ],
)
async def test_what_is_inert_is_shown_from_its_download(previews, name, data, tag):
    leases = (await previews.services()).previews.leases
    before = repr(leases)
    conversation = await previews.api.conversation()
    shell = await previews.fetch(await previews.upload(conversation, name, data), **PAGE)
    page = shell.body.decode()
    assert "<iframe" not in page
    assert "<script" not in page
    policy = shell.headers["Content-Security-Policy"]
    assert "script-src" not in policy
    assert re.findall(r"<(img|video|audio)\b", page) == ([tag] if tag else [])
    assert f"/conversations/{conversation}/uploads/{name};" in policy
    assert repr(leases) == before


async def test_long_texts_are_shown_in_part(previews):
    conversation = await previews.api.conversation()
    data = ("é" * 99 + "\n").encode() * 10_000  # two bytes a character: the cut is within one
    address = await previews.framed(await previews.upload(conversation, "long.log", b"x" + data))
    page = (await previews.fetch(address, **IN_FRAME)).body.decode()
    assert "The first 1 MB of 2.0 MB are shown" in page
    assert "\ufffd" not in page
    assert 5000 <= page.count("<span>") <= 5100


async def test_pages_of_other_sites_cannot_ask(previews):
    conversation = await previews.api.conversation()
    shell_url = await previews.upload(conversation, "a.txt", b"x")
    services = await previews.services()
    for destination, status in (("iframe", 403), ("image", 403), ("empty", 403), ("document", 200)):
        headers = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": destination}
        # With the cookie's user, not with a token: a page has none to send.
        response = await previews.fetch(shell_url, **headers)
        assert response.code in (status, 200), destination
    assert services.previews is not None


async def test_an_empty_lease_table_after_a_restart(previews):
    conversation = await previews.api.conversation()
    address = await previews.framed(await previews.upload(conversation, "a.txt", b"x"))
    await previews.app.stop_extension()
    assert (await previews.fetch(address, **IN_FRAME)).code == 404


class TestWithoutScripts:
    @pytest.fixture
    def sandbox_config(self):
        return {"SandboxPreviews": {"html_scripts": False}}

    async def test_an_html_file_is_cleaned(self, previews):
        conversation = await previews.api.conversation()
        page = b"<style>p{color:red}</style><p onclick=x>text<script>alert(1)</script><img src=http://x>"
        shell_url = await previews.upload(conversation, "a.html", page)
        shell = (await previews.fetch(shell_url, **PAGE)).body.decode()
        assert 'sandbox=""' in shell
        inner = await previews.fetch(await previews.framed(shell_url), login=False, **IN_FRAME)
        assert inner.body.decode() == "<style>p{color:red}</style><p>text<img></p>"
        assert inner.headers["Content-Security-Policy"].startswith("sandbox; default-src 'none'")


async def test_without_its_viewer_a_pdf_can_be_downloaded_only(previews, monkeypatch, tmp_path):
    monkeypatch.setattr("jupyter_sandbox.previews.pdf_viewer._DIRECTORY", tmp_path)
    conversation = await previews.api.conversation()
    shell = await previews.fetch(await previews.upload(conversation, "a.pdf", b"%PDF-1.4"), **PAGE)
    page = shell.body.decode()
    assert "no PDF viewer, because it was made without npm" in page
    assert "<iframe" not in page
    assert page.count("download>Download</a>") == 2
    assert "script-src" not in shell.headers["Content-Security-Policy"]
