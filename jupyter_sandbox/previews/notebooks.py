"""Notebook files as they may be shown, and back. Part of the worker.

The rule: nothing of a file is believed. A notebook's cells are never trusted, whatever it says of
itself, because its outputs may come from inside a sandbox; what cannot be read is refused with a
sentence. Displays whose cleaning takes too long are left out, and the notebook opens all the same.
"""

from __future__ import annotations

import contextlib
import json
import signal
from collections.abc import Iterator
from typing import Any

import nbformat

from ..errors import InvalidRequest
from ..policy.displays import (
    ToClean,
    clean,
    html_weight,
    prepared_bundle,
    safe_metadata,
    with_cleaned,
)

_MESSAGE_CHARACTERS = 1000
_HTML_CHARACTERS = 4 * 1024 * 1024  # that are cleaned in one notebook
_CLEANING_SECONDS = 1.0  # of processor time, for all displays of a notebook


class _TimeUp(Exception):
    """The time for cleaning is used up."""


class _Cleaner:
    """Cleans the displays of one notebook within its time."""

    def __init__(self) -> None:
        self._left = _CLEANING_SECONDS

    def clean(self, given: ToClean) -> str | None:
        """Give the HTML; None if there was no time for it."""
        if self._left <= 0:
            return None
        try:
            with self._counted():
                return clean(given)
        except _TimeUp:
            return None

    @contextlib.contextmanager
    def _counted(self) -> Iterator[None]:
        """Raise ``_TimeUp`` in Python code of the body that takes longer than what is left."""
        signal.setitimer(signal.ITIMER_VIRTUAL, self._left)
        try:
            yield
        finally:
            self._left, _ = signal.setitimer(signal.ITIMER_VIRTUAL, 0)


def prepare() -> None:
    """Build the validators of the usual minor versions, which ``nbformat`` keeps."""
    for minor in (2, 4, 5):
        empty: dict[str, Any] = {
            "nbformat": 4,
            "nbformat_minor": minor,
            "metadata": {},
            "cells": [],
        }
        nbformat.validate(empty)


def decode_notebook(data: bytes, trust_outputs: bool) -> bytes:
    """Give two lines of JSON: what is not valid of a notebook, or null, and the notebook.

    Without trust its stored outputs are held to what a kernel inside may show: JupyterLab renders
    some of what it does not trust (Vega, pictures from elsewhere), and others hear of its reader.
    """
    problems: dict[str, Any] = {}
    signal.signal(signal.SIGVTALRM, _time_up)
    room, cleaner = _HTML_CHARACTERS, _Cleaner()
    try:
        notebook = nbformat.reads(  # type: ignore[no-untyped-call]
            data.decode("utf-8"), as_version=4, capture_validation_error=problems
        )
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.metadata["trusted"] = False
                if not trust_outputs:
                    room -= _make_safe(cell, room, cleaner)
        return f"{json.dumps(_said(problems))}\n{json.dumps(notebook)}".encode()
    except (Exception, RecursionError) as exc:  # of a library that reads what anybody wrote
        raise InvalidRequest("The file is no notebook that can be read.", status=400) from exc


def encode_notebook(data: bytes) -> bytes:
    """Give what is not valid of a notebook that came as JSON, a line, and then its file."""
    problems: dict[str, Any] = {}
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict) or content.get("nbformat") != nbformat.current_nbformat:
        raise InvalidRequest("content: must be a notebook.", status=400)
    try:
        text: str = nbformat.writes(  # type: ignore[no-untyped-call]
            nbformat.from_dict(content),  # type: ignore[no-untyped-call]
            nbformat.NO_CONVERT,
            capture_validation_error=problems,
        )
        return json.dumps(_said(problems)).encode() + b"\n" + text.encode("utf-8")
    except (Exception, RecursionError) as exc:
        raise InvalidRequest("content: is no notebook that can be written.", status=400) from exc


def _make_safe(cell: Any, room: int, cleaner: _Cleaner) -> int:
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
        bundle = with_cleaned(prepared_bundle(data), cleaner.clean)
        output.data = nbformat.from_dict(bundle)  # type: ignore[no-untyped-call]
        output.metadata = nbformat.from_dict(metadata)  # type: ignore[no-untyped-call]
    return used


def _said(problems: dict[str, Any]) -> str | None:
    error = problems.get("ValidationError")
    if error is None:
        return None
    what = str(getattr(error, "message", error))[:_MESSAGE_CHARACTERS]
    where = json.dumps(list(getattr(error, "absolute_path", ())), default=str)
    return f"Notebook validation failed: {what} (at {where[:_MESSAGE_CHARACTERS]})"


def _time_up(_number: int, _frame: object) -> None:
    raise _TimeUp
