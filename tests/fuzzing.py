"""Everything that parses hostile bytes in the server's process, as targets for a fuzzer.

The bytes come from inside a sandbox, from a file, or from another user's client; no target may raise
anything but what it says. Which parser runs where is said in ``tests/parsers.py``.

``python -m tests.fuzzing SECONDS [TARGET]`` runs atheris (coverage-guided) where it is installed, else
random bytes; the tests run each target for a moment with Hypothesis.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import sys
import time
import types
import unicodedata
from collections.abc import Callable, Iterator

from jupyter_client.session import Session
from multipart import MultipartError, PushMultipartParser, parse_options_header
from sandbox_guest.frames import FrameDecoder, FrameError
from sandbox_guest.output import BoundedOutput, Utf8Pieces

from jupyter_sandbox.conversations.contents.documents import decode_file, encode_text
from jupyter_sandbox.errors import InvalidRequest, ToolError, Unavailable
from jupyter_sandbox.models import Limits
from jupyter_sandbox.policy.access_text import PolicyTextError, parse_policy
from jupyter_sandbox.policy.displays import safe_bundle
from jupyter_sandbox.policy.image_size import image_size
from jupyter_sandbox.policy.json_bounds import JsonBoundsError, check_json
from jupyter_sandbox.policy.log_text import block, one_line
from jupyter_sandbox.policy.media import media_of
from jupyter_sandbox.policy.names import decide_file_name
from jupyter_sandbox.previews.clipboard_guard import guard
from jupyter_sandbox.previews.file_previews import text_of
from jupyter_sandbox.previews.notebooks import decode_notebook, encode_notebook
from jupyter_sandbox.previews.pages import text_page
from jupyter_sandbox.routes.disposition import attachment
from jupyter_sandbox.routes.mcp.messages import Refusal, decode_header
from jupyter_sandbox.routes.mcp.messages import read_message as read_mcp
from jupyter_sandbox.routes.preview_headers import source as source_of
from jupyter_sandbox.routes.ranges import Unsatisfiable, has_already, parse_range
from jupyter_sandbox.routes.receiving import parse_content_digest
from jupyter_sandbox.routes.websocket_messages import decode
from jupyter_sandbox.sandbox import file_models
from jupyter_sandbox.sandbox.answers import Answer
from jupyter_sandbox.sandbox.bash_kernel import _outcome
from jupyter_sandbox.sandbox.cell_reader import _parse as cell_record
from jupyter_sandbox.sandbox.cell_result import CellResult, error_line
from jupyter_sandbox.sandbox.file_errors import refine
from jupyter_sandbox.sandbox.kernel_messages import MessageError, read_message
from jupyter_sandbox.sandbox.link import GuestError
from jupyter_sandbox.sandbox.zmtp import ZmtpError, ZmtpFilter
from jupyter_sandbox.tools import registry
from jupyter_sandbox.tools.ansi import plain
from jupyter_sandbox.tools.bash import bash_result
from jupyter_sandbox.tools.notebook_cells import Cells
from jupyter_sandbox.tools.run import error_result
from jupyter_sandbox.tools.view_lines import lines_text

_SESSION = Session(key=b"k", digest_history_size=0)


def frames(data: bytes) -> None:
    """The framing of the guest's streams, fed in two pieces."""
    decoder = FrameDecoder(4096, 4096, check_json)
    with contextlib.suppress(FrameError):
        decoder.feed(data[: len(data) // 2])
        decoder.feed(data[len(data) // 2 :])
    assert decoder.waiting_bytes <= len(data)


def zmtp(data: bytes) -> None:
    """The filter of a kernel's stream, behind a valid greeting and as it is."""
    greeting = b"\xff" + b"\0" * 8 + b"\x7f\3\1" + b"NULL".ljust(20, b"\0") + b"\0" * 32
    for wire in (data, greeting + data):
        messages = ZmtpFilter(1000, 4)
        with contextlib.suppress(ZmtpError):
            passed = messages.feed(wire)
            assert len(passed) <= len(wire)
        assert messages.held_bytes <= 1000 + 9 * 5 + 64 * 1024


def structure(data: bytes) -> None:
    """The bounds of JSON: what they allow is parsed without a RecursionError."""
    try:
        check_json(data, 200, 30)
    except JsonBoundsError:
        return
    with contextlib.suppress(ValueError):
        json.loads(data)


def kernel_message(data: bytes) -> None:
    """A message that is signed as it should be, with any parts; then what is made of it."""
    parts = data.split(b"\0", 4)
    parts += [b"{}"] * (4 - len(parts))
    signed = [b"<IDS|MSG>", _SESSION.sign(parts[:4]), *parts]
    for each in (signed, data.split(b"\0")):
        try:
            message = read_message(_SESSION, each)
        except MessageError:
            continue
        result = CellResult(1000, lambda text: None)
        for kind in (message.msg_type, "stream", "display_data", "error"):
            result.add(kind, message.content, message.size)
        result.text.encode("utf-8")
        error_line(message.content).encode("utf-8")


def answers(data: bytes) -> None:
    """Answers of the file service and reports of a command, of any JSON."""
    try:
        check_json(data)
        value = json.loads(data)
    except (ValueError, RecursionError):
        return
    for read in (
        file_models.FileStat.from_answer,
        file_models.WriteResult.from_answer,
        lambda a: file_models.Listing.from_answer(a, 10),
        lambda a: lines_text("/x", file_models.LinesView.from_answer(a, b"x"), -1, 1000),
        lambda a: file_models.Edit.from_answer(a, b"x"),
        lambda a: file_models.Usage.from_answer(a, 5),
    ):
        with contextlib.suppress(Unavailable):
            read(Answer(value))
    error_result(refine(GuestError.from_answer(value))).content[0].text.encode("utf-8")
    if isinstance(value, dict):
        bash_result(_outcome("", 1.0, value), Limits()).content[0].text.encode("utf-8")


def output(data: bytes) -> None:
    """Text of a command: cut into pieces, bounded, made plain."""
    bounded = BoundedOutput(256)
    shown = bounded.feed(data[:99]) + bounded.feed(data[99:]) + bounded.finish()
    text = plain(shown)
    text.encode("utf-8")
    assert not any(ord(c) < 32 and c not in "\n\t" for c in text)
    Utf8Pieces().feed(data, final=True)


def pictures(data: bytes) -> None:
    """Types and sizes of files by their first bytes."""
    image_size(data)
    for name in ("a.svg", "a.mp3", "a"):
        media_of(name, data)


def cell_records(data: bytes) -> None:
    """A line of the records that a Python kernel keeps of its cells."""
    with contextlib.suppress(ValueError, UnicodeEncodeError):
        cell_record(data.decode("latin-1"))


def tool_calls(data: bytes) -> None:
    """The body of a call of any tool; of a request of the Model Context Protocol."""
    headers = {"MCP-Protocol-Version": "2026-07-28", "Mcp-Name": data[:60].decode("latin-1")}
    for each in ({}, headers):
        found = read_mcp(data, each)
        if isinstance(found, Refusal):
            json.dumps(found.to_json())
    with contextlib.suppress(JsonBoundsError, ValueError, RecursionError):
        check_json(data, 20_000, 100)
        body = json.loads(data)
        for name in (*registry.names(), str(body)):
            with contextlib.suppress(ToolError):
                registry.prepare(name, body, Limits())


def websocket(data: bytes) -> None:
    """A message of a client's websocket, in each of its forms; no part is longer than the whole."""
    for message, is_v1 in ((data, True), (data, False), (data.decode("latin-1"), False)):
        with contextlib.suppress(ValueError):
            _, _, parts = decode(message, is_v1)
            if is_v1:
                assert sum(map(len, parts)) <= len(data)


def headers(data: bytes) -> None:
    """Headers of a request."""
    text = data.decode("latin-1")
    with contextlib.suppress(Unsatisfiable):
        parse_range(text, 1000)
    has_already(text, '"x"')
    with contextlib.suppress(InvalidRequest):
        parse_content_digest(text)
    decode_header(text)
    source_of(text, "/x")


def form(data: bytes) -> None:
    """An upload as a form: its Content-Type, and its body in two pieces."""
    parse_options_header(data.decode("latin-1"))
    with contextlib.suppress(MultipartError):
        parser = PushMultipartParser("b", max_segment_count=40)
        half = len(data) // 2
        for piece in (data[:half], data[half:]):
            for _ in parser.parse(piece):
                pass
        parser.close()


def names(data: bytes) -> None:
    """The name of a file, and the header that a download gets of it."""
    name = data.decode("utf-8", "surrogateescape")
    decide_file_name(name)
    attachment(name).encode("latin-1")


def displays(data: bytes) -> None:
    """What a kernel wants to show, of each kind that is cleaned."""
    text = data.decode("utf-8", "replace")
    for kind in ("text/html", "text/markdown", "image/svg+xml", "image/png"):
        shown = safe_bundle({kind: text}).get("text/html", "")
        assert "<script" not in shown


def documents(data: bytes) -> None:
    """A notebook from a sandbox, read and written."""
    with contextlib.suppress(InvalidRequest):
        notebook = decode_notebook(data, False).partition(b"\n")[2]
        encode_notebook(notebook)


def contents(data: bytes) -> None:
    """A file as text or base64, read and written."""
    text, found = decode_file(data, None)
    assert encode_text(text, found) == data
    with contextlib.suppress(InvalidRequest):
        encode_text(data.decode("utf-8", "replace"), "base64")


def results(data: bytes) -> None:
    """The text of a result and of a user, in a notebook's cells."""
    text = data.decode("utf-8", "replace")
    call = {"tool": "bash", "call_id": "c", "description": text, "at": "", "arguments": {}}
    result = {
        "tool": "bash",
        "call_id": "c",
        "is_error": False,
        "content": [{"type": "text", "text": text}],
    }
    cells = Cells()
    for seq, message in enumerate(({**call, "type": "call"}, {**result, "type": "result"})):
        cells.add({**message, "seq": seq})
    cells.add({"type": "user", "seq": 3, "text": text})
    json.dumps(cells.cells)


def texts(data: bytes) -> None:
    """A text file in its preview, as it is shown without colours."""
    text_page("a.txt", text_of(data, whole=False), None, [], "")


def html_heads(data: bytes) -> None:
    """The beginning of an HTML file, where a line of script is put into it."""
    at, script = guard(data)
    assert 0 <= at <= len(data)
    assert script


def log_lines(data: bytes) -> None:
    """What somebody has written, in the server's log."""
    text = data.decode("utf-8", "surrogateescape")
    line = one_line(text)
    assert all(each == "\t" or unicodedata.category(each) != "Cc" for each in line)
    line.encode("utf-8")
    for line in block(text).split("\n")[1:]:
        assert not line or line[0].isspace()


def policy_text(data: bytes) -> None:
    """The policy that an administrator's browser sends."""
    with contextlib.suppress(PolicyTextError):
        parse_policy(data.decode("utf-8", "replace"))


TARGETS: dict[str, Callable[[bytes], None]] = {
    each.__name__: each
    for each in (
        *(frames, zmtp, structure, kernel_message, answers, output, pictures, cell_records),
        *(tool_calls, websocket, headers, form, names, displays, documents, contents, results),
        *(texts, html_heads, log_lines, policy_text),
    )
}

# Where a search begins: something of each kind that is nearly right.
CORPUS: dict[str, list[bytes]] = {
    "frames": [b"\0\0\0\2\0\0\0\0{}", b'\0\0\0\7\0\0\0\1{"a":1}x'],
    "zmtp": [b"\4\x19\5READY", b"\1\1a\0\1b", b"\2\0\0\0\0\0\0\0\1x"],
    "structure": [b'{"a":[1,2,{"b":"\\"["}]}', b"[[[[]]]]"],
    "kernel_message": [
        b'{"msg_type":"stream","version":"5.3"}\0{"msg_id":"x"}\0{}\0{"text":"a"}',
        b'{"msg_type":"error"}\0{}\0{}\0{"ename":"a","traceback":["b"]}',
    ],
    "answers": [
        b'{"path":"/x","kind":"file","size":1,"mode":420,"modified_at":1.5}',
        b'{"code":"no_match","message":"m","nearest":{"first_line":1,"text":"t"}}',
        b'{"exit_code":1,"cwd":"/","jobs":[{"pid":1,"name":"x"}],"killed":1}',
    ],
    "output": [b"\x1b[31ma\r\nb\rc\x08d\x1b]0;t\x07", b"\xf0\x9f\x98\x80\xff"],
    "cell_records": [b'["stream",{"name":"stdout","text":"a"}]', b'["execute_reply",{},{}]'],
    "tool_calls": [
        b'{"command":"ls","description":"why"}',
        b'{"path":"/a","old_str":"a","new_str":"b","view_range":[1,2],"x":1}',
        b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"bash","_meta":{}}}',
    ],
    "websocket": [
        b'{"channel":"shell","header":{"msg_id":"a"},"content":{}}',
        b"\0\0\0\1\0\0\0\x08" + b'{"header":{},"parent_header":{},"content":{"a":[1]}}',
        b"".join(n.to_bytes(8, "little") for n in (6, 56, 61, 63, 65, 67, 69)) + b"shell{}{}{}{}",
    ],
    "headers": [
        b"bytes=0-5",
        b'W/"a", "b"',
        b"sha-256=:YQ==:;a=b",
        b"=?base64?YQ==?=",
        b"[::1]:80",
    ],
    "form": [
        b'--b\r\nContent-Disposition: form-data; name="f"; filename="x"\r\n\r\nabc\r\n--b--\r\n',
        b'multipart/form-data; boundary="b"; a=\\"',
    ],
    "names": ["Bericht – März.xlsx".encode(), b"a/../\xff\xe2\x80\xaee\xcc\x81\xcc\xa3.txt"],
    "displays": [
        b"<div class=a><b>x</b></div>",
        b"a *b* [c](d)\n\n| a |\n|---|\n",
        b"iVBORw0KGgo=",
    ],
    "contents": [b"text", b"\xff\xfe", b"aGVsbG8=", b"aGVs\nbG8=\n"],
    "html_heads": [
        b"<!doctype html><p>x",
        b"\xef\xbb\xbf<!-- a --> <!DOCTYPE html>",
        b"\xff\xfe<\x00p\x00",
    ],
    "log_lines": [b"plain", b"\x1b[31mred\r\nforged", "\u202e\x9b".encode()],
    "documents": [
        b'{"nbformat":4,"nbformat_minor":5,"metadata":{},"cells":[{"cell_type":"code","id":"a",'
        b'"source":["x"],"metadata":{},"execution_count":1,"outputs":[{"output_type":"display_data",'
        b'"data":{"text/html":"<b>x</b>"},"metadata":{}}]}]}',
        b'{"nbformat":3,"worksheets":[{"cells":[]}]}',
    ],
    "results": ["out\n[exit code 0 · 1.5 s · cwd /]".encode(), b"# a\n<b>`x`</b>"],
    "texts": [b"a\r\n<b>\n", b"\xff\xfea\0\n\0", b"\xef\xbb\xbfa\xe4"],
    "policy_text": [b'{"grants":[{"src":{"users":["a"]},"enable_chat_ui":true}]}', b"{}\n// a"],
    "pictures": [
        b"<!-- --><?xml version='1'?><!DOCTYPE svg><svg ",
        b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\1\0\0\0\1",
        b"\xff\xd8\xff\xc0\0\x11\x08",
    ],
}


def mutated(random_: random.Random, seed: bytes) -> bytes:
    """Give a seed with some bytes changed, removed, doubled or added."""
    data = bytearray(seed)
    for _ in range(random_.randint(1, 6)):
        at = random_.randint(0, len(data))
        data[at : at + random_.randint(0, 3)] = random_.choice(
            [random_.randbytes(random_.randint(0, 4)), bytes(data[at : at + 8]), b'"', b"\\u", b"["]
        )
    return bytes(data)


def search(target: str, seconds: float) -> int:
    """Feed a target mutated seeds for so long; give how many."""
    random_ = random.Random(os.urandom(8))
    end, count = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        data = mutated(random_, random_.choice(CORPUS[target]))
        try:
            TARGETS[target](data)
        except BaseException:
            print(f"{target} fails on {data!r}", file=sys.stderr)
            raise
        count += 1
    return count


def _functions() -> Iterator[types.FunctionType]:
    """Give the functions that parse, ours alone: to instrument all takes longer than to search."""
    parsers = ("sandbox_guest.frames", "sandbox_guest.output", "jupyter_sandbox.sandbox")
    parsers += ("jupyter_sandbox.policy", "jupyter_sandbox.tools.ansi", "tests.fuzzing")
    for name, module in list(sys.modules.items()):
        if name.startswith(parsers):
            for value in vars(module).values():
                inner = vars(value).values() if isinstance(value, type) else [value]
                for each in inner:
                    if isinstance(each, types.FunctionType) and each.__module__ == name:
                        yield each


def _with_atheris(target: str, seconds: float) -> None:
    import atheris

    for function in list(_functions()):
        atheris.instrument_func(function)
    atheris.Setup(
        [sys.argv[0], f"-max_total_time={int(seconds)}", "-max_len=4096"], TARGETS[target]
    )
    atheris.Fuzz()


def main() -> None:
    """Run each target for its part of the time, in a process of its own for atheris."""
    seconds = float(sys.argv[1])
    names = sys.argv[2:] or list(TARGETS)
    for name in names:
        pid = os.fork()
        if pid == 0:
            try:
                _with_atheris(name, seconds / len(names))
            except ImportError:
                print(name, search(name, seconds / len(names)), "inputs")
            os._exit(0)
        if os.waitpid(pid, 0)[1]:
            raise SystemExit(f"{name} failed")


if __name__ == "__main__":
    main()
