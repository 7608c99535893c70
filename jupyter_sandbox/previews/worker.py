"""The program that reads hostile documents: ``python -m jupyter_sandbox.previews.worker``.

Its stdin and stdout are one socket to the server. A request is a line of JSON (``kind``, ``name``,
``size_bytes``) and so many bytes; an answer is a line of JSON (``end``, ``size_bytes``) and so many
bytes. Each document is read by a forked child with bounds of its own, so that no document changes
how the next one, perhaps another user's, is read, and the modules are imported once. It is a
process of its own because a regular expression that goes astray holds the interpreter's lock: in a
thread it would stop the whole server. It has no secrets and may be killed at any time.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import sys
from typing import BinaryIO

from ..errors import InvalidRequest

CPU_SECONDS = 3
MEMORY_BYTES = 1024**3

DONE, NOTHING_BETTER, REFUSED = 0, 3, 4
"""How a child ends: its output is the answer; the document as it is; a sentence for the user."""


def render(kind: str, name: str, data: bytes) -> bytes | None:
    """Give what is shown of a document; None if there is nothing better than itself."""
    if kind == "notebook":
        from .notebooks import decode_notebook

        return decode_notebook(data, trust_outputs=name == "trusted")
    if kind == "save":
        from .notebooks import encode_notebook

        return encode_notebook(data)
    text = data.decode("utf-8")
    if kind == "display":
        from ..policy.displays import ToClean, clean

        html = clean(ToClean("markdown" if name == "markdown" else "html", text))
    elif kind == "markdown":
        from .markdown import render_markdown

        html = render_markdown(text)
    elif kind == "html":
        from .sanitizing import sanitize_page

        html = sanitize_page(text)
    else:
        from .highlighting import highlight_file

        html = highlight_file(name, text)
    return None if html is None else html.encode("utf-8", "replace")


def main() -> int:
    """Answer requests until the server closes the socket."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    _prepare()
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    while line := requests.readline():
        request = json.loads(line)
        data = requests.read(request["size_bytes"])
        end, answer = _in_child(request["kind"], request["name"], data)
        answers.write(json.dumps({"end": end, "size_bytes": len(answer)}).encode() + b"\n")
        answers.write(answer)
        answers.flush()
    return 0


def _prepare() -> None:
    """Import and build what the children need: each would do it again."""
    from ..policy import displays  # noqa: F401
    from . import highlighting, markdown, notebooks, sanitizing  # noqa: F401

    notebooks.prepare()
    gc.collect()
    gc.freeze()  # the children share the pages


def _in_child(kind: str, name: str, data: bytes) -> tuple[int, bytes]:
    """Give how the child ended (below 0: by a signal), and what it wrote."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        end = 1
        try:
            os.close(reader)
            with open(writer, "wb") as output:
                end = _answer(kind, name, data, output)
        finally:
            os._exit(end)
    os.close(writer)
    with open(reader, "rb") as output:
        answer = output.read()
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), answer


def _answer(kind: str, name: str, data: bytes, output: BinaryIO) -> int:
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    try:
        answer = render(kind, name, data)
    except InvalidRequest as exc:
        output.write(exc.message.encode())
        return REFUSED
    if answer is None:
        return NOTHING_BETTER
    output.write(answer)
    return DONE


if __name__ == "__main__":
    sys.exit(main())
