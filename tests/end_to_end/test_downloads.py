"""Downloads of shared files: statuses in their order, ranges, names, versions, the zip."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import os
import zipfile
from urllib.parse import quote

import pytest

from tests.attacks import attack

OUT = "/mnt/user-data/outputs"
UNKNOWN = "00000000-0000-4000-8000-000000000000"


@pytest.fixture
def files(api, http_server_client, jp_auth_header, jp_base_url, jp_serverapp):
    return Files(api, http_server_client, jp_auth_header, jp_base_url, jp_serverapp)


class Files:
    def __init__(self, api, client, auth, base_url, serverapp) -> None:
        self.api = api
        self._client = client
        self._auth = auth
        self._base_url = base_url
        self.app = serverapp.web_app.settings["jupyter_sandbox"]

    async def get(self, conversation: str, path: str, query: str = "", method="GET", **headers):
        """Ask for a path that is quoted already; "" is the zip."""
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        target = f"{conversation}/{path}" if path else f"{conversation}.zip"
        url = f"{self._base_url}sandbox/files/{target}?{query}"
        headers = {**self._auth, **headers}
        return await self._client.fetch(url, method=method, headers=headers, raise_error=False)

    async def share(self, conversation: str, name: str, data: bytes) -> dict:
        services = await self.app.ready()
        async with services.conversations.live(conversation).use() as sandbox:
            await sandbox.files.write(f"{OUT}/{name}", data, overwrite=True)
        result = await self.api.call(conversation, "share_files", paths=[f"{OUT}/{name}"])
        assert not result["is_error"], result
        return next(part for part in result["content"] if part["type"] == "file")


async def test_a_shared_file_is_what_was_shared_whatever_becomes_of_the_sandbox(files):
    api = files.api
    conversation = await api.conversation()
    data = os.urandom(3_000_000)
    card = await files.share(conversation, "deep/r.bin", data)
    await api.bash(conversation, f"rm -rf {OUT}/*")
    services = await files.app.ready()
    record = await services.database.conversation(conversation)
    await services.engine.remove(record.sandbox_id)
    response = await files.get(conversation, "deep/r.bin")
    assert response.code == 200
    assert response.body == data
    assert response.headers["ETag"] == f'"{card["sha256"]}"'
    assert response.headers["ETag"] == f'"{hashlib.sha256(data).hexdigest()}"'
    assert response.headers["Content-Length"] == str(len(data))
    assert response.headers["Content-Type"] == "application/octet-stream"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Cache-Control"] == "private, no-store"
    assert response.headers["Content-Security-Policy"].startswith("sandbox; default-src 'none'")
    assert response.headers["Content-Disposition"].startswith("attachment; ")
    head = await files.get(conversation, "deep/r.bin", method="HEAD")
    assert head.code == 200
    assert head.body == b""
    for name in ("Content-Length", "ETag", "Content-Type", "Content-Disposition", "Accept-Ranges"):
        assert head.headers[name] == response.headers[name]


async def test_versions_stay_and_the_newest_is_given(files):
    conversation = await files.api.conversation()
    for data in (b"one", b"two", b"three"):
        await files.share(conversation, "a.txt", data)
    assert (await files.get(conversation, "a.txt")).body == b"three"
    assert (await files.get(conversation, "a.txt", "version=1")).body == b"one"
    assert (await files.get(conversation, "a.txt", "version=2")).body == b"two"
    assert (await files.get(conversation, "a.txt", "version=4")).code == 404
    assert (await files.get(conversation, "a.txt", "version=x")).code == 422
    _, model = await files.api.json("GET", "conversations", conversation, "shares")
    (share,) = model["shares"]
    assert (share["path"], share["version"], share["size_bytes"]) == ("a.txt", 3, 5)
    assert [version["version"] for version in share["versions"]] == [3, 2, 1]
    assert share["url"].endswith(f"/sandbox/files/{conversation}/a.txt")
    _, model = await files.api.json("GET", "conversations", conversation)
    assert model["usage"]["share_bytes"] == 11


async def test_ranges(files):
    conversation = await files.api.conversation()
    data = os.urandom(200_000)
    card = await files.share(conversation, "r", data)
    etag = f'"{card["sha256"]}"'
    for value, first, last in (
        ("bytes=0-0", 0, 0),
        ("bytes=65535-65536", 65535, 65536),
        ("bytes=199999-", 199_999, 199_999),
        ("bytes=100-999999", 100, 199_999),
        ("bytes=-1", 199_999, 199_999),
        ("bytes=-70000", 130_000, 199_999),
        ("bytes=-999999", 0, 199_999),
    ):
        response = await files.get(conversation, "r", Range=value)
        assert response.code == 206, value
        assert response.headers["Content-Range"] == f"bytes {first}-{last}/200000"
        assert response.body == data[first : last + 1]
    for value in ("bytes=0-0,5-6", "bytes=5-4", "bytes=a-b", "bytes=-", "lines=1-2", "bytes=1-2-3"):
        response = await files.get(conversation, "r", Range=value)
        assert (response.code, response.body) == (200, data), value
    for value in ("bytes=200000-", "bytes=999999-9999999", "bytes=-0"):
        response = await files.get(conversation, "r", Range=value)
        assert response.code == 416, value
        assert response.headers["Content-Range"] == "bytes */200000"
    head = await files.get(conversation, "r", method="HEAD", Range="bytes=0-0")
    assert (head.code, head.headers["Content-Length"]) == (200, "200000")
    # Conditions.
    for tags in (etag, f"W/{etag}", f'"x", {etag}', "*"):
        response = await files.get(conversation, "r", If_None_Match=tags)
        assert (response.code, response.body) == (304, b""), tags
        assert response.headers["ETag"] == etag
    assert (await files.get(conversation, "r", If_None_Match='"x"')).code == 200
    resumed = await files.get(conversation, "r", Range="bytes=5-6", If_Range=etag)
    assert resumed.body == data[5:7]
    for other in ('"x"', f"W/{etag}", "Wed, 21 Oct 2015 07:28:00 GMT"):
        response = await files.get(conversation, "r", Range="bytes=5-6", If_Range=other)
        assert (response.code, response.body) == (200, data)


async def test_an_empty_file(files):
    conversation = await files.api.conversation()
    await files.share(conversation, "empty", b"")
    response = await files.get(conversation, "empty")
    assert (response.code, response.body) == (200, b"")
    assert response.headers["Content-Length"] == "0"
    assert (await files.get(conversation, "empty", Range="bytes=0-")).code == 416


@attack("T26", on="")
async def test_what_is_missing_and_what_is_somebody_elses_answer_alike(files):
    conversation = await files.api.conversation()
    await files.share(conversation, "a", b"x")
    services = await files.app.ready()
    foreign, _ = await services.database.create_conversation("somebody else")
    answers = [
        await files.get(UNKNOWN, "a"),
        await files.get(foreign.conversation_id, "a"),
        await files.get("no-id-at-all", "a"),
        await files.get(conversation, "b"),
        await files.get(conversation, "a/"),
        await files.get(conversation, "%2e%2e/a"),
        await files.get(conversation, "%FF"),
        await files.get(conversation, "a%00"),
        await files.get(conversation, "A"),
        await files.get(UNKNOWN, ""),
        await files.get(foreign.conversation_id, ""),
    ]
    varying = {"Date", "X-Request-Id"}
    seen = {
        (
            answer.code,
            answer.body,
            tuple(sorted((n, v) for n, v in answer.headers.get_all() if n not in varying)),
        )
        for answer in answers
    }
    assert len(seen) == 1, seen
    assert next(iter(seen))[0] == 404


async def test_without_a_login_nothing_is_said(files):
    conversation = await files.api.conversation()
    await files.share(conversation, "a", b"x")
    for path in ("a", "missing", ""):
        for target in (conversation, UNKNOWN):
            response = await files.get(target, path, Authorization="token wrong")
            assert response.code == 401
            assert json.loads(response.body)["code"] == "unauthenticated"


@attack("T40", on="")
async def test_a_page_of_another_site_gets_no_file_with_the_users_cookie(files, monkeypatch):
    from jupyter_sandbox.routes.sending import SendingHandler

    conversation = await files.api.conversation()
    await files.share(conversation, "a", b"x")
    for site in ("same-origin", "none", "cross-site"):
        assert (await files.get(conversation, "a", Sec_Fetch_Site=site)).code == 200  # a token
    monkeypatch.setattr(SendingHandler, "token_authenticated", False)
    for site, status in (
        ("same-origin", 200),
        ("none", 200),
        ("same-site", 403),
        ("cross-site", 403),
    ):
        assert (await files.get(conversation, "a", Sec_Fetch_Site=site)).code == status
    assert (await files.get(UNKNOWN, "a", Sec_Fetch_Site="cross-site")).code == 403


async def test_a_store_that_failed_is_502_and_nothing_of_the_file_is_delivered(files):
    conversation = await files.api.conversation()
    data = os.urandom(1_000_000)
    card = await files.share(conversation, "a.bin", data)
    await files.share(conversation, "b.bin", b"fine")
    stored = f"{files.app.data_dir}/vault/{conversation}/{card['id']}"
    with open(stored, "r+b") as file:
        file.seek(900_000)
        byte = file.read(1)
        file.seek(900_000)
        file.write(bytes([byte[0] ^ 1]))
    for path, query, headers in (
        ("a.bin", "", {}),
        ("a.bin", "version=1", {"Range": "bytes=0-9"}),
        ("", "", {}),  # the zip with all
    ):
        response = await files.get(conversation, path, query, **headers)
        assert response.code == 502
        assert "damaged" in json.loads(response.body)["message"]
        assert data[:10] not in response.body
        assert "Retry-After" in response.headers
        for name in ("ETag", "Content-Disposition", "Content-Range"):
            assert name not in response.headers
    assert (await files.get(conversation, "b.bin")).body == b"fine"
    with open(stored, "r+b") as file:
        file.seek(900_000)
        file.write(byte)
    assert (await files.get(conversation, "a.bin")).body == data


@pytest.mark.parametrize(
    ("name", "plain", "encoded"),
    [
        ("a b.txt", "a b.txt", "a%20b.txt"),
        ("größe.txt", "große.txt".encode("ascii", "ignore").decode(), None),
        ("数据.csv", ".csv", None),
        ('"; filename=evil.html', "__ filename_evil.html", None),
        ("‮txt.exe", "txt.exe", "txt.exe"),
        (".bashrc", "bashrc", "bashrc"),
        ("x" * 240 + ".tar", "x" * 146 + ".tar", None),
    ],
)
@attack("T23")
def test_names_are_saved_under_something_harmless_that_resembles_them(name, plain, encoded):
    from jupyter_sandbox.routes.disposition import attachment, safe_name

    value = attachment(name)
    assert value.isascii()
    assert "\n" not in value
    assert value.count('"') == 2
    assert value.endswith(f"filename*=UTF-8''{encoded or quote(safe_name(name), safe='')}")
    if plain and name != "größe.txt":
        assert f'filename="{plain.strip(". ")}"' in value


@attack("T23", on="")
async def test_names_of_any_language_survive_a_download(files):
    conversation = await files.api.conversation()
    for name in ("größe 数据 🎉.csv", "عربي.txt", '"; x=y.txt', "<img src=x>.txt", "%2e%2e"):
        await files.share(conversation, name, name.encode())
        response = await files.get(conversation, quote(name, safe=""))
        assert (response.code, response.body) == (200, name.encode())
        assert len(response.headers.get_list("Content-Disposition")) == 1


async def test_the_zip_has_the_newest_version_of_each_file(files):
    conversation = await files.api.conversation(title='Seattle\'s "weather"')
    data = os.urandom(2_500_000)
    for name, contents in (("a.txt", b"old"), ("a.txt", b"new"), ("d/ü 🎉.bin", data), ("e", b"")):
        await files.share(conversation, name, contents)
    response = await files.get(conversation, "")
    assert response.code == 200
    assert response.headers["Content-Type"] == "application/zip"
    assert response.headers["Content-Length"] == str(len(response.body))
    assert "weather" in response.headers["Content-Disposition"]
    with zipfile.ZipFile(io.BytesIO(response.body)) as archive:
        assert archive.testzip() is None
        assert sorted(archive.namelist()) == sorted(["a.txt", "d/ü 🎉.bin", "e"])
        assert archive.read("a.txt") == b"new"
        assert archive.read("d/ü 🎉.bin") == data
    head = await files.get(conversation, "", method="HEAD")
    assert head.headers["Content-Length"] == response.headers["Content-Length"]
    empty = await files.get(await files.api.conversation(), "")
    assert zipfile.ZipFile(io.BytesIO(empty.body)).namelist() == []


async def test_a_client_that_leaves_in_the_middle_costs_nothing(files, jp_serverapp, jp_base_url):
    conversation = await files.api.conversation()
    await files.share(conversation, "big", os.urandom(30_000_000))
    token = jp_serverapp.identity_provider.token
    for path in (f"{conversation}/big", f"{conversation}.zip"):
        reader, writer = await asyncio.open_connection("127.0.0.1", jp_serverapp.port)
        writer.write(
            f"GET {jp_base_url}sandbox/files/{path} HTTP/1.1\r\nHost: localhost\r\n"
            f"Authorization: token {token}\r\n\r\n".encode()
        )
        await reader.readexactly(100_000)
        writer.close()
        await no_open_files_of(f"{files.app.data_dir}/vault")
    assert (await files.get(conversation, "big", Range="bytes=0-9")).code == 206


async def no_open_files_of(directory: str) -> None:
    def opened() -> list[str]:
        found = []
        for name in os.listdir("/proc/self/fd"):
            try:
                found.append(os.readlink(f"/proc/self/fd/{name}"))
            except OSError:
                continue
        return [path for path in found if path.startswith(directory)]

    for _ in range(500):
        if not opened():
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"still open: {opened()}")
