"""Files as Jupyter's models and back: text, base64, notebooks.

Pure, but slow for large files: callers use a thread. The rule: nothing of a file is believed. A
notebook's cells are never trusted, whatever it says of itself, because its outputs may come from
inside a sandbox; what cannot be read is the caller's to know (400), never a bug.
"""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any, Literal

import nbformat

from ...errors import InvalidRequest
from ...policy.displays import html_weight, safe_bundle, safe_metadata
from .area import Node

Model = dict[str, Any]
Format = Literal["text", "base64"]

_MESSAGE_CHARACTERS = 1000
_HTML_CHARACTERS = 4 * 1024 * 1024  # that are cleaned in one notebook


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


def decode_notebook(data: bytes, trust_outputs: bool = False) -> tuple[Model, str | None]:
    """Give a notebook, and what is wrong with it if it can be read but is not valid.

    Without trust its stored outputs are held to what a kernel inside may show: JupyterLab renders
    some of what it does not trust (Vega, pictures from elsewhere), and others hear of its reader.
    """
    problems: dict[str, Any] = {}
    room = _HTML_CHARACTERS
    try:
        notebook = nbformat.reads(  # type: ignore[no-untyped-call]
            data.decode("utf-8"), as_version=4, capture_validation_error=problems
        )
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.metadata["trusted"] = False
                if not trust_outputs:
                    room -= _make_safe(cell, room)
    except (Exception, RecursionError) as exc:  # of a library that reads what anybody wrote
        raise InvalidRequest("The file is no notebook that can be read.", status=400) from exc
    return notebook, _said(problems)


def _make_safe(cell: Any, room: int) -> int:
    """Clean a cell's displays; give how much there was to clean. Beyond the room text stays."""
    used = 0
    for output in cell.outputs:
        if output.output_type not in ("display_data", "execute_result"):
            continue
        used += html_weight(output.data)
        data = dict(output.data)
        if used > room:
            for kind in ("text/html", "text/markdown"):
                data.pop(kind, None)
        metadata = safe_metadata(output.metadata)
        output.data = nbformat.from_dict(safe_bundle(data))  # type: ignore[no-untyped-call]
        output.metadata = nbformat.from_dict(metadata)  # type: ignore[no-untyped-call]
    return used


def encode_document(model: Model) -> tuple[bytes, str | None]:
    """Give the bytes of a model that is saved, and what is wrong with a notebook.

    Raises
    ------
    InvalidRequest
        400: the content does not fit type or format.
    """
    kind, content = model.get("type"), model.get("content")
    if kind == "notebook":
        return _encode_notebook(content)
    if kind != "file":
        raise InvalidRequest("type: must be file, notebook or directory.", status=400)
    if not isinstance(content, str):
        raise InvalidRequest("content: must be a string.", status=400)
    return encode_text(content, model.get("format")), None


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


def _encode_notebook(content: object) -> tuple[bytes, str | None]:
    if not isinstance(content, dict) or content.get("nbformat") != nbformat.current_nbformat:
        raise InvalidRequest("content: must be a notebook.", status=400)
    problems: dict[str, Any] = {}
    try:
        text = nbformat.writes(  # type: ignore[no-untyped-call]
            nbformat.from_dict(content),  # type: ignore[no-untyped-call]
            nbformat.NO_CONVERT,
            capture_validation_error=problems,
        )
        return text.encode("utf-8"), _said(problems)
    except (Exception, RecursionError) as exc:
        raise InvalidRequest("content: is no notebook that can be written.", status=400) from exc


def _said(problems: dict[str, Any]) -> str | None:
    error = problems.get("ValidationError")
    if error is None:
        return None
    what = str(getattr(error, "message", error))[:_MESSAGE_CHARACTERS]
    where = json.dumps(list(getattr(error, "absolute_path", ())), default=str)
    return f"Notebook validation failed: {what} (at {where[:_MESSAGE_CHARACTERS]})"
