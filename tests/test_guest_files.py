"""The guest's end of the file service, asked directly over a socket pair."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import importlib
import os
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sandbox_guest
from hypothesis import given, settings
from hypothesis import strategies as st
from sandbox_guest.files import OPS, listing, locks, paths, serve_files
from sandbox_guest.files.atomic import Staged
from sandbox_guest.frames import Frame
from sandbox_guest.streams import Stream, StreamClosed

MIB = 1024 * 1024


class Refused(Exception):
    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(f"{error['code']}: {error['message']}")
        self.code = error["code"]
        self.error = error


class Client:
    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(30)
        self.stream = Stream(sock)

    def ask(self, op: str, payload: bytes = b"", **arguments: Any) -> Frame:
        self.stream.send({"op": op, **arguments}, payload)
        return self.answer()

    def answer(self) -> Frame:
        frame = self.stream.receive()
        if "error" in frame.body:
            raise Refused(frame.body["error"])
        return frame

    def ok(self, op: str, payload: bytes = b"", **arguments: Any) -> dict[str, Any]:
        return self.ask(op, payload, **arguments).body["ok"]

    def refusal(self, op: str, payload: bytes = b"", **arguments: Any) -> dict[str, Any]:
        with pytest.raises(Refused) as caught:
            self.ask(op, payload, **arguments)
        return caught.value.error

    def code(self, op: str, payload: bytes = b"", **arguments: Any) -> str:
        return self.refusal(op, payload, **arguments)["code"]

    def replace(self, path: Path, old: str, new: str) -> Frame:
        data = old.encode()
        return self.ask("replace", data + new.encode(), path=str(path), old_bytes=len(data))

    def export(self, path: Any, root: Any, max_bytes: int = 10**9) -> tuple[bytes, dict[str, Any]]:
        self.stream.send(
            {"op": "export", "path": str(path), "root": str(root), "max_bytes": max_bytes}
        )
        data = b""
        while True:
            frame = self.answer()
            data += frame.payload
            if "ok" in frame.body:
                return data, frame.body["ok"]

    def export_code(self, path: Any, root: Any, max_bytes: int = 10**9) -> str:
        with pytest.raises(Refused) as caught:
            self.export(path, root, max_bytes)
        return caught.value.code


@contextlib.contextmanager
def serving() -> Iterator[Client]:
    try:
        with serving_quietly() as client:
            yield client
    finally:
        assert len(locks.PATH_LOCKS) == 0


@contextlib.contextmanager
def serving_quietly() -> Iterator[Client]:
    """Like ``serving``, for several at once (the lock table is not looked at)."""
    ours, theirs = socket.socketpair()
    thread = threading.Thread(target=serve_files, args=(Stream(theirs),))
    thread.start()
    try:
        yield Client(ours)
    finally:
        ours.close()
        thread.join(30)
        theirs.close()
        assert not thread.is_alive()


@pytest.fixture
def client() -> Iterator[Client]:
    with serving() as client:
        yield client


@contextlib.contextmanager
def serving_process(*prefix: str, then: str = "") -> Iterator[tuple[Client, int]]:
    """Serve from a process of its own; give its process id."""
    ours, theirs = socket.socketpair()
    code = (
        "import socket, sys; from sandbox_guest.files import serve_files; "
        "from sandbox_guest.streams import Stream; "
        "serve_files(Stream(socket.socket(fileno=int(sys.argv[1]))))"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(sandbox_guest.__file__).parents[1])}
    command = [*prefix, sys.executable, "-c", code, str(theirs.fileno())]
    process = subprocess.Popen(command, pass_fds=[theirs.fileno()], env=env)
    theirs.close()
    try:
        yield Client(ours), process.pid
    finally:
        ours.close()
        assert process.wait(30) == 0


def temporaries(directory: Path) -> list[str]:
    return [p.name for p in directory.rglob("*.tmp")]


# --- requests -------------------------------------------------------------------------------------


@pytest.mark.parametrize("op", sorted(OPS))
def test_arguments_of_a_wrong_type_are_a_bad_request(client: Client, op: str) -> None:
    assert client.code(op, path=17, paths=17, root=17, old_bytes="x", to=3) == "bad_request"
    assert client.ok("stat", path="/")["kind"] == "directory"


def test_an_unknown_op_is_refused_and_the_next_request_served(client: Client) -> None:
    assert client.code("chmod", path="/") == "unknown_op"
    assert client.code("", path="/") == "unknown_op"
    client.stream.send({})
    with pytest.raises(Refused, match="unknown_op"):
        client.answer()
    assert client.ok("stat", path="/")["path"] == "/"


@pytest.mark.parametrize("path", ["", "a\0b", "\ud800"])
def test_a_path_that_cannot_be_one_is_a_bad_request(client: Client, path: str) -> None:
    assert client.code("stat", path=path) == "bad_request"


def test_numbers_out_of_bounds_are_a_bad_request(client: Client, tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_bytes(b"x")
    where = {"path": str(file)}
    assert client.code("read", **where, offset=-1) == "bad_request"
    assert client.code("read", **where, max_bytes=4 * MIB + 1) == "bad_request"
    assert client.code("read", **where, max_bytes=True) == "bad_request"
    assert client.code("view", **where, max_bytes=MIB + 1) == "bad_request"
    assert client.code("list", path=str(tmp_path), depth=4) == "bad_request"
    assert client.code("list", path=str(tmp_path), max_entries=5001) == "bad_request"
    assert client.code("usage", paths=["/"], max_entries=10**6 + 1) == "bad_request"
    assert client.code("usage", paths=[str(tmp_path)] * 101) == "bad_request"


def test_a_relative_path_is_taken_from_the_workspace(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paths, "WORKSPACE", os.fsencode(tmp_path))
    client.ok("write", b"here", path="sub/a.txt")
    assert (tmp_path / "sub/a.txt").read_bytes() == b"here"


def test_a_bug_in_an_op_is_an_answer_and_ends_nothing(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(request: object) -> None:
        raise ZeroDivisionError("secret")

    monkeypatch.setitem(OPS, "stat", broken)
    error = client.refusal("stat", path="/")
    assert error["code"] == "failed"
    assert "ZeroDivisionError" in error["message"]
    assert "secret" not in error["message"]
    assert client.code("read", path="/") == "is_a_directory"


def test_a_refused_chunked_request_is_read_to_its_end(client: Client, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"old")
    send = client.stream.send
    send({"op": "write", "path": str(tmp_path / "f"), "more": True}, b"x" * 1000)
    for _ in range(50):
        send({"chunk": True, "more": True}, b"y" * 100_000)
    send({"chunk": True}, b"z")
    with pytest.raises(Refused, match="exists"):
        client.answer()
    assert client.ok("stat", path=str(tmp_path / "f"))["size"] == 3


def test_a_request_amid_chunks_ends_the_stream_after_an_answer(
    client: Client, tmp_path: Path
) -> None:
    client.stream.send({"op": "write", "path": str(tmp_path / "f"), "more": True}, b"x")
    assert client.code("stat", path="/") == "bad_request"
    assert os.listdir(tmp_path) == []


# --- stat and read --------------------------------------------------------------------------------


def test_stat_says_what_a_path_is(client: Client, tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_bytes(b"12345")
    file.chmod(0o640)
    os.utime(file, (1_700_000_000, 1_700_000_000.5))
    (tmp_path / "link").symlink_to("f")
    found = client.ok("stat", path=str(tmp_path / "link"))
    assert found == {
        "path": str(file),
        "kind": "file",
        "size": 5,
        "mode": 0o640,
        "modified_at": 1_700_000_000.5,
    }
    itself = client.ok("stat", path=str(tmp_path / "link"), follow=False)
    assert (itself["kind"], itself["link_target"]) == ("link", "f")
    assert itself["path"] == str(tmp_path / "link")


def special_files(directory: Path) -> Iterator[tuple[str, str]]:
    os.mkfifo(directory / "fifo")
    yield str(directory / "fifo"), "fifo"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(directory / "s"))
    yield str(directory / "s"), "socket"
    yield "/dev/zero", "device"


def test_fifos_sockets_and_devices_are_refused_at_once(client: Client, short_dir: Path) -> None:
    started = time.monotonic()
    for path, kind in special_files(short_dir):
        assert client.ok("stat", path=path)["kind"] == kind
        for op, more in [
            ("read", {}),
            ("view", {}),
            ("write", {"overwrite": True}),
            ("replace", {"old_bytes": 1}),
        ]:
            error = client.refusal(
                op, b"x" if op in ("write", "replace") else b"", path=path, **more
            )
            assert (error["code"], error["kind"]) == ("not_a_file", kind), op
        assert client.code("list", path=path) == "not_a_directory"
        parent = os.path.dirname(path)
        assert client.export_code(path, parent) == "not_a_file"
    assert time.monotonic() - started < 5


def test_a_writer_that_waits_at_a_fifo_is_not_woken(client: Client, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    assert client.code("view", path=str(tmp_path / "fifo")) == "not_a_file"
    with pytest.raises(OSError, match="No such device"):  # nobody reads
        os.open(tmp_path / "fifo", os.O_WRONLY | os.O_NONBLOCK)


@pytest.mark.parametrize("op", ["stat", "list", "read", "view", "write", "replace"])
def test_a_circle_of_links_is_a_link_loop(client: Client, tmp_path: Path, op: str) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    assert client.code(op, b"x", path=str(tmp_path / "a"), old_bytes=1) == "link_loop"


@pytest.mark.parametrize("op", ["stat", "list", "read", "view", "replace", "remove"])
def test_what_is_missing_is_not_found(client: Client, tmp_path: Path, op: str) -> None:
    assert client.code(op, b"x", path=str(tmp_path / "no"), old_bytes=1) == "not_found"
    (tmp_path / "f").write_bytes(b"")
    assert client.code(op, b"x", path=str(tmp_path / "f/no"), old_bytes=1) == "not_a_directory"


def test_read_gives_a_range(client: Client, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"0123456789")
    path = str(tmp_path / "f")
    frame = client.ask("read", path=path, offset=3, max_bytes=4)
    assert (frame.payload, frame.body["ok"]) == (b"3456", {"size": 10, "kind": "file"})
    assert client.ask("read", path=path, offset=8).payload == b"89"
    assert client.ask("read", path=path, offset=99).payload == b""
    assert client.ask("read", path=path, offset=2**62).payload == b""


# --- names ----------------------------------------------------------------------------------------


def test_a_name_that_is_not_utf8_is_shown_escaped_and_found_again(
    client: Client, tmp_path: Path
) -> None:
    raw = os.fsencode(tmp_path) + b"/caf\xe9.txt"
    with open(raw, "wb") as file:
        file.write(b"x\n")
    (tmp_path / "b").write_bytes(b"")
    (tmp_path / "z").write_bytes(b"")
    entries = client.ok("list", path=str(tmp_path))["entries"]
    assert [e["path"] for e in entries] == ["b", "caf\\xe9.txt", "z"]
    path = str(tmp_path / entries[1]["path"])
    assert client.ask("view", path=path).payload == b"x\n"
    assert client.ok("stat", path=os.fsdecode(raw))["path"] == path
    client.ok("write", b"new", path=path, overwrite=True)
    assert Path(os.fsdecode(raw)).read_bytes() == b"new"


def test_a_file_that_is_really_named_so_comes_first(client: Client, tmp_path: Path) -> None:
    (tmp_path / "caf\\xe9").write_bytes(b"literal")
    with open(os.fsencode(tmp_path) + b"/caf\xe9", "wb") as file:
        file.write(b"byte")
    assert client.ask("read", path=str(tmp_path / "caf\\xe9")).payload == b"literal"


def test_a_name_that_is_too_long_is_said_to_be(client: Client, tmp_path: Path) -> None:
    longest = str(tmp_path / ("ä" * 127 + "x"))
    assert client.ok("write", b"x", path=longest)["created"]
    assert client.replace(Path(longest), "x", "y").body["ok"]["first_line"] == 1
    for op in ("stat", "write", "view", "list", "mkdir"):
        assert client.code(op, path=longest + "x") == "name_too_long"
        assert client.code(op, path="/" + "d/" * 2050) == "name_too_long"
        assert client.code(op, path="ü" * 300_000) == "name_too_long"
    assert temporaries(tmp_path) == []


# --- list -----------------------------------------------------------------------------------------


def test_list_is_sorted_depth_first_with_sizes(client: Client, tmp_path: Path) -> None:
    (tmp_path / "b/inner/deep").mkdir(parents=True)
    (tmp_path / "b/inner/deep/x").write_bytes(b"")
    (tmp_path / "b/z.txt").write_bytes(b"123")
    (tmp_path / "a.txt").write_bytes(b"12345")
    (tmp_path / "c").symlink_to("b")
    (tmp_path / ".git").mkdir()
    (tmp_path / "node_modules").mkdir()
    (tmp_path / "b/node_modules").mkdir()
    answer = client.ok("list", path=str(tmp_path), depth=2, skip=["node_modules"])
    assert [(e["path"], e["kind"]) for e in answer["entries"]] == [
        ("a.txt", "file"),
        ("b", "directory"),
        ("b/inner", "directory"),
        ("b/z.txt", "file"),
        ("c", "link"),
    ]
    sizes = {e["path"]: e["size"] for e in answer["entries"]}
    assert (sizes["a.txt"], sizes["b"], sizes["b/inner"], sizes["b/z.txt"]) == (5, 3, 1, 3)
    assert answer["omitted"] == {"hidden": 1, "skipped": 2, "more": 0}
    assert answer["complete"] is True
    assert len(client.ok("list", path=str(tmp_path), hidden=True)["entries"]) == 5


@pytest.mark.parametrize("most", [1, 2, 3, 5, 8, 11, 12, 13, 50])
def test_list_counts_all_that_is_beyond_the_maximum(
    client: Client, tmp_path: Path, most: int
) -> None:
    for name in ("a", "b", "c"):
        for inner in ("x", "y", "z"):
            (tmp_path / name / inner).mkdir(parents=True)
    (tmp_path / "c/.hidden").write_bytes(b"")
    answer = client.ok("list", path=str(tmp_path), depth=3, max_entries=most)
    everything = client.ok("list", path=str(tmp_path), depth=3)
    assert len(everything["entries"]) == 12
    assert answer["entries"] == everything["entries"][:most]
    assert answer["omitted"] == {"hidden": 1, "skipped": 0, "more": max(0, 12 - most)}


def test_a_directory_of_100_000_entries_lists_fast(tmp_path: Path) -> None:
    big = tmp_path / "big"
    big.mkdir()
    directory = os.open(big, os.O_RDONLY)
    for number in range(100_000):
        os.close(os.open(f"{number:06d}", os.O_CREAT | os.O_WRONLY, dir_fd=directory))
    os.close(directory)
    with serving_process() as (client, pid):
        client.ok("stat", path=str(big))
        before = peak_kib(pid)
        started = time.monotonic()
        answer = client.ok("list", path=str(big), max_entries=5000)
        assert time.monotonic() - started < 10  # 0.2 s on an idle machine
        assert answer["omitted"]["more"] == 95_000
        assert answer["entries"][-1]["path"] == "004999"
        outer = client.ok("list", path=str(tmp_path), depth=2, max_entries=10)
        assert outer["entries"][0]["size"] == 100_000
        assert outer["omitted"]["more"] == 100_000 - 9
        assert client.ok("usage", paths=[str(big)])["files"] == 100_000
        assert peak_kib(pid) - before < 16 * 1024
        client.ok("remove", path=str(big), recursive=True)
        assert not big.exists()


def test_a_listing_never_exceeds_a_frame(client: Client, tmp_path: Path) -> None:
    directory = os.fsencode(tmp_path)
    for number in range(3000):
        name = b"/%04d" % number + b"\xff" * 250
        os.close(os.open(directory + name, os.O_CREAT | os.O_WRONLY))
    answer = client.ok("list", path=str(tmp_path), max_entries=5000)
    shown = len(answer["entries"])
    assert 1000 < shown < 3000
    assert answer["omitted"]["more"] == 3000 - shown


def test_a_listing_that_takes_too_long_says_that_it_is_not_complete(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    monkeypatch.setattr(listing, "LIST_SECONDS", -1.0)
    assert client.ok("list", path=str(tmp_path))["complete"] is False


# --- view -----------------------------------------------------------------------------------------


def view(client: Client, path: Path, **arguments: Any) -> tuple[bytes, dict[str, Any]]:
    frame = client.ask("view", path=str(path), **arguments)
    return frame.payload, frame.body["ok"]


@pytest.mark.parametrize(
    ("data", "encoding", "newline", "lines", "ends"),
    [
        (b"", "utf-8", "none", 0, False),
        (b"a", "utf-8", "none", 1, False),
        (b"a\n", "utf-8", "lf", 1, True),
        (b"a\n\n", "utf-8", "lf", 2, True),
        (b"a\nb", "utf-8", "lf", 2, False),
        (b"a\r\nb\r\n", "utf-8", "crlf", 2, True),
        (b"a\r\nb\n", "utf-8", "mixed", 2, True),
        (b"a\rb", "utf-8", "none", 1, False),
        ("\t€😀\n".encode(), "utf-8", "lf", 1, True),
        (b"\xef\xbb\xbfa\n", "utf-8-sig", "lf", 1, True),
        (b"\xef\xbb\xbf", "utf-8-sig", "none", 0, False),
        ("caf\xe9\n".encode("latin-1"), "latin-1", "lf", 1, True),
        (b"a\n" * 5000 + b"\xe2\x82", "latin-1", "lf", 5001, False),
        (b"\xff\xfe" + "a\r\n😀\r\n".encode("utf-16-le"), "utf-16-le", "crlf", 2, True),
        (b"\xfe\xff" + "\u0a0a\n\u0a00x".encode("utf-16-be"), "utf-16-be", "lf", 2, False),
    ],
)
def test_view_knows_what_kind_of_text_a_file_is(
    client: Client, tmp_path: Path, data: bytes, encoding: str, newline: str, lines: int, ends: bool
) -> None:
    (tmp_path / "f").write_bytes(data)
    payload, answer = view(client, tmp_path / "f")
    assert payload == data
    assert answer == {
        "first": 1,
        "last": lines,
        "total_lines": lines,
        "size": len(data),
        "encoding": encoding,
        "newline": newline,
        "ends_with_newline": ends,
        "truncated": False,
        "next_line": None,
        "cut_line": False,
    }


@pytest.mark.parametrize(
    "data",
    [
        b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
        b"%PDF-1.4\nhello",
        b"\x1f\x8b\x08\0abc",
        hashlib.sha512(b"x").digest() * 20,
        b"\xff\xfe\0\0a\0\0\0",
    ],
)
def test_a_binary_file_gives_its_head(client: Client, tmp_path: Path, data: bytes) -> None:
    (tmp_path / "f").write_bytes(data)
    payload, answer = view(client, tmp_path / "f")
    assert (payload, answer["encoding"], answer["size"]) == (b"", "binary", len(data))
    assert base64.b64decode(answer["head"]) == data[:512]


@settings(max_examples=150, deadline=None)
@given(
    text=st.text(st.sampled_from("ab\n\r\u0a0a\n😀é"), max_size=60),
    codec=st.sampled_from(["utf-8", "utf-16-le", "utf-16-be", "utf-8-sig"]),
    first=st.integers(1, 12),
    length=st.integers(0, 12) | st.none(),
    limit=st.integers(4, 80),
)
def test_view_gives_the_lines_that_python_gives(
    text: str, codec: str, first: int, length: int | None, limit: int
) -> None:
    mark = {"utf-8-sig": b"\xef\xbb\xbf", "utf-16-le": b"\xff\xfe", "utf-16-be": b"\xfe\xff"}
    plain = codec.removesuffix("-sig")
    lines = [line.encode(plain) for line in text.split("\n")]
    newline = "\n".encode(plain)
    lines = [line + newline for line in lines[:-1]] + ([lines[-1]] if lines[-1] else [])
    start = mark.get(codec, b"")
    if lines:
        lines[0] = start + lines[0]
    last = -1 if length is None else first + length
    with tempfile.NamedTemporaryFile() as file, serving() as client:
        file.write(b"".join(lines) if lines else start)
        file.flush()
        where = {"path": file.name, "first": first, "last": last, "max_bytes": limit}
        if first > max(1, len(lines)):
            error = client.refusal("view", **where)
            assert (error["code"], error["total_lines"]) == ("bad_range", len(lines))
            return
        frame = client.ask("view", **where)
        answer = frame.body["ok"]
        wanted = lines[first - 1 :] if last == -1 else lines[first - 1 : last]
        assert answer["total_lines"] == len(lines)
        if not lines:
            assert frame.payload == start
        elif sum(map(len, wanted)) <= limit:
            assert (frame.payload, answer["truncated"]) == (b"".join(wanted), False)
            assert answer["last"] == first + len(wanted) - 1
        else:
            assert answer["truncated"]
            assert len(frame.payload) <= limit
            if answer["cut_line"]:
                assert len(wanted[0]) > limit
                assert wanted[0].startswith(frame.payload)
                frame.payload.decode(plain)  # cut between characters
                assert answer["last"] == first
            else:
                count = answer["last"] - first + 1
                assert frame.payload == b"".join(wanted[:count])
                assert sum(map(len, wanted[: count + 1])) > limit
            following = answer["last"] + 1
            assert answer["next_line"] == (following if following <= len(lines) else None)


@pytest.mark.parametrize(("first", "last"), [(0, -1), (-3, -1), (3, 2), (1, 0), (1, -2)])
def test_a_range_that_is_none_is_refused(
    client: Client, tmp_path: Path, first: int, last: int
) -> None:
    (tmp_path / "f").write_bytes(b"a\nb\nc\n")
    assert client.code("view", path=str(tmp_path / "f"), first=first, last=last) == "bad_range"


def test_the_end_of_a_range_is_clamped_and_directories_are_refused(
    client: Client, tmp_path: Path
) -> None:
    (tmp_path / "f").write_bytes(b"a\nb\nc\n")
    payload, answer = view(client, tmp_path / "f", first=2, last=99)
    assert (payload, answer["first"], answer["last"]) == (b"b\nc\n", 2, 3)
    assert client.code("view", path=str(tmp_path)) == "is_a_directory"


def test_a_file_without_a_size_is_read_to_its_end(client: Client) -> None:
    payload, answer = view(client, Path("/proc/self/status"), first=1, last=1)
    assert payload.startswith(b"Name:")
    assert answer["size"] > 100


def test_lines_across_the_pieces_of_a_large_file(client: Client, tmp_path: Path) -> None:
    lines = [b"%07d %s\r\n" % (n, b"x" * (n % 977)) for n in range(4000)]
    (tmp_path / "f").write_bytes(b"".join(lines))
    payload, answer = view(client, tmp_path / "f", first=3500, last=3600)
    assert payload == b"".join(lines[3499:3600])
    assert (answer["newline"], answer["total_lines"]) == ("crlf", 4000)


def test_a_crlf_between_two_pieces_is_one(client: Client, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x" * 262_143 + b"\r\nend\r\n")
    assert view(client, tmp_path / "f", first=2)[1]["newline"] == "crlf"


# --- write ----------------------------------------------------------------------------------------


def test_write_creates_parents_and_refuses_what_exists(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "a/b/c.txt"
    answer = client.ok("write", b"one", path=str(path))
    assert answer == {"path": str(path), "size": 3, "created": True, "replaced": False}
    assert path.read_bytes() == b"one"
    assert client.code("write", b"two", path=str(path)) == "exists"
    assert path.read_bytes() == b"one"
    answer = client.ok("write", b"two!", path=str(path), overwrite=True)
    assert (answer["created"], answer["replaced"]) == (False, True)
    assert path.read_bytes() == b"two!"
    assert temporaries(tmp_path) == []


def test_write_keeps_mode_and_follows_a_link(client: Client, tmp_path: Path) -> None:
    real = tmp_path / "real.sh"
    real.write_bytes(b"old")
    real.chmod(0o751)
    (tmp_path / "link").symlink_to("real.sh")
    (tmp_path / "dangling").symlink_to("new/made.txt")
    answer = client.ok("write", b"new", path=str(tmp_path / "link"), overwrite=True)
    assert answer["path"] == str(real)
    assert (tmp_path / "link").is_symlink()
    assert real.read_bytes() == b"new"
    assert stat.S_IMODE(real.stat().st_mode) == 0o751
    assert client.ok("write", b"x", path=str(tmp_path / "dangling"))["created"]
    assert (tmp_path / "new/made.txt").read_bytes() == b"x"
    client.ok("write", b"x", path=str(tmp_path / "m"), mode=0o600)
    assert stat.S_IMODE((tmp_path / "m").stat().st_mode) == 0o600
    (tmp_path / "usual").write_bytes(b"")
    client.ok("write", b"x", path=str(tmp_path / "n"))
    assert (tmp_path / "n").stat().st_mode == (tmp_path / "usual").stat().st_mode


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_an_owner_is_kept_by_root(client: Client, tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_bytes(b"old")
    os.chown(file, 1234, 2345)
    client.ok("write", b"new", path=str(file), overwrite=True)
    client.replace(file, "new", "newer")
    assert (file.stat().st_uid, file.stat().st_gid) == (1234, 2345)


def test_a_directory_in_the_way_is_told(client: Client, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "f").write_bytes(b"")
    assert client.code("write", b"", path=str(tmp_path / "d"), overwrite=True) == "is_a_directory"
    assert client.code("write", b"", path=str(tmp_path / "d")) == "is_a_directory"
    assert client.code("write", b"", path=str(tmp_path / "f/x")) == "not_a_directory"
    assert client.code("write", b"", path=str(tmp_path / "f/x/y/z")) == "not_a_directory"
    assert client.code("write", b"", path=f"{tmp_path}/new/") == "bad_request"


def test_an_aborted_or_cut_write_leaves_nothing(tmp_path: Path) -> None:
    path = str(tmp_path / "f")
    with serving() as client:
        client.stream.send({"op": "write", "path": path, "more": True}, b"x" * 5000)
        client.stream.send({"chunk": True, "abort": True})
        with pytest.raises(Refused, match="aborted"):
            client.answer()
        assert os.listdir(tmp_path) == []
        client.stream.send({"op": "write", "path": path, "more": True}, b"x" * 5000)
    assert os.listdir(tmp_path) == []


def test_a_reader_sees_the_old_or_the_new_file(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "f"
    contents = {b"a" * 300_000, b"b" * 300_000}
    client.ok("write", b"a" * 300_000, path=str(path))
    seen = set()
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            seen.add(path.read_bytes())

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(40):
        for content in contents:
            client.ok("write", content, path=str(path), overwrite=True)
    done.set()
    reader.join()
    assert seen <= contents


def test_of_many_that_create_one_file_one_succeeds(tmp_path: Path) -> None:
    path = tmp_path / "f"
    results: list[str] = []

    def create(number: int) -> None:
        with serving_quietly() as client:
            try:
                client.ok("write", b"%d" % number, path=str(path))
                results.append(str(number))
            except Refused as refused:
                results.append(refused.code)

    in_threads(create, 8)
    winners = [result for result in results if result != "exists"]
    assert len(winners) == 1
    assert path.read_text() == winners[0]


def test_a_file_that_appears_at_the_last_moment_is_not_overwritten(tmp_path: Path) -> None:
    target = tmp_path / "f"
    with Staged(os.fsencode(target)) as staged:
        staged.write(b"ours")
        target.write_bytes(b"theirs")
        with pytest.raises(FileExistsError):
            staged.commit(overwrite=False)
    assert target.read_bytes() == b"theirs"
    assert os.listdir(tmp_path) == ["f"]


@pytest.mark.bubblewrap
def test_a_full_disk_and_a_read_only_one(tmp_path: Path) -> None:
    small, uploads = tmp_path / "small", tmp_path / "uploads"
    small.mkdir()
    uploads.mkdir()
    (uploads / "f.txt").write_bytes(b"given\n")
    mounts = (
        f"mount -t tmpfs -o size=256k none {small} && mount --bind {uploads} {uploads} && "
        f'mount -o remount,bind,ro {uploads} && exec "$@"'
    )
    with serving_process("unshare", "-Urm", "sh", "-c", mounts, "sh") as (client, _):
        data = b"x" * 200_000
        client.ok("write", data, path=str(small / "f"))
        assert client.code("write", data, path=str(small / "g")) == "no_space"
        assert client.code("write", data, path=str(small / "f"), overwrite=True) == "no_space"
        assert client.code("replace", b"xy", path=str(small / "f"), old_bytes=1) == "many_matches"
        first, rest = b"y" * 10, b"z" * 150_000
        names = [e["path"] for e in client.ok("list", path=str(small), hidden=True)["entries"]]
        assert names == ["f"]
        client.ok("remove", path=str(small / "f"))
        client.ok("write", first + rest, path=str(small / "f"))
        arguments = {"path": str(small / "f"), "old_bytes": len(first)}
        assert client.code("replace", first + b"new", **arguments) == "no_space"
        names = [e["path"] for e in client.ok("list", path=str(small), hidden=True)["entries"]]
        assert names == ["f"]

        ro = str(uploads / "f.txt")
        assert client.ask("view", path=ro).payload == b"given\n"
        assert client.code("write", b"x", path=str(uploads / "new")) == "read_only"
        assert client.code("write", b"x", path=str(uploads / "sub/new")) == "read_only"
        assert client.code("write", b"x", path=ro, overwrite=True) == "read_only"
        assert client.code("replace", b"givenX", path=ro, old_bytes=5) == "read_only"
        assert client.code("mkdir", path=str(uploads / "d")) == "read_only"
        assert client.code("remove", path=ro) == "read_only"
        assert client.code("rename", path=ro, to=str(uploads / "g")) == "read_only"
        assert (
            client.code("rename", path=str(small / "f"), to=str(tmp_path / "f")) == "cross_device"
        )


# --- replace --------------------------------------------------------------------------------------


def in_threads(work: Any, count: int) -> None:
    threads = [threading.Thread(target=work, args=(n,)) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)


CODECS = {
    "utf-8": ("utf-8", b""),
    "utf-8-sig": ("utf-8", b"\xef\xbb\xbf"),
    "utf-16-le": ("utf-16-le", b"\xff\xfe"),
    "utf-16-be": ("utf-16-be", b"\xfe\xff"),
}


@settings(max_examples=400, deadline=None)
@given(
    text=st.text(st.sampled_from("aab\n\n\t é😀\u0a0a"), max_size=30),
    old=st.text(st.sampled_from("aab\n é😀\u0a0a"), min_size=1, max_size=4),
    new=st.text(st.sampled_from("xy\n\t→"), max_size=5),
    encoding=st.sampled_from(sorted(CODECS)),
    crlf=st.booleans(),
)
def test_replace_does_what_python_does(
    text: str, old: str, new: str, encoding: str, crlf: bool
) -> None:
    codec, mark = CODECS[encoding]

    def on_disk(text: str) -> bytes:
        return mark + (text.replace("\n", "\r\n") if crlf else text).encode(codec)

    if crlf and "\n" not in text:
        text += "\n"
    with tempfile.TemporaryDirectory() as directory, serving() as client:
        path = Path(directory, "f")
        path.write_bytes(on_disk(text))
        path.chmod(0o754)
        count = text.count(old)
        if count == 1:
            frame = client.replace(path, old, new)
            after = text.replace(old, new)
            assert path.read_bytes() == on_disk(after)
            assert stat.S_IMODE(path.stat().st_mode) == 0o754
            answer = frame.body["ok"]
            first = text[: text.index(old)].count("\n") + 1
            assert answer["first_line"] == first
            assert answer["last_line"] == first + max(
                0, new.count("\n") - (1 if new.endswith("\n") else 0)
            )
            assert answer["total_lines"] == len(after.split("\n")) - (
                1 if not after or after.endswith("\n") else 0
            )
            lines = on_disk(after)[len(mark) :]
            assert frame.payload in lines
            start = answer["snippet_first_line"]
            assert start == max(1, first - 4)
            parts = (after.replace("\n", "\r\n") if crlf else after).split("\n")
            rest = "\n".join(parts[start - 1 :]).encode(codec)
            assert rest.startswith(frame.payload)
        else:
            data = old.encode()
            error = client.refusal(
                "replace", data + new.encode(), path=str(path), old_bytes=len(data)
            )
            assert path.read_bytes() == on_disk(text)
            if count:
                assert (error["code"], error["count"]) == ("many_matches", count)
                expected, at = [], -1
                while (at := text.find(old, at + 1 if at < 0 else at + len(old))) >= 0:
                    expected.append(text[:at].count("\n") + 1)
                assert error["lines"] == expected[:10]
            else:
                assert error["code"] == "no_match"
        assert os.listdir(directory) == ["f"]


def edit(client: Client, path: Path, before: bytes, old: str, new: str) -> bytes:
    path.write_bytes(before)
    client.replace(path, old, new)
    return path.read_bytes()


def test_replace_keeps_what_it_does_not_change(client: Client, tmp_path: Path) -> None:
    file = tmp_path / "f"
    assert edit(client, file, b"\ta\tb  \n\tc", "b", "\tB") == b"\ta\t\tB  \n\tc"
    assert (
        edit(client, file, b"caf\xe9 \x80\xff one", "one", "\u00fcn") == b"caf\xe9 \x80\xff \xfcn"
    )
    assert edit(client, file, b"caf\xe9\n", "caf\u00e9", "th\u00e9") == b"th\xe9\n"
    assert edit(client, file, b"one", "one", "") == b""
    assert edit(client, file, b"a\0b", "b", "\u20ac") == b"a\0\xe2\x82\xac"
    assert edit(client, file, b"a\r\nb\r\n", "a\nb\n", "x\ny\n") == b"x\r\ny\r\n"
    assert edit(client, file, b"a\r\nb\r\n", "a\r\nb", "x\r\ny") == b"x\r\ny\r\n"
    assert edit(client, file, b"a\nb\n", "a\r\nb", "x\r\ny") == b"x\ny\n"
    assert edit(client, file, b"\xef\xbb\xbfa", "\ufeffa", "\ufeffb") == b"\xef\xbb\xbfb"
    # bytes that are UTF-8 in a file that is not UTF-8 as a whole
    assert edit(client, file, b"\xff caf\xc3\xa9", "caf\u00e9", "\u20ac") == b"\xff \xe2\x82\xac"


def test_half_characters_of_utf16_do_not_match(client: Client, tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_bytes(b"\xff\xfe" + "\u6100\u0061".encode("utf-16-le"))  # 00 61 61 00
    old = "\u6161".encode()
    assert client.code("replace", old + b"x", path=str(file), old_bytes=len(old)) == "no_match"


def test_replace_in_mixed_line_endings_takes_those_of_the_place(
    client: Client, tmp_path: Path
) -> None:
    file = tmp_path / "f"
    mixed = b"a\r\nb\r\nc\nd\ne\n"
    assert edit(client, file, mixed, "a\nb", "1\n2\n3") == b"1\r\n2\r\n3\r\nc\nd\ne\n"
    assert edit(client, file, mixed, "c\nd", "1\n2") == b"a\r\nb\r\n1\n2\ne\n"
    assert edit(client, file, mixed, "a", "1\n2") == b"1\r\n2\r\nb\r\nc\nd\ne\n"
    assert edit(client, file, mixed, "d", "1\n2") == b"a\r\nb\r\nc\n1\n2\ne\n"
    file.write_bytes(b"x\r\ny\nx\ny\r\nz\n")
    error = client.refusal("replace", b"x\nyq", path=str(file), old_bytes=3)
    assert (error["count"], error["lines"]) == (2, [1, 3])


def test_what_an_encoding_cannot_say_is_refused(client: Client, tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_bytes(b"caf\xe9 x\n")
    error = client.refusal("replace", "x→".encode(), path=str(file), old_bytes=1)
    assert (error["code"], error["encoding"], error["character"]) == (
        "not_encodable",
        "latin-1",
        "→",
    )
    assert file.read_bytes() == b"caf\xe9 x\n"


def test_an_empty_old_text_is_a_bad_request(client: Client, tmp_path: Path) -> None:
    path = str(tmp_path / "f")
    Path(path).write_bytes(b"")
    assert client.code("replace", b"new", path=path, old_bytes=0) == "bad_request"
    assert client.code("replace", b"", path=path, old_bytes=5) == "bad_request"
    assert client.code("replace", b"\xff", path=path, old_bytes=1) == "bad_request"
    assert client.code("replace", b"x", path=path, old_bytes=1) == "no_match"


def test_matches_across_the_pieces_of_a_search(client: Client, tmp_path: Path) -> None:
    file = tmp_path / "f"
    for start in range(MIB - 6, MIB + 2):
        before = b"\n" + b"." * (start - 1) + b"needle" + b"." * 100
        after = edit(client, file, before, "needle", "pin")
        assert after == before.replace(b"needle", b"pin")
    file.write_bytes(b"ab" * 700_000)
    error = client.refusal("replace", b"babax", path=str(file), old_bytes=4)
    assert (error["code"], error["count"], error["lines"]) == ("many_matches", 1000, [1] * 10)


def test_a_long_text_comes_in_chunks(client: Client, tmp_path: Path) -> None:
    file = tmp_path / "f"
    old, new = b"o" * 5_000_000, b"n" * 6_000_000
    file.write_bytes(b"(" + old + b")")
    data = old + new
    pieces = [data[i : i + MIB] for i in range(0, len(data), MIB)]
    body: dict[str, Any] = {"op": "replace", "path": str(file), "old_bytes": len(old)}
    for piece in pieces[:-1]:
        client.stream.send({**body, "more": True}, piece)
        body = {"chunk": True}
    client.stream.send(body, pieces[-1])
    answer = client.answer()
    assert answer.body["ok"]["snippet_cut"] is True
    assert len(answer.payload) < 200_000
    assert file.read_bytes() == b"(" + new + b")"


def test_two_edits_of_one_file_at_once_both_take_effect(tmp_path: Path) -> None:
    file = tmp_path / "f"
    for _ in range(5):
        file.write_bytes(b"".join(b"line %d\n" % n for n in range(8)) + b"x" * 3_000_000)

        def replace(number: int) -> None:
            with serving_quietly() as client:
                path = file if number % 2 else tmp_path / "." / "f"
                client.replace(path, f"line {number}\n", f"edited {number}\n")

        in_threads(replace, 8)
        assert file.read_bytes()[:200].startswith(b"".join(b"edited %d\n" % n for n in range(8)))
    assert os.listdir(tmp_path) == ["f"]


def test_of_two_same_edits_at_once_the_second_finds_nothing(tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_bytes(b"once " + b"x" * 1_000_000)
    results: list[str] = []

    def replace(number: int) -> None:
        with serving_quietly() as client:
            try:
                client.replace(file, "once", "twice")
                results.append("ok")
            except Refused as refused:
                results.append(refused.code)

    in_threads(replace, 4)
    assert sorted(results) == ["no_match", "no_match", "no_match", "ok"]


def test_an_edit_by_somebody_else_meanwhile_is_not_lost(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "f"
    file.write_bytes(b"a b c")
    original = Staged.write

    def write(self: Staged, data: bytes) -> None:
        with open(file, "ab") as out:
            out.write(b" d")
        original(self, data)

    monkeypatch.setattr(Staged, "write", write)
    assert client.code("replace", b"bX", path=str(file), old_bytes=1) == "changed"
    assert file.read_bytes() == b"a b c d"
    assert os.listdir(tmp_path) == ["f"]


# --- nearest --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "old", "lines", "differences"),
    [
        ("if x:\n\treturn 1\n", "if x:\n    return 1\n", (1, 2), ["tabs"]),
        ("if x:\n        return 1\n", "if x:\n    return 1\n", (1, 2), ["indentation"]),
        ("a\nfoo   \nb\n", "foo\nb", (2, 3), ["trailing_whitespace"]),
        ("a\nsay “hello”\n", 'say "hello"', (2, 2), ["quotes"]),
        ("a\nx = Foo(1)\n", "x = foo(1)", (2, 2), ["case"]),
        ("a\nx  =  1\n", "x = 1", (2, 2), ["spaces"]),
        ("a\nend", "end\n", (2, 2), ["final_newline"]),
        ("a\n\tx = “b”\n", '    X = "b"', (2, 2), ["quotes", "case", "tabs"]),
        ("a\nb\nc\nd\ne\n", "b\nc\nX\ne\n", (2, 5), ["content"]),
        ("one\ndef compute(a, b):\n", "def compute(a, b, c):\n", (2, 2), ["content"]),
    ],
)
def test_the_nearest_place_and_how_it_differs(
    client: Client,
    tmp_path: Path,
    content: str,
    old: str,
    lines: tuple[int, int],
    differences: list[str],
) -> None:
    file = tmp_path / "f"
    file.write_text(content)
    data = old.encode()
    error = client.refusal("replace", data + b"new", path=str(file), old_bytes=len(data))
    assert error["code"] == "no_match"
    near = error["nearest"]
    assert (near["first_line"], near["last_line"]) == lines
    assert near["differences"] == differences
    assert near["text"] == "\n".join(content.split("\n")[lines[0] - 1 : lines[1]])


def test_nothing_near_is_no_nearest(client: Client, tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_text("alpha\nbeta\ngamma\n")
    for old in ("zzzz qqqq", "   ", "\n\n\n", "…"):
        error = client.refusal("replace", old.encode(), path=str(file), old_bytes=len(old.encode()))
        assert (error["code"], "nearest" in error) == ("no_match", False)


@settings(max_examples=200, deadline=None)
@given(
    content=st.text(st.sampled_from("aB \t\n\r“'\"e"), max_size=40),
    old=st.text(st.sampled_from("aB \t\n\r“'\"e"), min_size=1, max_size=12),
)
def test_looking_for_the_nearest_place_never_fails(content: str, old: str) -> None:
    with tempfile.NamedTemporaryFile() as file, serving() as client:
        file.write(content.encode())
        file.flush()
        data = old.encode()
        client.stream.send({"op": "replace", "path": file.name, "old_bytes": len(data)}, data)
        body = client.stream.receive().body
        if "error" in body:
            assert body["error"]["code"] in ("no_match", "many_matches")
            near = body["error"].get("nearest")
            if near:
                assert 1 <= near["first_line"] <= near["last_line"]
                assert near["differences"]


# --- export ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 262_143, 262_144, 262_145, 1_000_000])
def test_export_gives_bytes_and_hash(client: Client, tmp_path: Path, size: int) -> None:
    content = os.urandom(size)
    (tmp_path / "sub").mkdir()
    file = tmp_path / "sub/f"
    file.write_bytes(content)
    file.chmod(0o644)
    data, answer = client.export(file, tmp_path, size)
    assert data == content
    assert answer["sha256"] == hashlib.sha256(content).hexdigest()
    assert (answer["size"], answer["mode"]) == (size, 0o644)


def test_export_refuses_links_and_what_is_outside(client: Client, tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    (root / "sub/f").write_bytes(b"in")
    (tmp_path / "root2").mkdir()
    (tmp_path / "root2/f").write_bytes(b"out")
    (root / "link").symlink_to("sub/f")
    (root / "dir").symlink_to("sub")
    (root / "dangling").symlink_to("nowhere")
    (root / "self").symlink_to("/proc/self/environ")
    (tmp_path / "rootlink").symlink_to("root")
    for name in ("link", "dir/f", "dangling", "self"):
        assert client.export_code(root / name, root) == "link"
    assert client.export_code(tmp_path / "rootlink/sub/f", tmp_path / "rootlink") == "link"
    assert client.export_code(tmp_path / "root2/f", root) == "outside"
    assert client.export_code(f"{root}/../root2/f", root) == "outside"
    assert client.export_code("/etc/passwd", root) == "outside"
    assert client.export_code(root, root) == "is_a_directory"
    assert client.export_code(root / "sub", root) == "is_a_directory"
    assert client.export_code(root / "no", root) == "not_found"
    assert client.export_code(root / "no/f", root) == "not_found"
    assert client.export_code(root / "sub/f/g", root) == "not_a_directory"
    assert client.export(f"{root}/./sub/../sub//f", f"{root}/")[0] == b"in"


def test_export_stops_at_its_limit(client: Client, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"12345")
    assert client.export(tmp_path / "f", tmp_path, 5)[0] == b"12345"
    assert client.export_code(tmp_path / "f", tmp_path, 4) == "too_large"
    with open(tmp_path / "sparse", "wb") as file:
        file.truncate(10**12)
    started = time.monotonic()
    assert client.export_code(tmp_path / "sparse", tmp_path, 10**9) == "too_large"
    assert time.monotonic() - started < 10  # it does not read a terabyte


def test_export_notices_a_file_that_changes(client: Client, tmp_path: Path) -> None:
    file = tmp_path / "f"
    for change in ("grow", "shrink", "touch"):
        file.write_bytes(b"x" * 30 * MIB)
        client.stream.send(
            {"op": "export", "path": str(file), "root": str(tmp_path), "max_bytes": 10**9}
        )
        client.answer()  # the guest is somewhere before the end: it waits for us to read
        if change == "grow":
            with open(file, "ab") as out:
                out.write(b"y")
        elif change == "shrink":
            os.truncate(file, 10)
        else:
            os.utime(file, (1, 1))
        frame = client.stream.receive()
        while frame.body.get("more"):
            frame = client.stream.receive()
        assert frame.body["error"]["code"] == "changed"


def test_export_never_follows_a_link_that_is_swapped_in(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "secret").write_bytes(b"SECRET")
    done = threading.Event()

    def swap() -> None:
        number = 0
        while not done.is_set():
            number += 1
            new = root / f"n{number}"
            if number % 3 == 0:
                new.write_bytes(b"mine")
            elif number % 3 == 1:
                new.symlink_to(tmp_path / "secret")
            else:
                os.mkfifo(new)
            new.rename(root / "f")

    swapper = threading.Thread(target=swap)
    swapper.start()
    seen: set[str] = set()
    with serving() as client:
        ends_at = time.monotonic() + 20
        for _ in range(1500):
            try:
                seen.add(client.export(root / "f", root)[0].decode())
            except Refused as refused:
                seen.add(refused.code)
            if time.monotonic() > ends_at:
                break
    done.set()
    swapper.join()
    assert "SECRET" not in seen
    assert seen <= {"mine", "link", "not_a_file", "not_found", "changed"}


# --- usage, mkdir, rename, remove -----------------------------------------------------------------


def test_room_names_the_directories_that_say_most(client: Client, tmp_path: Path) -> None:
    deep = tmp_path / "project" / "data"
    deep.mkdir(parents=True)
    (deep / "big").write_bytes(os.urandom(3 * MIB))
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "x").write_bytes(os.urandom(MIB))
    (tmp_path / "elsewhere").symlink_to("/usr")
    answer = client.ok("room", paths=[str(tmp_path), "/nonexistent"], all=True)
    assert [each["path"] for each in answer["largest"]] == [str(deep), str(tmp_path / "cache")]
    assert 3 * MIB <= answer["largest"][0]["size"] < 3.1 * MIB
    assert answer["complete"] is True
    for number in range(50):
        (tmp_path / "cache" / str(number)).touch()
    by_number = client.ok("room", paths=[str(tmp_path)], all=True, entries=True)
    assert by_number["largest"][0] == {"path": str(tmp_path / "cache"), "size": 51}


def test_room_looks_for_a_bounded_time_and_knows_its_arguments(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = importlib.import_module("sandbox_guest.files.room")  # its function has its name
    monkeypatch.setattr(module, "SECONDS", -1.0)
    answer = client.ok("room", paths=[str(tmp_path)], all=True)
    assert answer["complete"] is False
    assert client.code("room", paths=["/"] * 21) == "bad_request"
    assert client.code("room", paths=["/"], all=1) == "bad_request"


def test_usage_counts_bytes_on_the_disk_once(client: Client, tmp_path: Path) -> None:
    (tmp_path / "d/e").mkdir(parents=True)
    (tmp_path / "d/big").write_bytes(b"x" * 100_000)
    (tmp_path / "d/e/small").write_bytes(b"x" * 5000)
    os.link(tmp_path / "d/big", tmp_path / "d/again")
    (tmp_path / "d/link").symlink_to("/usr")
    with open(tmp_path / "d/sparse", "wb") as file:
        file.truncate(10**12)
    answer = client.ok("usage", paths=[str(tmp_path), str(tmp_path / "missing")], top=2)
    assert 105_000 <= answer["bytes"] < 200_000
    assert (answer["files"], answer["complete"]) == (5, True)
    assert [e["bytes"] >= n for e, n in zip(answer["largest"], (100_000, 5000), strict=True)]
    assert answer["largest"][1]["path"] == str(tmp_path / "d/e/small")
    cut = client.ok("usage", paths=[str(tmp_path)], max_entries=3)
    assert cut["complete"] is False
    du = subprocess.run(["du", "-sB1", tmp_path], check=True, capture_output=True).stdout
    assert answer["bytes"] == int(du.split()[0])


def test_names_are_made_changed_and_removed(client: Client, tmp_path: Path) -> None:
    a, b = str(tmp_path / "x/y/a"), str(tmp_path / "x/b")
    assert client.ok("mkdir", path=a) == {}
    assert client.code("mkdir", path=a) == "exists"
    client.ok("write", b"1", path=a + "/f")
    client.ok("rename", path=a, to=b)
    assert Path(b, "f").read_bytes() == b"1"
    client.ok("write", b"2", path=b + "/g")
    assert client.code("rename", path=b + "/f", to=b + "/g") == "exists"
    assert client.code("rename", path=b, to=b + "/inside") == "bad_request"
    assert client.code("rename", path=b + "/no", to=b + "/h") == "not_found"
    assert client.code("remove", path=b) == "not_empty"
    (tmp_path / "link").symlink_to("x")
    client.ok("remove", path=str(tmp_path / "link"), recursive=True)
    assert Path(b, "f").exists()
    client.ok("remove", path=b + "/f")
    client.ok("remove", path=b, recursive=True)
    assert not Path(b).exists()
    assert client.code("remove", path="/", recursive=True) == "bad_request"
    assert client.code("remove", path="/tmp/..", recursive=True) == "bad_request"
    client.ok("write", b"", path=str(tmp_path / "f"))
    assert client.code("mkdir", path=str(tmp_path / "f/x")) == "not_a_directory"


def test_a_tree_deeper_than_a_path_can_be_is_removed(client: Client, tmp_path: Path) -> None:
    top = tmp_path / "deep"
    top.mkdir()
    here = os.open(top, os.O_RDONLY)
    for _ in range(60):
        os.mkdir("d" * 200, dir_fd=here)
        inner = os.open("d" * 200, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
        os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=here))
    os.close(here)
    assert client.ok("usage", paths=[str(top)])["complete"] is False
    client.ok("remove", path=str(top), recursive=True)
    assert not top.exists()
    client.ok("mkdir", path=str(tmp_path) + "/d" * 1900)
    client.ok("remove", path=str(tmp_path / "d"), recursive=True)


# --- memory ---------------------------------------------------------------------------------------


def peak_kib(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])


@pytest.mark.parametrize("newline", [b"\n", b""], ids=["lines", "one line"])
def test_memory_stays_flat_on_a_file_of_100_mib(tmp_path: Path, newline: bytes) -> None:
    file = tmp_path / "big.txt"
    line = "été 0123456789 abcdefghij\t".encode() + newline
    count = 100 * MIB // len(line)
    with open(file, "wb") as out:
        for _ in range(100):
            out.write(line * (count // 100))
        out.write(b"the needle\n")
    size = file.stat().st_size
    with serving_process() as (client, pid):
        client.ask("view", path="/etc/passwd", max_bytes=16_000)
        small = tmp_path / "small"
        small.write_bytes(b"a needle")
        client.replace(small, "needle", "pin")
        before = peak_kib(pid)
        frame = client.ask("view", path=str(file), max_bytes=16_000)
        assert frame.body["ok"]["size"] == size
        last = client.ask("view", path=str(file), first=frame.body["ok"]["total_lines"])
        assert last.payload.endswith(b"the needle\n") or not newline
        client.replace(file, "the needle", "THE PIN")
        assert file.stat().st_size == size - 3
        code = client.refusal("replace", b"nowhere to be seen", path=str(file), old_bytes=18)[
            "code"
        ]
        assert code == "no_match"
        client.stream.send(
            {"op": "export", "path": str(file), "root": str(tmp_path), "max_bytes": size}
        )
        while "ok" not in (frame := client.answer()).body:
            pass
        assert frame.body["ok"]["size"] == size - 3
        assert client.ok("usage", paths=[str(tmp_path)])["files"] == 2
        grown = peak_kib(pid) - before
    assert grown < 24 * 1024, f"{grown} KiB more"


def test_the_service_ends_with_its_stream() -> None:
    ours, theirs = socket.socketpair()
    ours.sendall(b"\xff" * 100)
    serve_files(Stream(theirs))
    ours.close()
    theirs.close()
    with pytest.raises(StreamClosed):
        Stream(theirs).receive()
