"""A conversation's contents as JupyterLab's drives ask for them: the requests of a stock client."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
from urllib.parse import quote

import pytest
from jupyter_server.services.contents.handlers import validate_model

U = "/mnt/user-data/uploads"
OUT = "/mnt/user-data/outputs"
LIMIT = 25_000_000
UNKNOWN = "00000000-0000-4000-8000-000000000000"


@pytest.fixture
def drive(api, http_server_client, jp_auth_header, jp_base_url, jp_serverapp):
    return Drive(api, http_server_client, jp_auth_header, jp_base_url, jp_serverapp)


class Drive:
    """What @jupyterlab/services' Drive sends, checked with jupyter_server's own validator."""

    def __init__(self, api, client, auth, base_url, serverapp) -> None:
        self.api = api
        self.app = serverapp.web_app.settings["jupyter_sandbox"]
        self._client = client
        self._auth = auth
        self._base_url = base_url

    async def raw(self, method: str, conversation: str, tail: str, body=None, headers=None):
        if not isinstance(body, str):
            body = json.dumps(body) if body is not None else None
        if body is None and method in ("POST", "PUT", "PATCH"):
            body = ""
        return await self._client.fetch(
            f"{self._base_url}sandbox/c/{conversation}/{tail}",
            method=method,
            body=body,
            headers=self._auth if headers is None else headers,
            raise_error=False,
            request_timeout=120,
        )

    async def ask(self, method: str, conversation: str, path: str, query: str = "", body=None):
        """Ask; give (status, model)."""
        tail = f"api/contents/{quote(path)}".rstrip("/") + (f"?{query}" if query else "")
        response = await self.raw(method, conversation, tail, body)
        model = json.loads(response.body) if response.body else None
        if response.code in (200, 201) and "checkpoints" not in path:
            wants = method == "GET" and "content=0" not in query
            validate_model(model, expect_content=wants, expect_hash="hash=1" in query)
        return response.code, model

    async def names(self, conversation: str, path: str = "") -> list[str]:
        status, model = await self.ask("GET", conversation, path, "content=1")
        assert (status, model["type"], model["format"]) == (200, "directory", "json")
        for entry in model["content"]:
            validate_model(entry)
        return [entry["name"] for entry in model["content"]]

    async def put(self, conversation: str, path: str, data: bytes, **fields):
        model = {"type": "file", "format": "base64", "name": path.rpartition("/")[2], "path": path}
        model["content"] = base64.b64encode(data).decode()
        return await self.ask("PUT", conversation, path, body={**model, **fields})

    async def read(self, conversation: str, path: str) -> bytes:
        response = await self.raw("GET", conversation, f"files/{quote(path)}")
        assert response.code == 200, response.body
        return response.body

    async def share(self, conversation: str, name: str, data: bytes) -> None:
        services = await self.app.ready()
        async with services.conversations.live(conversation).use() as sandbox:
            await sandbox.files.write(f"{OUT}/{name}", data, overwrite=True)
        result = await self.api.call(conversation, "share_files", paths=[f"{OUT}/{name}"])
        assert not result["is_error"], result

    def stored(self) -> list[str]:
        root = os.path.join(self.app.data_dir, "vault")
        return sorted(name for _, _, names in os.walk(root) for name in names)


async def test_the_root_has_the_two_folders_and_looking_starts_no_sandbox(drive):
    conversation = await drive.api.conversation()
    assert await drive.names(conversation) == ["uploads", "outputs"]
    assert await drive.names(conversation, "uploads") == []
    assert await drive.names(conversation, "outputs") == []
    assert (await drive.ask("GET", conversation, "workspace"))[0] == 404
    _, model = await drive.api.json("GET", "conversations", conversation)
    assert model["state"] == "absent"


async def test_what_is_saved_is_an_upload_and_in_the_running_sandbox(drive):
    api = drive.api
    conversation = await api.conversation()
    await api.bash(conversation, "true")
    data = os.urandom(1000)
    status, model = await drive.put(conversation, "uploads/ünï 1.bin", data)
    assert (status, model["path"], model["type"]) == (201, "uploads/ünï 1.bin", "file")
    assert (model["size"], model["writable"]) == (1000, True)
    digest = hashlib.sha256(data).hexdigest()
    assert digest in await api.bash(conversation, f"sha256sum {U}/*")
    status, model = await drive.put(conversation, "uploads/ünï 1.bin", b"second")
    assert status == 200
    assert await api.bash(conversation, f"cat {U}/*") != ""
    _, uploads = await api.json("GET", "conversations", conversation, "uploads")
    assert [row["name"] for row in uploads["uploads"]] == ["ünï 1.bin"]
    assert await drive.names(conversation, "uploads") == ["ünï 1.bin"]
    assert await drive.read(conversation, "uploads/ünï 1.bin") == b"second"


async def test_formats_and_types_are_those_that_jupyterlab_asks_for(drive):
    conversation = await drive.api.conversation()
    await drive.put(conversation, "uploads/a.csv", b"a,b\n1,2\n")
    await drive.put(conversation, "uploads/b.bin", b"\xff\x00\x01")
    status, model = await drive.ask("GET", conversation, "uploads/a.csv", "content=1&hash=1")
    assert (status, model["format"], model["content"]) == (200, "text", "a,b\n1,2\n")
    assert (model["mimetype"], model["hash_algorithm"]) == ("text/csv", "sha256")
    assert model["hash"] == hashlib.sha256(b"a,b\n1,2\n").hexdigest()
    status, model = await drive.ask(
        "GET", conversation, "uploads/a.csv", "type=file&format=base64&content=1&hash=0"
    )
    assert (model["format"], base64.b64decode(model["content"])) == ("base64", b"a,b\n1,2\n")
    status, model = await drive.ask("GET", conversation, "uploads/a.csv", "content=0&hash=1")
    assert (status, model["content"], model["format"], len(model["hash"])) == (200, None, None, 64)
    status, model = await drive.ask("GET", conversation, "uploads/b.bin")
    assert (model["format"], base64.b64decode(model["content"])) == ("base64", b"\xff\x00\x01")
    for query in ("type=file&format=text", "type=directory", "format=yaml", "content=2", "hash=x"):
        status, model = await drive.ask("GET", conversation, "uploads/b.bin", query)
        assert status == 400, (query, model)
        assert model["message"]
    status, model = await drive.ask("GET", conversation, "uploads", "type=file")
    assert status == 400


async def test_a_notebook_opens_saves_and_is_never_trusted(drive):
    conversation = await drive.api.conversation()
    status, model = await drive.ask("POST", conversation, "uploads", body={"type": "notebook"})
    assert (status, model["path"], model["type"]) == (201, "uploads/Untitled.ipynb", "notebook")
    output = {"output_type": "display_data", "data": {"text/html": "<b>"}, "metadata": {}}
    cell = {
        "cell_type": "code",
        "id": "a",
        "source": "1",
        "execution_count": None,
        "outputs": [output],
        "metadata": {"trusted": True},
    }
    notebook = {"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [cell]}
    body = {"type": "notebook", "format": "json", "content": notebook}
    status, model = await drive.ask("PUT", conversation, "uploads/Untitled.ipynb", body=body)
    assert (status, model["type"], "message" in model) == (200, "notebook", False)
    kept = await drive.read(conversation, "uploads/Untitled.ipynb")
    assert b"trusted" not in kept
    claims = json.loads(kept)
    claims["cells"][0]["metadata"]["trusted"] = True
    await drive.put(conversation, "uploads/claims.ipynb", json.dumps(claims).encode())
    status, model = await drive.ask("GET", conversation, "uploads/claims.ipynb", "type=notebook")
    assert (status, model["format"]) == (200, "json")
    assert model["content"]["cells"][0]["metadata"]["trusted"] is False
    # what is no notebook can still be opened as text
    await drive.put(conversation, "uploads/no.ipynb", b"{nonsense")
    status, model = await drive.ask("GET", conversation, "uploads/no.ipynb")
    assert status == 400
    status, model = await drive.ask("GET", conversation, "uploads/no.ipynb", "type=file")
    assert (status, model["content"]) == (200, "{nonsense")


async def test_outputs_stored_in_a_notebook_neither_run_nor_load_anything(drive):
    conversation = await drive.api.conversation()
    hostile = {
        "application/vnd.vega.v5+json": {"data": {"url": "http://canary.example/"}},
        "application/javascript": "alert(1)",
        "text/html": "<b>kept</b><img src='http://canary.example/x'><script>alert(1)</script>",
        "image/svg+xml": "<svg onload='alert(1)'/>",
        "text/plain": "text",
    }
    outputs = [{"output_type": "display_data", "data": hostile, "metadata": {"isolated": True}}]
    huge = {"text/html": "<i>x</i>" * 8_000, "text/plain": "beyond the room"}
    outputs += [{"output_type": "display_data", "data": huge, "metadata": {}}] * 100
    cell = {
        "cell_type": "code",
        "id": "a",
        "source": "1",
        "execution_count": None,
        "outputs": outputs,
        "metadata": {},
    }
    notebook = {"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [cell]}
    await drive.put(conversation, "uploads/hostile.ipynb", json.dumps(notebook).encode())
    status, model = await drive.ask("GET", conversation, "uploads/hostile.ipynb")
    assert status == 200
    first, *_, last = model["content"]["cells"][0]["outputs"]
    assert set(first["data"]) == {"text/html", "text/plain"}
    assert "<b>kept</b>" in first["data"]["text/html"]
    assert "canary" not in json.dumps(first)
    assert "alert" not in json.dumps(first).replace("PHN2Zy", "")
    assert first["metadata"] == {}
    assert last["data"] == {"text/plain": "beyond the room"}


async def test_untitled_files_copies_renames_and_deletes(drive):
    api = drive.api
    conversation = await api.conversation()
    await api.bash(conversation, "true")
    for name in ("untitled.txt", "untitled1.txt"):
        body = {"type": "file", "ext": ".txt"}
        status, model = await drive.ask("POST", conversation, "uploads", body=body)
        assert (status, model["name"]) == (201, name)
    await drive.put(conversation, "uploads/untitled.txt", b"text")
    body = {"copy_from": "uploads/untitled.txt"}
    status, model = await drive.ask("POST", conversation, "uploads", body=body)
    assert (status, model["name"]) == (201, "untitled-Copy1.txt")
    assert await drive.read(conversation, "uploads/untitled-Copy1.txt") == b"text"
    status, model = await drive.ask(
        "PATCH", conversation, "uploads/untitled.txt", body={"path": "uploads/report.md"}
    )
    assert (status, model["path"], model["mimetype"]) == (200, "uploads/report.md", "text/markdown")
    assert await drive.names(conversation, "uploads") == [
        "report.md",
        "untitled-Copy1.txt",
        "untitled1.txt",
    ]
    shown = await api.bash(conversation, f"ls {U}; cat {U}/report.md")
    assert shown.startswith("report.md\nuntitled-Copy1.txt\nuntitled1.txt\ntext")
    status, _ = await drive.ask(
        "PATCH", conversation, "uploads/report.md", body={"path": "uploads/untitled1.txt"}
    )
    assert status == 409
    assert await drive.read(conversation, "uploads/report.md") == b"text"
    status, _ = await drive.ask("DELETE", conversation, "uploads/untitled1.txt")
    assert status == 204
    assert "untitled1" not in await api.bash(conversation, f"ls {U}")
    assert len(drive.stored()) == 2
    for path in ("", "uploads", "outputs"):
        status, _ = await drive.ask("DELETE", conversation, path)
        assert status in (400, 403), path


async def test_outputs_are_read_only_folders_and_can_be_deleted_to_make_room(drive):
    api = drive.api
    conversation = await api.conversation()
    await drive.share(conversation, "a.txt", b"one")
    await drive.share(conversation, "a.txt", b"two")
    await drive.share(conversation, "deep/er/b.txt", b"three")
    assert await drive.names(conversation, "outputs") == ["a.txt", "deep"]
    assert await drive.names(conversation, "outputs/deep") == ["er"]
    assert await drive.names(conversation, "outputs/deep/er") == ["b.txt"]
    status, model = await drive.ask("GET", conversation, "outputs/a.txt", "content=1")
    assert (model["content"], model["writable"]) == ("two", False)
    assert await drive.read(conversation, "outputs/deep/er/b.txt") == b"three"
    for method, path, body in (
        ("PUT", "outputs/a.txt", {"type": "file", "format": "text", "content": "x"}),
        ("PUT", "outputs/new", {"type": "file", "format": "text", "content": "x"}),
        ("PATCH", "outputs/a.txt", {"path": "outputs/c.txt"}),
        ("POST", "outputs", {"type": "file"}),
    ):
        status, model = await drive.ask(method, conversation, path, body=body)
        assert status == 403, (method, path, model)
    status, model = await drive.ask(
        "POST", conversation, "uploads", body={"copy_from": "outputs/a.txt"}
    )
    assert (status, model["path"]) == (201, "uploads/a.txt")
    _, before = await api.json("GET", "conversations", conversation)
    assert before["usage"]["shares"] == 3
    status, _ = await drive.ask("DELETE", conversation, "outputs/a.txt")
    assert status == 204
    status, _ = await drive.ask("DELETE", conversation, "outputs/deep")
    assert status == 204
    status, _ = await drive.ask("DELETE", conversation, "outputs/deep")
    assert status == 404
    assert await drive.names(conversation, "outputs") == []
    _, after = await api.json("GET", "conversations", conversation)
    assert after["usage"]["share_bytes"] == 0
    assert len(drive.stored()) == 1  # the copy among the uploads
    assert "two" in await api.bash(conversation, f"cat {OUT}/a.txt")


async def test_large_files_come_in_chunks_and_nobody_sees_half_of_one(drive):
    api = drive.api
    conversation = await api.conversation()
    await api.bash(conversation, "true")
    data = os.urandom(2_500_000)
    path = "uploads/large.bin"
    pieces = [data[start : start + (1 << 20)] for start in range(0, len(data), 1 << 20)]
    for number, piece in enumerate(pieces, 1):
        last = number == len(pieces)
        status, model = await drive.put(conversation, path, piece, chunk=-1 if last else number)
        assert status in (200, 201), model
        if not last:
            assert await drive.names(conversation, "uploads") == []
    assert model["size"] == len(data)
    assert await drive.read(conversation, path) == data
    assert hashlib.sha256(data).hexdigest() in await api.bash(conversation, f"sha256sum {U}/*")
    assert b"".join(pieces) == data
    assert len(drive.stored()) == 1


async def test_chunks_out_of_order_abandoned_or_of_two_senders_keep_nothing(drive, monkeypatch):
    conversation = await drive.api.conversation()
    contents = (await drive.app.ready()).contents
    path = "uploads/a"
    assert (await drive.put(conversation, path, b"x", chunk=2))[0] == 409
    assert (await drive.put(conversation, path, b"x", chunk=-1))[0] == 409
    for number in (0, -2, "1", 1.5, True, 10**30):
        assert (await drive.put(conversation, path, b"x", chunk=number))[0] in (400, 409), number
    assert (await drive.put(conversation, path, b"1", chunk=1))[0] == 201
    assert (await drive.put(conversation, path, b"other", chunk=1))[0] == 409
    assert (await drive.put(conversation, path, b"2", chunk=-1))[0] == 201
    assert await drive.read(conversation, path) == b"12"
    assert (await drive.put(conversation, "uploads/b", b"1", chunk=1))[0] == 201
    assert (await drive.put(conversation, "uploads/b", b"3", chunk=3))[0] == 409
    assert (await drive.put(conversation, "uploads/b", b"2", chunk=2))[0] == 409
    monkeypatch.setattr(contents._chunked, "_idle_seconds", 0.05)
    assert (await drive.put(conversation, "uploads/c", b"1", chunk=1))[0] == 201
    async with asyncio.timeout(20):
        while len(drive.stored()) > 1:
            await asyncio.sleep(0.02)
    assert (await drive.put(conversation, "uploads/c", b"2", chunk=-1))[0] == 409
    assert await drive.names(conversation, "uploads") == ["a"]


async def test_limits_and_capacity_hold_for_contents_too(drive):
    conversation = await drive.api.conversation()
    assert (await drive.put(conversation, "uploads/full", b"x" * LIMIT))[0] == 201
    status, model = await drive.put(conversation, "uploads/more", b"x" * (LIMIT + 1))
    assert (status, model["message"]) == (413, "The file is larger than 25,000,000 bytes.")
    response = await drive.raw(
        "PUT", conversation, "api/contents/uploads/more", "x" * (LIMIT * 2), None
    )
    assert response.code == 413
    piece = b"x" * (LIMIT // 2 + 1)
    assert (await drive.put(conversation, "uploads/chunks", piece, chunk=1))[0] == 201
    assert (await drive.put(conversation, "uploads/chunks", piece, chunk=2))[0] == 413
    assert await drive.names(conversation, "uploads") == ["full"]
    assert len(drive.stored()) == 1


@pytest.mark.parametrize("sandbox_config", [{"SandboxLimits": {"capacity_bytes": 1000}}])
async def test_over_the_capacity_nothing_is_saved_but_room_can_be_made(drive):
    conversation = await drive.api.conversation()
    assert (await drive.put(conversation, "uploads/a", b"x" * 1001))[0] == 201
    status, model = await drive.put(conversation, "uploads/b", b"x")
    assert status == 413
    assert "exceed the sandbox capacity" in model["message"]
    assert (await drive.ask("PATCH", conversation, "uploads/a", body={"path": "uploads/c"}))[
        0
    ] == 200
    assert (await drive.ask("DELETE", conversation, "uploads/c"))[0] == 204
    assert (await drive.put(conversation, "uploads/b", b"x"))[0] == 201


@pytest.mark.parametrize("sandbox_config", [{"SandboxLimits": {"upload_bytes": 1000}}])
async def test_a_shared_file_that_is_too_large_to_open_says_so_and_is_downloaded(drive):
    conversation = await drive.api.conversation()
    await drive.share(conversation, "big", b"x" * 1001)
    status, model = await drive.ask("GET", conversation, "outputs/big", "content=1")
    assert status == 413
    assert "1,001 bytes" in model["message"]
    assert "Download" in model["message"]
    assert (await drive.ask("GET", conversation, "outputs/big", "content=0"))[0] == 200
    assert await drive.read(conversation, "outputs/big") == b"x" * 1001


BAD_PATHS = [
    "uploads/..",
    "uploads/../outputs/x",
    "uploads/.",
    "uploads/a\\b",
    "uploads/a\x00b",
    "uploads/a\nb",
    "uploads/" + "é" * 128,
    "uploads//a",
    "uploads/a/b",
    "../etc/passwd",
    "etc/passwd",
    "workspace/x",
    "new.txt",
    "",
]


async def test_bad_names_are_no_files_and_no_place_for_one(drive):
    conversation = await drive.api.conversation()
    await drive.put(conversation, "uploads/x", b"x")
    for path in BAD_PATHS:
        quoted = quote(path, safe="")
        if path:
            for tail in (f"api/contents/{quoted}", f"files/{quoted}"):
                response = await drive.raw("GET", conversation, tail)
                assert response.code == 404, (tail, response.body)
            response = await drive.raw("DELETE", conversation, f"api/contents/{quoted}")
            assert response.code in (400, 404), path
        body = {"type": "file", "format": "text", "content": "x"}
        response = await drive.raw("PUT", conversation, f"api/contents/{quoted}", body)
        assert 400 <= response.code < 500, path
        assert json.loads(response.body)["message"]
        response = await drive.raw("PATCH", conversation, "api/contents/uploads/x", {"path": path})
        assert 400 <= response.code < 500, path
    assert await drive.names(conversation, "uploads") == ["x"]
    assert len(drive.stored()) == 1


BAD_BODIES = [
    ("PUT", ""),
    ("PUT", "{"),
    ("PUT", "[]"),
    ("PUT", "3"),
    ("PUT", "{}"),
    ("PUT", {"type": "file", "content": "x"}),
    ("PUT", {"type": "file", "content": "x", "format": "base32"}),
    ("PUT", {"type": "file", "content": "é", "format": "base64"}),
    ("PUT", {"type": "file", "content": "abc", "format": "base64"}),
    ("PUT", {"type": "file", "content": "\udcff", "format": "text"}),
    ("PUT", {"type": "file", "content": {"a": 1}, "format": "text"}),
    ("PUT", {"type": ["file"], "content": "x", "format": "text"}),
    ("PUT", {"type": "notebook", "content": "x", "format": "json"}),
    ("PUT", {"type": "notebook", "content": {"cells": 3}, "format": "json"}),
    ("PUT", {"type": "directory"}),
    ("PUT", {"copy_from": "uploads/x"}),
    ("POST", {"type": ["file"]}),
    ("POST", {"type": "file", "ext": 3}),
    ("POST", {"copy_from": 3}),
    ("POST", {"copy_from": "uploads/none"}),
    ("POST", {"copy_from": "../../etc/passwd"}),
    ("PATCH", ""),
    ("PATCH", {"path": 3}),
    ("PATCH", {}),
]


@pytest.mark.parametrize(("method", "body"), BAD_BODIES)
@pytest.mark.parametrize("engine_name", ["bubblewrap"])  # no sandbox is made
async def test_bad_bodies_are_the_clients_mistake(drive, method, body):
    conversation = await drive.api.conversation()
    path = {"PUT": "uploads/new", "POST": "uploads", "PATCH": "uploads/x"}[method]
    await drive.put(conversation, "uploads/x", b"x")
    before = drive.stored()
    response = await drive.raw(method, conversation, f"api/contents/{path}", body)
    if body in ("", "{}") and method == "PUT":  # an empty body makes an untitled file, if it can
        assert 400 <= response.code < 500
        return
    assert 400 <= response.code < 500, response.body
    assert json.loads(response.body)["message"]
    assert drive.stored() == before


async def test_checkpoints_do_not_fail_and_promise_nothing(drive):
    conversation = await drive.api.conversation()
    await drive.put(conversation, "uploads/a", b"1")
    at = "uploads/a/checkpoints"
    status, model = await drive.ask("POST", conversation, at)
    assert (status, set(model)) == (201, {"id", "last_modified"})
    assert await drive.ask("GET", conversation, at) == (200, [])
    assert (await drive.ask("POST", conversation, f"{at}/{model['id']}"))[0] == 404
    assert (await drive.ask("DELETE", conversation, f"{at}/{model['id']}"))[0] == 404
    assert (await drive.ask("POST", conversation, "uploads/none/checkpoints"))[0] == 404
    await drive.put(conversation, "uploads/checkpoints", b"a file of this name")
    assert (await drive.ask("GET", conversation, "uploads/checkpoints"))[1]["size"] == 19


async def test_one_of_many_writers_at_once_wins_whole(drive):
    conversation = await drive.api.conversation()
    versions = [bytes([65 + n]) * 200_000 for n in range(12)]
    answers = await asyncio.gather(
        *(drive.put(conversation, "uploads/a", data) for data in versions)
    )
    assert {status for status, _ in answers} <= {200, 201}
    assert await drive.read(conversation, "uploads/a") in versions
    made = await asyncio.gather(
        *(drive.ask("POST", conversation, "uploads", body={"type": "file"}) for _ in range(8))
    )
    assert len({model["path"] for _, model in made}) == 8
    moves = await asyncio.gather(
        *(
            drive.ask("PATCH", conversation, "uploads/a", body={"path": f"uploads/to{n}"})
            for n in range(4)
        )
    )
    assert sorted(status for status, _ in moves) == [200, 404, 404, 404]


async def test_foreign_and_missing_answer_alike_on_every_route(drive):
    conversation = await drive.api.conversation()
    await drive.put(conversation, "uploads/a", b"secret")
    database = (await drive.app.ready()).database
    foreign, _ = await database.create_conversation("somebody else", "", None)
    body = {"type": "file", "format": "text", "content": "x"}
    for method, tail, sent in (
        ("GET", "api/contents", None),
        ("GET", "api/contents/uploads/a", None),
        ("PUT", "api/contents/uploads/a", body),
        ("POST", "api/contents/uploads", {"type": "file"}),
        ("PATCH", "api/contents/uploads/a", {"path": "uploads/b"}),
        ("DELETE", "api/contents/uploads/a", None),
        ("GET", "api/contents/uploads/a/checkpoints", None),
        ("POST", "api/contents/uploads/a/checkpoints", None),
        ("POST", "api/contents/uploads/a/checkpoints/none", None),
        ("DELETE", "api/contents/uploads/a/checkpoints/none", None),
        ("GET", "files/uploads/a", None),
        ("HEAD", "files/uploads/a", None),
    ):
        answers = []
        for other in (foreign.conversation_id, UNKNOWN):
            response = await drive.raw(method, other, tail, sent)
            headers = {
                k: v for k, v in response.headers.get_all() if k not in ("Date", "Set-Cookie")
            }
            answers.append((response.code, response.body, headers))
        assert answers[0] == answers[1], (method, tail)
        assert answers[0][0] == 404
        anonymous = await drive.raw(method, conversation, tail, sent, headers={})
        assert anonymous.code == 401, (method, tail)
        assert b"secret" not in anonymous.body
    assert await drive.read(conversation, "uploads/a") == b"secret"


async def test_nothing_is_told_to_the_event_bus_or_the_servers_own_contents(drive, jp_serverapp):
    heard = []

    async def listener(logger, schema_id, data):
        heard.append(data)

    jp_serverapp.event_logger.add_listener(
        schema_id=jp_serverapp.contents_manager.event_schema_id, listener=listener
    )
    conversation = await drive.api.conversation()
    await drive.put(conversation, "uploads/private-name", b"1")
    await drive.ask("GET", conversation, "uploads/private-name")
    await drive.ask(
        "PATCH", conversation, "uploads/private-name", body={"path": "uploads/private-2"}
    )
    await drive.ask("DELETE", conversation, "uploads/private-2")
    assert heard == []
    response = await drive._client.fetch(
        f"{drive._base_url}api/contents", headers=drive._auth, raise_error=False
    )
    assert b"uploads" not in response.body


@pytest.mark.parametrize("sandbox_config", [{"SandboxApp": {"show_workspace": True}}])
async def test_the_workspace_is_there_where_an_administrator_shows_it(drive):
    api = drive.api
    conversation = await api.conversation()
    assert await drive.names(conversation) == ["uploads", "outputs", "workspace"]
    assert await drive.names(conversation, "workspace") == []
    assert (await drive.ask("GET", conversation, "workspace/a.txt"))[0] == 404
    _, model = await api.json("GET", "conversations", conversation)
    assert model["state"] == "absent"
    await api.bash(
        conversation,
        "mkdir -p d && printf hi > a.txt && printf x > d/.hid && ln -s /etc/passwd l && mkfifo f",
    )
    assert await drive.names(conversation, "workspace") == ["a.txt", "d"]
    assert await drive.names(conversation, "workspace/d") == [".hid"]
    status, model = await drive.ask("GET", conversation, "workspace/a.txt", "content=1&hash=1")
    assert (status, model["content"], model["hash"]) == (
        200,
        "hi",
        hashlib.sha256(b"hi").hexdigest(),
    )
    assert (await drive.put(conversation, "workspace/d/new.bin", b"\x00" * 70_000))[0] == 201
    assert "70000" in await api.bash(conversation, "stat -c %s d/new.bin")
    assert (await drive.put(conversation, "workspace/c", b"1", chunk=1))[0] == 201
    assert (await drive.put(conversation, "workspace/c", b"2", chunk=-1))[0] == 201
    assert await drive.read(conversation, "workspace/c") == b"12"
    status, model = await drive.ask("POST", conversation, "workspace", body={"type": "directory"})
    assert (status, model["type"], model["name"]) == (201, "directory", "Untitled Folder")
    status, _ = await drive.ask(
        "PATCH", conversation, "workspace/a.txt", body={"path": "workspace/d/b.txt"}
    )
    assert status == 200
    assert (await drive.ask("DELETE", conversation, "workspace/d"))[0] == 204
    assert "d/b.txt" not in await api.bash(conversation, "find .")
    assert (await drive.put(conversation, "workspace/x", b"1" * (LIMIT + 1)))[0] == 413
    assert "No such file" in await api.bash(conversation, "cat x")
