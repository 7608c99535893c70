"""Uploads over REST, and in the sandbox."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import subprocess
from urllib.parse import quote

import psutil
import pytest

from tests.attacks import attack
from tests.conftest import on_each_engine, on_gvisor_too, text_of

LIMIT = 25_000_000
U = "/mnt/user-data/uploads"


@pytest.fixture
def uploads(api, jp_serverapp, jp_base_url):
    return Uploads(api, jp_serverapp, jp_base_url)


class Uploads:
    """Requests that a client library would not send, over a plain connection."""

    def __init__(self, api, serverapp, base_url) -> None:
        self.api = api
        self.port = serverapp.port
        self.token = serverapp.identity_provider.token
        self.base = f"{base_url}sandbox/api/conversations"
        self.app = serverapp.web_app.settings["jupyter_sandbox"]

    async def put(self, conversation: str, name: str, data: bytes, **headers: str):
        return await self.send(
            "PUT", f"{conversation}/uploads/{quote(name, safe='')}", data, headers
        )

    async def send(self, method: str, path: str, data: bytes = b"", headers=None):
        """Send a request; give (status, headers, JSON or bytes)."""
        sent = {"Content-Length": str(len(data)), **(headers or {})}
        return await self.exchange(self.head(method, path, sent) + data)

    def head(self, method: str, path: str, headers: dict[str, str], auth: bool = True) -> bytes:
        lines = [f"{method} {self.base}/{path} HTTP/1.1", "Host: localhost"]
        if auth:
            lines.append(f"Authorization: token {self.token}")
        lines += [f"{name}: {value}" for name, value in headers.items()]
        return ("\r\n".join(lines) + "\r\n\r\n").encode()

    async def exchange(self, data: bytes):
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            sending = asyncio.ensure_future(self._send(writer, data))
            answer = await asyncio.wait_for(self._receive(reader), 60)
            await asyncio.wait_for(sending, 60)
            return answer
        finally:
            writer.close()

    async def _send(self, writer, data: bytes) -> None:
        for start in range(0, len(data), 1 << 20):
            writer.write(data[start : start + (1 << 20)])
            await writer.drain()

    async def _receive(self, reader):
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        status = int(head.split()[1])
        lines = [line.partition(": ") for line in head.split("\r\n")[1:] if line]
        headers = {name.lower(): value for name, _, value in lines}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        if headers.get("content-type", "").startswith("application/json") and body:
            return status, headers, json.loads(body)
        return status, headers, body

    async def names(self, conversation: str) -> list[str]:
        _, model = await self.api.json("GET", "conversations", conversation, "uploads")
        return [upload["name"] for upload in model["uploads"]]

    def stored(self) -> list[str]:
        root = os.path.join(self.app.data_dir, "vault")
        return sorted(name for _, _, names in os.walk(root) for name in names)


SIZES = [0, 1, 65535, 65536, 65537, LIMIT]


@on_each_engine
async def test_files_of_all_sizes_come_back_as_they_went_in_and_are_in_the_sandbox(uploads):
    api = uploads.api
    conversation = await api.conversation()
    files = {f"f{size}": os.urandom(size) for size in SIZES}
    for name, data in files.items():
        status, _, model = await uploads.put(conversation, name, data)
        assert (status, model["size_bytes"]) == (201, len(data))
        assert model["sha256"] == hashlib.sha256(data).hexdigest()
        back = await api.raw("GET", "conversations", conversation, "uploads", name)
        assert back.body == data
    assert await uploads.names(conversation) == sorted(files)
    shown = await api.bash(conversation, f"cd {U} && sha256sum * && stat -c '%n %a' *")
    for name, data in files.items():
        assert f"{hashlib.sha256(data).hexdigest()}  {name}\n" in shown
        assert f"{name} 444\n" in shown


@pytest.mark.parametrize("chunked", [False, True])
async def test_one_byte_too_many_is_413_and_leaves_nothing_and_no_broken_connection(
    uploads, chunked
):
    conversation = await uploads.api.conversation()
    data = b"x" * (LIMIT + 1)
    if chunked:
        size = 1 << 20
        pieces = [data[start : start + size] for start in range(0, len(data), size)]
        body = b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in pieces) + b"0\r\n\r\n"
        headers = {"Transfer-Encoding": "chunked"}
        path = f"{conversation}/uploads/a"
        answer = await uploads.exchange(uploads.head("PUT", path, headers) + body)
    else:
        answer = await uploads.put(conversation, "a", data)
    status, headers, model = answer
    assert status == 413
    assert model["message"] == "The file is larger than 25,000,000 bytes."
    assert headers["connection"] == "close"
    assert uploads.stored() == []
    assert await uploads.names(conversation) == []


async def test_a_client_that_waits_for_100_continue_sends_no_byte_in_vain(uploads):
    conversation = await uploads.api.conversation()
    headers = {"Content-Length": str(LIMIT + 1), "Expect": "100-continue"}
    path = f"{conversation}/uploads/a"
    status, _, _ = await uploads.exchange(uploads.head("PUT", path, headers))
    assert status == 413


async def test_curl_uploads_and_is_told_why_not(uploads, tmp_path):
    conversation = await uploads.api.conversation()
    url = f"http://127.0.0.1:{uploads.port}{uploads.base}/{conversation}/uploads/a"
    for size, status in ((LIMIT, "201"), (LIMIT + 1, "413"), (LIMIT * 8, "413")):
        with (tmp_path / "f").open("wb") as file:
            file.truncate(size)
        process = await asyncio.create_subprocess_exec(
            *("curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "-T", str(tmp_path / "f")),
            *("-H", f"Authorization: token {uploads.token}", url),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        output, _ = await asyncio.wait_for(process.communicate(), 60)
        assert output.decode() == status


async def test_who_may_not_is_told_before_the_body_is_stored(uploads):
    conversation = await uploads.api.conversation()
    path = f"{conversation}/uploads/a"
    body = b"x" * 1_000_000
    headers = {"Content-Length": str(len(body))}
    answer = await uploads.exchange(uploads.head("PUT", path, headers, auth=False) + body)
    assert answer[0] == 401
    unknown = "00000000-0000-4000-8000-000000000000"
    assert (await uploads.put(unknown, "a", body))[0] == 404
    assert (await uploads.put("not-an-id", "a", body))[0] == 404
    assert uploads.stored() == []


GOOD = [
    "a.txt",
    ".hidden",
    "größe 数据 🎉.csv",
    "عربي.txt",
    "👨\u200d👩\u200d👧.png",
    "CON",
    "-rf",
    "%2e%2e%2f",
    "a b+c&d=e?f#g;h",
    '"; filename=x',
    "<img src=x onerror=alert(1)>",
    "n" * 255,
    "ü" * 127,
]
BAD = {
    "..": 422,
    ".": 422,
    "a/b": 422,
    "/etc/passwd": 422,
    "a\\b": 422,
    "a\0b": 422,
    "a\nb": 422,
    "a\x1b[31m": 422,
    "a\u2028b": 422,
    "n" * 256: 422,
    "ü" * 128: 422,
}


async def test_names_are_kept_as_they_are_or_refused(uploads):
    api = uploads.api
    conversation = await api.conversation()
    await api.bash(conversation, "true")
    for name in GOOD:
        status, _, model = await uploads.put(conversation, name, name.encode())
        assert (status, model.get("name")) == (201, name)
        path = f"{conversation}/uploads/{quote(name, safe='')}"
        status, headers, body = await uploads.send("GET", path)
        assert (status, body) == (200, name.encode())
        assert headers["content-disposition"].startswith('attachment; filename="')
    for name, expected in BAD.items():
        status, _, model = await uploads.put(conversation, name, b"x")
        assert (status, model["code"]) == (expected, "invalid_request"), name
    status, _, _ = await uploads.send("PUT", f"{conversation}/uploads/a%FFb", b"x")
    assert status == 422
    assert await uploads.names(conversation) == sorted(GOOD)
    listed = await api.text(
        conversation, "python", code=f"import os; print(ascii(sorted(os.listdir({U!r}))))"
    )
    assert ascii(sorted(GOOD)) in listed


async def test_the_same_name_replaces_at_once_and_keeps_one_file(uploads):
    api = uploads.api
    conversation = await api.conversation()
    await api.bash(conversation, "true")
    assert (await uploads.put(conversation, "a", b"first"))[0] == 201
    assert "first" in await api.bash(conversation, f"cat {U}/a")
    assert (await uploads.put(conversation, "a", b"second"))[0] == 200
    assert "second" in await api.bash(conversation, f"cat {U}/a")
    await until(lambda: len(uploads.stored()) == 1)
    # Readers beside writers see one version or another, whole.
    versions = [bytes([n]) * (200_000 + n) for n in range(8)]

    async def read() -> None:
        for _ in range(20):
            body = (await api.raw("GET", "conversations", conversation, "uploads", "a")).body
            assert body == b"second" or body in versions

    writers = [uploads.put(conversation, "a", version) for version in versions]
    await asyncio.gather(read(), read(), *writers)
    await until(lambda: len(uploads.stored()) == 1)
    shown = await api.bash(conversation, f"sha256sum {U}/a")
    body = (await api.raw("GET", "conversations", conversation, "uploads", "a")).body
    assert hashlib.sha256(body).hexdigest() in shown


@on_each_engine
async def test_a_deleted_upload_is_gone_everywhere(uploads):
    api = uploads.api
    conversation = await api.conversation()
    await uploads.put(conversation, "a", b"x")
    assert "a\n" in await api.bash(conversation, f"ls {U}")
    path = ("conversations", conversation, "uploads", "a")
    assert (await api.raw("DELETE", *path)).code == 204
    assert (await api.raw("DELETE", *path)).code == 404
    assert (await api.raw("GET", *path)).code == 404
    assert uploads.stored() == []
    assert "a\n" not in await api.bash(conversation, f"ls {U}")


async def test_a_content_digest_is_checked(uploads):
    conversation = await uploads.api.conversation()
    digest = base64.b64encode(hashlib.sha256(b"data").digest()).decode()
    other = base64.b64encode(hashlib.sha256(b"other").digest()).decode()
    for value, expected in (
        (f"sha-256=:{digest}:", 201),
        (f"unixsum=:AAAA:, sha-256=:{digest}:", 200),
        ("sha-512=:AAAA:", 200),
        (f"sha-256=:{other}:", 400),
        ("sha-256=:AAAA:", 400),
        ("sha-256=nonsense", 400),
    ):
        status, _, _ = await uploads.put(conversation, "a", b"data", **{"Content-Digest": value})
        assert status == expected, value
    await until(lambda: len(uploads.stored()) == 1)


def form(*files: tuple[str, bytes], field: bytes = b"") -> tuple[bytes, dict[str, str]]:
    parts = [
        b'--B0\r\nContent-Disposition: form-data; name="file"; filename="%s"\r\n\r\n%s\r\n'
        % (name.encode(), data)
        for name, data in files
    ]
    if field:
        parts.append(b'--B0\r\nContent-Disposition: form-data; name="x"\r\n\r\n%s\r\n' % field)
    return b"".join(parts) + b"--B0--\r\n", {"Content-Type": "multipart/form-data; boundary=B0"}


async def test_a_form_brings_several_files_or_none(uploads):
    api = uploads.api
    conversation = await api.conversation()
    path = f"{conversation}/uploads"
    big = os.urandom(3_000_000) + b"\r\n--B"
    body, headers = form(("a.txt", b"one"), ("größe.bin", big), ("empty", b""), field=b"ignored")
    status, _, model = await uploads.send("POST", path, body, headers)
    assert status == 201
    assert [upload["name"] for upload in model["uploads"]] == ["a.txt", "größe.bin", "empty"]
    assert (await api.raw("GET", "conversations", conversation, "uploads", "größe.bin")).body == big
    for files, expected in (
        ([("b", b"x"), ("c", b"x" * (LIMIT + 1))], 413),
        ([("b", b"x"), ("../c", b"x")], 422),
        ([("b", b"x"), ("b", b"y")], 422),
        ([(f"b{n}", b"x") for n in range(21)], 413),
        ([], 422),
    ):
        body, headers = form(*files)
        assert (await uploads.send("POST", path, body, headers))[0] == expected
    body, headers = form(("b", b"x"))
    assert (await uploads.send("POST", path, body[:-8], headers))[0] == 400
    assert (await uploads.send("POST", path, b"garbage" * 100, headers))[0] == 400
    assert (await uploads.send("POST", path, body, {"Content-Type": "text/plain"}))[0] == 415
    digest = {"Content-Digest": "sha-256=:" + base64.b64encode(bytes(32)).decode() + ":"}
    assert (await uploads.send("POST", path, body, {**headers, **digest}))[0] == 400
    assert len(uploads.stored()) == 3
    assert await uploads.names(conversation) == ["a.txt", "empty", "größe.bin"]


async def test_a_client_that_goes_away_in_the_middle_leaves_nothing(uploads):
    conversation = await uploads.api.conversation()
    for method, path in (("PUT", "uploads/a"), ("POST", "uploads")):
        body, headers = form(("a", b"x" * 2_000_000))
        head = uploads.head(
            method, f"{conversation}/{path}", {**headers, "Content-Length": "9000000"}
        )
        _, writer = await asyncio.open_connection("127.0.0.1", uploads.port)
        writer.write(head + body[:1_500_000])
        await writer.drain()
        await until(lambda: uploads.stored() != [])
        writer.close()
        await until(lambda: uploads.stored() == [])


async def until(condition) -> None:
    for _ in range(500):
        if condition():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("it did not come true")


@on_each_engine
async def test_uploads_and_shared_files_are_in_place_again_in_a_new_sandbox(uploads):
    api = uploads.api
    conversation = await api.conversation()
    await uploads.put(conversation, "before.bin", b"before" * 100_000)
    out = "/mnt/user-data/outputs"
    await api.bash(
        conversation,
        f"mkdir -p {out}/deep; echo one > {out}/deep/r.txt; echo lost > {out}/lost; echo w > w",
    )
    await api.call(conversation, "share_files", paths=[f"{out}/deep/r.txt"])
    await api.bash(conversation, f"echo two > {out}/deep/r.txt")
    await api.call(conversation, "share_files", paths=[f"{out}/deep/r.txt"])
    services = await uploads.app.ready()
    record = await services.database.conversation(conversation)
    plaintext = services.conversations._around.sandboxes.settings.plaintext
    directory = plaintext.uploads(record.sandbox_id)
    assert os.listdir(directory) == ["before.bin"]
    await services.engine.remove(record.sandbox_id)
    await uploads.put(conversation, "after.bin", b"after")
    text = await api.bash(
        conversation, f"sha256sum {U}/before.bin; cat {U}/after.bin {out}/deep/r.txt; ls {out} ."
    )
    assert "The previous sandbox is gone" in text
    assert hashlib.sha256(b"before" * 100_000).hexdigest() in text
    assert "after" in text
    assert "two" in text
    assert "lost" not in text.split("variables")[1]
    assert not directory.exists()
    await api.raw("DELETE", "conversations", conversation)
    assert plaintext.sandboxes() == []
    assert uploads.stored() == []


@attack("T29", on="")
async def test_a_damaged_upload_keeps_no_sandbox_from_starting_and_is_told(uploads):
    api = uploads.api
    conversation = await api.conversation()
    await uploads.put(conversation, "good", b"good")
    await uploads.put(conversation, "bad", b"bad")
    services = await uploads.app.ready()
    rows = {row.name: row for row in await services.uploads.list(conversation)}
    root = f"{uploads.app.data_dir}/vault/{conversation}"
    with open(f"{root}/{rows['bad'].upload_id}", "r+b") as file:
        file.seek(60)
        file.write(b"\0\0\0")
    text = await api.bash(conversation, f"ls {U}")
    assert "[Not in this sandbox: the upload bad (the stored file is damaged" in text
    assert "\ngood\n" in text
    response = await api.raw("GET", "conversations", conversation, "uploads", "bad")
    assert response.code == 502
    assert "damaged" in json.loads(response.body)["message"]
    assert "Content-Disposition" not in response.headers


@attack("T28")
@on_gvisor_too
async def test_plaintext_lies_in_memory_only_and_only_while_the_sandbox_lives(uploads, server_dir):
    api = uploads.api
    conversation = await api.conversation()
    marker = b"a-marker-that-must-not-be-on-a-disk"
    await uploads.put(conversation, "m.txt", marker * 1000)
    assert "a-marker" in await api.bash(conversation, f"head -c 20 {U}/m.txt")
    services = await uploads.app.ready()
    record = await services.database.conversation(conversation)
    plaintext = services.conversations._around.sandboxes.settings.plaintext
    where = plaintext.uploads(record.sandbox_id)
    kind = subprocess.run(
        ["stat", "-f", "-c", "%T", str(where)], capture_output=True, text=True, check=True
    )
    assert kind.stdout.strip() in ("tmpfs", "ramfs")
    found = subprocess.run(
        ["grep", "-rlF", marker.decode(), str(server_dir)], capture_output=True, text=True
    )
    assert found.stdout == ""
    await services.conversations.live(conversation).delete()
    assert not where.exists()


async def test_fifty_uploads_at_once_leave_memory_flat(uploads):
    conversation = await uploads.api.conversation()
    data = os.urandom(LIMIT)
    await uploads.put(conversation, "warm", data)
    process = psutil.Process()
    before = process.memory_info().rss
    peak = before
    done = asyncio.Event()

    async def watch() -> None:
        nonlocal peak
        while not done.is_set():
            peak = max(peak, process.memory_info().rss)
            await asyncio.sleep(0.02)

    watching = asyncio.create_task(watch())
    # The clients are another process: their buffers are not the server's.
    clients = await asyncio.create_subprocess_exec(
        *(
            "bash",
            "-c",
            'head -c 25000000 /dev/urandom > "$3"; for n in $(seq 50); do '
            'curl -sS -o /dev/null -w "%{http_code}\\n" -H "Authorization: token $1" '
            '-T "$3" "$2/f$n" & done; wait',
            "x",
            uploads.token,
            f"http://127.0.0.1:{uploads.port}{uploads.base}/{conversation}/uploads",
            f"/dev/shm/upload-{os.getpid()}",
        ),
        stdout=subprocess.PIPE,
    )
    output, _ = await asyncio.wait_for(clients.communicate(), 150)
    os.unlink(f"/dev/shm/upload-{os.getpid()}")
    done.set()
    await watching
    assert output.decode().split() == ["201"] * 50
    print(f"50 uploads of 25 MB at once: {(peak - before) / 1e6:.1f} MB more")
    assert peak - before < 128_000_000


@pytest.mark.own_server
async def test_the_capacity_stops_every_tool_until_there_is_room_again(uploads):
    api = uploads.api
    conversation = await api.conversation()
    services = await uploads.app.ready()
    await api.bash(conversation, "true")
    services.calls.capacity._capacity_bytes = 1000
    await uploads.put(conversation, "a", b"x" * 1001)
    for tool, arguments in (
        ("bash", {"command": "true"}),
        ("python", {"code": "1"}),
        ("view", {"path": "/workspace"}),
        ("create_file", {"path": "/workspace/a", "file_text": ""}),
        ("str_replace", {"path": "/workspace/a", "old_str": "a"}),
        ("share_files", {"paths": ["/mnt/user-data/outputs/a"]}),
    ):
        result = await api.call(conversation, tool, **arguments)
        assert result["is_error"]
        assert text_of(result).startswith(
            "This conversation's attached files exceed the sandbox capacity (1,000 bytes combined)."
            " Archive or remove some files and try again."
        )
    _, model = await api.json("GET", "conversations", conversation)
    assert model["usage"]["upload_bytes"] == 1001
    await api.raw("DELETE", "conversations", conversation, "uploads", "a")
    assert not (await api.call(conversation, "bash", command="true"))["is_error"]


@attack("T30", on="")
async def test_an_unsafe_master_key_stops_everything_until_it_is_put_right(uploads, server_dir):
    api = uploads.api
    conversation = await api.conversation()
    await uploads.put(conversation, "a", b"x")
    await uploads.app.stop_extension()
    (server_dir / "data" / "master.key").chmod(0o644)
    status, body = await api.json("GET", "conversations")
    assert (status, body["code"]) == (503, "unavailable")
    assert "can be read by others: chmod 600" in body["message"]
    (server_dir / "data" / "master.key").chmod(0o600)
    assert (await api.raw("GET", "conversations", conversation, "uploads", "a")).body == b"x"


@attack("T39")
@on_gvisor_too
async def test_a_new_server_removes_the_plaintext_of_dead_sandboxes_only(uploads):
    api = uploads.api
    conversation = await api.conversation()
    await uploads.put(conversation, "a", b"alive")
    await api.bash(conversation, "true")
    services = await uploads.app.ready()
    plaintext = services.conversations._around.sandboxes.settings.plaintext
    plaintext.make("dead" * 6)
    (plaintext.uploads("dead" * 6) / "b").write_bytes(b"left")
    record = await services.database.conversation(conversation)
    await uploads.app.stop_extension()
    plaintext.drop(record.sandbox_id, "a")  # as if its server had been killed before it placed it
    services = await uploads.app.ready()
    assert await services.housekeeping.run_now("reap")
    assert plaintext.sandboxes() == [record.sandbox_id[:12]]
    assert not plaintext.uploads("dead" * 6).exists()
    assert "alive" in await api.bash(conversation, f"cat {U}/a")
