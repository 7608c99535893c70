"""Files as Jupyter's models and back: text and base64.

Pure, but slow for large files: callers use a thread. The rule: what cannot be read is the caller's
to know (400), never a bug. Notebooks are read and written by a worker (``previews.notebooks``).
"""

from __future__ import annotations

import base64
import binascii
from typing import Any, Literal

from ...errors import InvalidRequest
from .area import Node

Model = dict[str, Any]
Format = Literal["text", "base64"]


def to_model(node: Node, kind: str | None = None) -> Model:
    """Give the model of a file or a folder, without its content.

    Parameters
    ----------
    kind : str, optional
        ``file`` or ``notebook``; without it the name says.
    """
    if node.is_folder:
        kind = "directory"
    elif kind is None:
        kind = "notebook" if node.name.endswith(".ipynb") else "file"
    return {
        "name": node.name,
        "path": node.path,
        "type": kind,
        "writable": node.is_writable,
        "created": node.created_at,
        "last_modified": node.modified_at,
        "mimetype": node.media_type if kind == "file" else None,
        "size": node.size_bytes,
        "content": None,
        "format": None,
        "hash": None,
        "hash_algorithm": None,
    }


def decode_file(data: bytes, wanted: Format | None) -> tuple[str, Format]:
    """Give a file's contents and their format: what was wanted, or text if it is UTF-8."""
    if wanted != "base64":
        try:
            return data.decode("utf-8"), "text"
        except UnicodeDecodeError as exc:
            if wanted == "text":
                raise InvalidRequest("The file is not text in UTF-8.", status=400) from exc
    return base64.b64encode(data).decode("ascii"), "base64"


def encode_text(content: str, wanted: object) -> bytes:
    """Give the bytes of a content in the format that is named."""
    try:
        if wanted == "text":
            return content.encode("utf-8")
        if wanted == "base64":
            # Line ends are usual in it and mean nothing; other characters are mistakes.
            return base64.b64decode("".join(content.split()), validate=True)
    except (UnicodeEncodeError, binascii.Error, ValueError) as exc:
        raise InvalidRequest(f"content: is not {wanted}.", status=400) from exc
    raise InvalidRequest("format: must be text or base64.", status=400)
