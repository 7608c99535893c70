"""The program that reads hostile text: ``python -m jupyter_sandbox.previews.worker``.

A line of JSON (``kind``, ``name``) and then the text on stdin; HTML on stdout. It is a process of
its own because a regular expression that goes astray holds the interpreter's lock: in a thread it
would stop the whole server. It has no secrets, bounds itself, and may be killed at any time.
"""

from __future__ import annotations

import json
import resource
import sys

CPU_SECONDS = 3
MEMORY_BYTES = 1024**3


def render(kind: str, name: str, text: str) -> str | None:
    """Give the HTML; None if there is nothing better than the text itself."""
    if kind == "markdown":
        from .markdown import render_markdown

        return render_markdown(text)
    if kind == "html":
        from .sanitizing import sanitize_page

        return sanitize_page(text)
    from .highlighting import highlight_file

    return highlight_file(name, text)


def main() -> int:
    """Read, render, write; 0 when it was done, 3 when the text itself is the best."""
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    request = json.loads(sys.stdin.buffer.readline())
    text = sys.stdin.buffer.read().decode("utf-8")
    html = render(request["kind"], request["name"], text)
    if html is None:
        return 3
    sys.stdout.buffer.write(html.encode("utf-8", "replace"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
