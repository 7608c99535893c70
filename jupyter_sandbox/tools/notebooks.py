"""The export of a conversation as a notebook: nbformat 4.5, valid, of bounded size.

Messages come from the journal a page at a time; images from the calls' results, up to a bound. The
rule: cells are made and checked in a thread, and few notebooks at once.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import nbformat

from ..conversations.journal import Journal
from ..fair_turns import FairTurns, in_thread
from ..models import CallRecord, ConversationRecord, JsonValue, MessageRecord
from ..sandbox.kernel_manager import KERNEL_NAME, kernel_spec
from ..stores.call_records import CallRecords
from .notebook_cells import Cells, clean

_PAGE = 100
_MOST_IMAGE_CHARACTERS = 8 * 1024 * 1024
_AT_ONCE = 2
_OF_OWNER = 1
_WAITING = 8
_WAIT_SECONDS = 60.0

ToJson = Callable[[MessageRecord], dict[str, JsonValue]]


class Notebooks:
    """Makes the notebooks of all conversations."""

    def __init__(self, journal: Journal, calls: CallRecords) -> None:
        self._journal = journal
        self._calls = calls
        self._turns = FairTurns(
            "Notebooks that are exported",
            _AT_ONCE,
            of_owner=_OF_OWNER,
            waiting=_WAITING,
            wait_seconds=_WAIT_SECONDS,
        )

    def __repr__(self) -> str:
        return "<Notebooks>"

    async def export(self, record: ConversationRecord, to_json: ToJson) -> str:
        """Give the notebook of a conversation as it is now.

        Parameters
        ----------
        to_json : callable
            Gives a message as clients get it: its files with their addresses.

        Raises
        ------
        LimitExceeded
            429: too many of the owner's are exported, or wait, already.
        """
        async with self._turns.turn(record.owner):
            cells, after, left = Cells(), 0, _MOST_IMAGE_CHARACTERS
            while True:
                page = await self._journal.page(record.conversation_id, after, _PAGE)
                if not page.messages:
                    break
                if not after and page.first > 1:
                    cells.add_gap(page.first - 1)
                found: list[tuple[dict[str, JsonValue], list[dict[str, JsonValue]]]] = []
                for message in page.messages:
                    images = await self._images(record.conversation_id, message, left)
                    left -= sum(len(str(image.get("data", ""))) for image in images)
                    found.append((to_json(message), images))
                await in_thread(_add_all, cells, found)
                after = page.messages[-1].seq
            return await in_thread(_write, record, cells)

    async def _images(
        self, conversation_id: str, message: MessageRecord, left: int
    ) -> list[dict[str, JsonValue]]:
        """Give the images of a result, as many as there is room for; they are in the call."""
        content = message.body.get("content")
        if message.kind != "result" or not isinstance(content, list) or not _images_of(content):
            return []
        call = await self._calls.get(conversation_id, str(message.body["call_id"]))
        if call is None or call.result is None:
            return [{**image, "kept": False} for image in _images_of(content)]
        parts = await in_thread(_parts_of, call)
        images: list[dict[str, JsonValue]] = []
        for image in _images_of(parts):
            left -= len(str(image.get("data", "")))
            if left < 0:
                break
            images.append(image if "data" in image else {**image, "kept": False})
        return images


def _parts_of(call: CallRecord) -> JsonValue:
    """Give the parts of a call's result, which may have to be decoded first."""
    return (call.result or {}).get("content")


def _images_of(content: JsonValue) -> list[dict[str, JsonValue]]:
    parts = content if isinstance(content, list) else []
    return [part for part in parts if isinstance(part, dict) and part.get("type") == "image"]


def _add_all(
    cells: Cells, found: list[tuple[dict[str, JsonValue], list[dict[str, JsonValue]]]]
) -> None:
    for message, images in found:
        cells.add(message, images)


def _write(record: ConversationRecord, cells: Cells) -> str:
    spec = kernel_spec()
    notebook: Mapping[str, Any] = {
        "nbformat": 4,
        "nbformat_minor": 5,
        "metadata": {
            "kernelspec": {
                "name": KERNEL_NAME,
                "display_name": spec.display_name,
                "language": spec.language,
            },
            "language_info": {"name": "python"},
            "title": clean(record.title),
            "jupyter_sandbox": {"conversation_id": record.conversation_id},
        },
        "cells": cells.cells,
    }
    nbformat.validate(notebook, relax_add_props=False)
    return json.dumps(notebook, ensure_ascii=False, indent=1)
