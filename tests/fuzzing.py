"""Everything that parses bytes from inside, as targets for a fuzzer: none may raise but what it says.

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
from collections.abc import Callable, Iterator

from jupyter_client.session import Session
from sandbox_guest.frames import FrameDecoder, FrameError
from sandbox_guest.output import BoundedOutput, Utf8Pieces

from jupyter_sandbox.errors import Unavailable
from jupyter_sandbox.models import Limits
from jupyter_sandbox.policy.image_size import image_size
from jupyter_sandbox.policy.media import media_of
from jupyter_sandbox.sandbox import file_models
from jupyter_sandbox.sandbox.answers import Answer
from jupyter_sandbox.sandbox.bash_kernel import _outcome
from jupyter_sandbox.sandbox.cell_result import CellResult, error_line
from jupyter_sandbox.sandbox.file_errors import refine
from jupyter_sandbox.sandbox.json_bounds import JsonBoundsError, check_json
from jupyter_sandbox.sandbox.kernel_messages import MessageError, read_message
from jupyter_sandbox.sandbox.link import GuestError
from jupyter_sandbox.sandbox.zmtp import ZmtpError, ZmtpFilter
from jupyter_sandbox.tools.ansi import plain
from jupyter_sandbox.tools.bash import bash_result
from jupyter_sandbox.tools.run import error_result

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
        lambda a: file_models.LinesView.from_answer(a, b"x"),
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


TARGETS: dict[str, Callable[[bytes], None]] = {
    each.__name__: each
    for each in (frames, zmtp, structure, kernel_message, answers, output, pictures)
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
    "pictures": [b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\1\0\0\0\1", b"\xff\xd8\xff\xc0\0\x11\x08"],
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
