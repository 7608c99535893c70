"""A line of script before a previewed page's own: it cannot put something on the user's clipboard.

``Permissions-Policy`` closes the clipboard's interface, but browsers have no switch for the old
``document.execCommand('copy')``, which works in any frame that was just clicked. So the page gets
one that refuses. What remains: a frame that the page makes has a command of its own.

The rule: nothing of the page runs before the line, and it does not change how the page is shown:
it comes after a doctype, without which the page would be laid out as in the nineties.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import AsyncGenerator

# What it uses is taken before the page can change it, and the name is asked for once.
_SCRIPT = (
    "<script>{const{apply}=Reflect,{execCommand:own}=Document.prototype,"
    "{toLowerCase:low}=String.prototype;"
    "Object.defineProperty(Document.prototype,'execCommand',{value(name,...rest){"
    "name=apply(low,`${name}`,[]);"
    "return name!='copy'&&name!='cut'&&apply(own,this,[name,...rest])}});"
    "document.currentScript.remove()}</script>"
)
_LOOK_BYTES = 4096
_UTF_16 = {codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}
# A doctype ends at the first ">", whatever stands in it; so does a comment that has none before its
# end. Anything else could hold a script. No escape characters: after them a ">" may be half of a
# Japanese character (ISO-2022-JP).
_BEFORE = re.compile(
    r"\ufeff?(?:[ \t\n\f\r]|<!--(?!-?>)[^>\x0e\x0f\x1b]*--!?>)*(?:<!doctype[^>\x0e\x0f\x1b]*>)?",
    re.IGNORECASE,
)


def guard(head: bytes) -> tuple[int, bytes]:
    """Give where in a page that begins with ``head`` the script goes, and its bytes there."""
    encoding = _UTF_16.get(head[:2])
    if encoding is None:
        # Each byte one character: where the tags are is the same in all other encodings.
        found = _BEFORE.match(head.removeprefix(codecs.BOM_UTF8).decode("latin-1"))
        bom = len(codecs.BOM_UTF8) if head.startswith(codecs.BOM_UTF8) else 0
        return bom + _end(found), _SCRIPT.encode("ascii")
    text = head.decode(encoding, "replace")
    return len(text[: _end(_BEFORE.match(text))].encode(encoding)), _SCRIPT.encode(encoding)


def _end(found: re.Match[str] | None) -> int:
    return found.end() if found is not None else 0


def guarded_size(size_bytes: int, head: bytes) -> int:
    """Give the size of the page with the script in it."""
    return size_bytes + len(guard(head)[1])


async def guarded(pieces: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    """Give the page with the script in it."""
    head = bytearray()
    done = False
    try:
        async for piece in pieces:
            if done:
                yield piece
                continue
            head += piece
            if len(head) >= _LOOK_BYTES:
                done = True
                yield _insert(bytes(head))
        if not done:
            yield _insert(bytes(head))
    finally:
        await pieces.aclose()


def _insert(head: bytes) -> bytes:
    at, script = guard(head[:_LOOK_BYTES])
    return head[:at] + script + head[at:]
