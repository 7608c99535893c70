"""The host's end of the file service, through a real link to a real file service."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import shutil
import socket
import statistics
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sandbox_guest import protocol
from sandbox_guest.files import serve_files
from sandbox_guest.streams import Stream, StreamClosed

from jupyter_sandbox.errors import Unavailable
from jupyter_sandbox.sandbox import files as files_module
from jupyter_sandbox.sandbox.file_errors import BadRange, ManyMatches, NoMatch
from jupyter_sandbox.sandbox.files import GuestFiles
from jupyter_sandbox.sandbox.link import GuestError, GuestLink

MIB = 1024 * 1024


class Dialler:
    """A guest that has nothing but a file service: dials, and dials again."""

    def __init__(self, path: Path, serve: Callable[[Stream], None]) -> None:
        self._path = path
        self._serve = serve
        self._sockets: list[socket.socket] = []
        self._ended = False
        self._threads = [threading.Thread(target=self._run) for _ in range(protocol.IDLE_STREAMS)]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        self._ended = True
        for sock in list(self._sockets):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()

    def _run(self) -> None:
        while not self._ended:
            with socket.socket(socket.AF_UNIX) as sock:
                self._sockets.append(sock)
                stream = Stream(sock)
                with contextlib.suppress(OSError):
                    sock.connect(str(self._path))
                    self._talk(stream)
                self._sockets.remove(sock)

    def _talk(self, stream: Stream) -> None:
        stream.send({"hello": protocol.NAME, "protocol": protocol.VERSION, "boot_id": "b"})
        assert stream.receive().body == {"open": "files"}
        stream.send({"opened": "files"})
        self._serve(stream)


@contextlib.asynccontextmanager
async def guest(serve: Callable[[Stream], None] = serve_files) -> AsyncIterator[GuestFiles]:
    directory = Path(tempfile.mkdtemp(prefix="fc", dir="/tmp"))
    link = GuestLink(directory, "host")
    await link.start()
    dialler = Dialler(directory / "host.sock", serve)
    try:
        yield GuestFiles(link)
    finally:
        await link.close()
        await asyncio.to_thread(dialler.close)
        shutil.rmtree(directory)


@contextlib.contextmanager
def refused(code: str) -> Iterator[pytest.ExceptionInfo[GuestError]]:
    with pytest.raises(GuestError) as caught:
        yield caught
    assert caught.value.code == code


class Bytes:
    def __init__(self) -> None:
        self.data = b""

    async def __call__(self, piece: bytes) -> None:
        self.data += piece


async def test_each_call_gives_typed_data(tmp_path: Path) -> None:
    async with guest() as files:
        path = str(tmp_path / "sub/a.txt")
        written = await files.write(path, b"one\ntwo\n", mode=0o640)
        assert (written.path, written.size_bytes, written.created) == (path, 8, True)
        os.utime(path, (1_700_000_000, 1_700_000_000))

        found = await files.stat(path)
        assert (found.path, found.kind, found.size_bytes, found.mode) == (path, "file", 8, 0o640)
        assert found.modified_at == datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)
        os.symlink("a.txt", tmp_path / "sub/l")
        itself = await files.stat(str(tmp_path / "sub/l"), follow=False)
        assert (itself.kind, itself.link_target) == ("link", "a.txt")

        listing = await files.list(str(tmp_path), depth=2, max_entries=2)
        assert [(e.path, e.kind, e.size) for e in listing.entries] == [
            ("sub", "directory", 2),
            ("sub/a.txt", "file", 8),
        ]
        assert (listing.more, listing.hidden, listing.skipped, listing.complete) == (1, 0, 0, True)

        part = await files.read(path, offset=4, max_bytes=2)
        assert (part.data, part.size_bytes) == (b"tw", 8)

        lines = await files.view(path, 2)
        assert (lines.text, lines.first, lines.last, lines.total_lines) == ("two\n", 2, 2, 2)

        edit = await files.replace(path, "two", "2\n3")
        assert (edit.first_line, edit.last_line, edit.total_lines) == (2, 3, 3)
        assert edit.snippet_text == "one\n2\n3\n"

        sink = Bytes()
        exported = await files.export(path, str(tmp_path), 100, sink)
        assert sink.data == b"one\n2\n3\n"
        assert exported.sha256 == hashlib.sha256(sink.data).hexdigest()
        assert (exported.size_bytes, exported.mode) == (8, 0o640)

        usage = await files.usage([str(tmp_path)], top=1)
        assert (usage.files, usage.complete, usage.largest[0][0]) == (2, True, path)

        await files.mkdir(str(tmp_path / "d"))
        await files.rename(path, str(tmp_path / "d/b.txt"))
        with refused("not_empty"):
            await files.remove(str(tmp_path / "d"))
        await files.remove(str(tmp_path / "d"), recursive=True)
        with refused("not_found"):
            await files.stat(path)


@pytest.mark.parametrize("size", [0, 1, 262_144, 262_145, 3_000_000])
@pytest.mark.parametrize("piece", [None, 1000, 1_000_000])
async def test_contents_of_any_size_arrive_whole(
    tmp_path: Path, size: int, piece: int | None
) -> None:
    content = os.urandom(size)

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, size, piece or 1):
            yield content[start : start + (piece or 1)]

    async with guest() as files:
        path = str(tmp_path / "f")
        written = await files.write(path, content if piece is None else pieces())
        assert written.size_bytes == size
        assert Path(path).read_bytes() == content
        sink = Bytes()
        await files.export(path, str(tmp_path), size, sink)
        assert sink.data == content


async def test_a_source_that_fails_writes_nothing_and_spoils_nothing(tmp_path: Path) -> None:
    async def pieces(count: int) -> AsyncIterator[bytes]:
        for _ in range(count):
            yield b"x" * 300_000
        raise RuntimeError("the upload ended")

    async with guest() as files:
        for count in (0, 1, 5):
            with pytest.raises(RuntimeError, match="the upload ended"):
                await files.write(str(tmp_path / "f"), pieces(count))
            assert os.listdir(tmp_path) == []
        await files.write(str(tmp_path / "f"), b"x")
        with refused("exists"):
            await files.write(str(tmp_path / "f"), b"y" * 3_000_000)
        assert (await files.stat(str(tmp_path / "f"))).size_bytes == 1


async def test_a_cancelled_write_leaves_nothing(tmp_path: Path) -> None:
    started = asyncio.Event()

    async def pieces() -> AsyncIterator[bytes]:
        yield b"x" * 600_000
        started.set()
        await asyncio.sleep(60)

    async with guest() as files:
        task = asyncio.create_task(files.write(str(tmp_path / "f"), pieces()))
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with asyncio.timeout(10):
            while os.listdir(tmp_path):
                await asyncio.sleep(0.01)
        assert (await files.write(str(tmp_path / "f"), b"x")).created


async def test_refusals_carry_checked_facts(tmp_path: Path) -> None:
    path = str(tmp_path / "f")
    async with guest() as files:
        await files.write(path, b"if x:\n\treturn 1\na\na\n")
        with pytest.raises(NoMatch) as none:
            await files.replace(path, "if x:\n    return 1", "")
        assert none.value.nearest is not None
        assert (none.value.nearest.first_line, none.value.nearest.last_line) == (1, 2)
        assert none.value.nearest.differences == ("tabs",)
        with pytest.raises(NoMatch) as none:
            await files.replace(path, "qqqqqq", "")
        assert none.value.nearest is None
        with pytest.raises(ManyMatches) as many:
            await files.replace(path, "a\n", "")
        assert (many.value.count, many.value.lines) == (2, (3, 4))
        with pytest.raises(BadRange) as bad:
            await files.view(path, 9)
        assert bad.value.total_lines == 4
        with refused("bad_request"):
            await files.replace(path, "\ud800", "")
        with refused("bad_request"):
            await files.stat("/" + "x" * 5 * MIB)
        with refused("bad_request"):
            await files.write("/" + "x" * 5 * MIB, b"")
        with refused("outside"):
            await files.export("/etc/passwd", str(tmp_path), 10**6, Bytes())
        with refused("too_large"):
            await files.export(path, str(tmp_path), 3, Bytes())


async def test_text_is_decoded_as_the_file_is_encoded(tmp_path: Path) -> None:
    async with guest() as files:
        for data, text in [
            (b"\xef\xbb\xbfa\xc3\xa9\n", "aé\n"),
            (b"\xff\xfe" + "é😀\n".encode("utf-16-le"), "é😀\n"),
            (b"\xfe\xff" + "é😀\n".encode("utf-16-be"), "é😀\n"),
            (b"caf\xe9\n", "café\n"),
            ("€😀\n".encode(), "€😀\n"),
        ]:
            (tmp_path / "f").write_bytes(data)
            assert (await files.view(str(tmp_path / "f"))).text == text
        (tmp_path / "f").write_bytes(b"\x89PNG\r\n\x1a\n\0\0")
        lines = await files.view(str(tmp_path / "f"))
        assert (lines.is_binary, lines.text, lines.head[:4]) == (True, "", b"\x89PNG")


async def test_many_calls_at_once(tmp_path: Path) -> None:
    async with guest() as files:

        async def one(number: int) -> None:
            path = str(tmp_path / f"{number}")
            await files.write(path, b"%d" % number * 100_000)
            await files.replace(path, str(number) * 100_000, "done")
            assert (await files.view(path)).text == "done"

        # more than the guest keeps idle, but no more than it dials at once
        for start in range(0, 20, 4):
            await asyncio.gather(*(one(n) for n in range(start, start + 4)))
    assert len(os.listdir(tmp_path)) == 20


# --- a guest that lies ----------------------------------------------------------------------------


def answering(*frames: tuple[dict[str, Any], bytes]) -> Callable[[Stream], None]:
    def serve(stream: Stream) -> None:
        with contextlib.suppress(StreamClosed):
            while True:
                while stream.receive().body.get("more"):
                    pass
                for body, payload in frames:
                    stream.send(body, payload)

    return serve


STAT = {"path": "/x", "kind": "file", "size": 1, "mode": 420, "modified_at": 1.0}


@pytest.mark.parametrize(
    "change",
    [
        {"path": None},
        {"path": "x" * 20_000},
        {"kind": "whatever"},
        {"kind": ["file"]},
        {"size": -1},
        {"size": 2**70},
        {"size": True},
        {"size": 1.5},
        {"mode": 0o10000},
        {"modified_at": float("nan")},
        {"modified_at": float("inf")},
        {"modified_at": 1e300},
        {"modified_at": "today"},
        {"link_target": 5},
    ],
    ids=str,
)
async def test_a_lie_about_a_file_is_unavailable(change: dict[str, Any]) -> None:
    async with guest(answering(({"ok": {**STAT, **change}}, b""))) as files:
        with pytest.raises(Unavailable, match="malformed"):
            await files.stat("/x")


@pytest.mark.parametrize("body", [{}, {"ok": None}, {"ok": []}, {"ok": {}}, {"chunk": True}])
async def test_an_answer_of_a_wrong_shape_is_unavailable_to_every_call(
    body: dict[str, Any],
) -> None:
    async with guest(answering((body, b""))) as files:
        calls = [
            lambda: files.stat("/x"),
            lambda: files.list("/x"),
            lambda: files.read("/x"),
            lambda: files.view("/x"),
            lambda: files.write("/x", b""),
            lambda: files.replace("/x", "a", "b"),
            lambda: files.export("/x/y", "/x", 10, Bytes()),
            lambda: files.usage(["/x"]),
        ]
        for call in calls:
            with pytest.raises(Unavailable):
                await call()


async def test_more_than_was_asked_for_is_unavailable() -> None:
    entry = {"path": "x", "kind": "file", "size": 1, "modified_at": 1}
    omitted = {"hidden": 0, "skipped": 0, "more": 0}
    answer = {"entries": [entry] * 3, "omitted": omitted, "complete": True}
    async with guest(answering(({"ok": answer}, b""))) as files:
        assert len((await files.list("/x", max_entries=3)).entries) == 3
        with pytest.raises(Unavailable):
            await files.list("/x", max_entries=2)
    async with guest(answering(({"ok": {"size": 1, "kind": "file"}}, b"x" * 11))) as files:
        with pytest.raises(Unavailable):
            await files.read("/x", max_bytes=10)


async def test_a_false_hash_size_or_endless_export_is_unavailable() -> None:
    good = {
        "size": 3,
        "sha256": hashlib.sha256(b"abc").hexdigest(),
        "modified_at": 1,
        "mode": 420,
    }
    chunk = {"chunk": True, "more": True}
    sink = Bytes()
    async with guest(answering((chunk, b"ab"), ({"ok": good}, b"c"))) as files:
        assert (await files.export("/x/y", "/x", 3, sink)).size_bytes == 3
        assert sink.data == b"abc"
    for lie in (
        [({"ok": {**good, "size": 4}}, b"abc")],
        [({"ok": {**good, "sha256": "0" * 64}}, b"abc")],
        [({"ok": good}, b"abd")],
        [(chunk, b"x")] * 20,
        [(chunk, b"")],
        [({"more": True}, b"x")],
    ):
        sink = Bytes()
        async with guest(answering(*lie)) as files:
            with pytest.raises(Unavailable):
                await files.export("/x/y", "/x", 10, sink)
        assert len(sink.data) <= 10


async def test_malformed_refusals_are_refusals_without_facts() -> None:
    near = {"first_line": 0, "last_line": "x", "text": [], "differences": {}}
    for error, kind in [
        ({"code": "no_match", "message": "m", "nearest": near}, NoMatch),
        ({"code": "no_match", "message": "m", "nearest": 5}, NoMatch),
        ({"code": "many_matches", "message": "m", "count": "a", "lines": [1] * 99}, ManyMatches),
        ({"code": "many_matches", "message": "m", "count": 3, "lines": ["a", 2]}, ManyMatches),
        ({"code": "bad_range", "message": "m", "total_lines": -1}, BadRange),
        ({"code": ["x"], "message": {}}, GuestError),
        (17, GuestError),
    ]:
        async with guest(answering(({"error": error}, b""))) as files:
            with pytest.raises(kind) as caught:
                await files.replace("/x", "a", "b")
            assert getattr(caught.value, "nearest", None) is None
            assert getattr(caught.value, "total_lines", None) is None
            assert getattr(caught.value, "count", 2) >= 2
            assert all(isinstance(n, int) for n in getattr(caught.value, "lines", ()))


async def test_a_guest_that_does_not_answer_is_unavailable_in_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(files_module, "STEP_SECONDS", 0.1)
    monkeypatch.setattr(files_module, "SLOW_SECONDS", 0.2)
    async with guest(answering()) as files:
        for call in (
            lambda: files.list("/x"),
            lambda: files.write("/x", b"x"),
            lambda: files.export("/x/y", "/x", 10, Bytes()),
        ):
            with pytest.raises(Unavailable) as caught:
                await call()
            assert caught.value.status == 504


async def test_an_error_of_the_sink_passes_and_the_next_call_works(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x" * 5 * MIB)

    async def sink(piece: bytes) -> None:
        raise OSError("disk full on the host")

    async with guest() as files:
        with pytest.raises(OSError, match="disk full on the host"):
            await files.export(str(tmp_path / "f"), str(tmp_path), 10 * MIB, sink)
        assert (await files.stat(str(tmp_path / "f"))).size_bytes == 5 * MIB


@pytest.mark.alone
async def test_five_kilobytes_take_no_more_than_milliseconds(tmp_path: Path) -> None:
    content = b"".join(b"line %04d of a file of five kilobytes\n" % n for n in range(130))
    path = str(tmp_path / "f")
    async with guest() as files:
        content = content.replace(b"0050", b"abcd")
        await files.write(path, content)
        timed: dict[str, Callable[[int], Any]] = {
            "stat": lambda n: files.stat(path),
            "view": lambda n: files.view(path, max_bytes=16_000),
            "write": lambda n: files.write(path, content, overwrite=True),
            "replace": lambda n: files.replace(
                path, *(("0050", "abcd") if n % 2 else ("abcd", "0050"))
            ),
        }
        for name, call in timed.items():
            took = []
            for number in range(200):
                started = time.perf_counter()
                await call(number)
                took.append(time.perf_counter() - started)
            median = statistics.median(took)
            print(f"{name}: {median * 1e6:.0f} µs")
            assert median < 0.02
