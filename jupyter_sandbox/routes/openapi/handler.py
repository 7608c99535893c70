"""Serves the document, with this server's address and version."""

from __future__ import annotations

import asyncio
import functools
from importlib.metadata import version
from importlib.resources import files
from typing import Any

import yaml

from ..base import SandboxHandler, endpoint


class OpenApiHandler(SandboxHandler):
    """The OpenAPI document; the same for every caller."""

    _track_activity = False
    needs_access = False  # it is part of the documentation

    @endpoint
    async def get(self) -> None:
        """Give it."""
        found = await asyncio.to_thread(document)  # parsing it takes a while, once
        self.answer({**found, "servers": [{"url": self.base_url.rstrip("/") or "/"}]})


@functools.cache
def document() -> dict[str, Any]:
    """Give the document as the package has it; read once."""
    text = files(__package__).joinpath("openapi.yaml").read_text(encoding="utf-8")
    found: dict[str, Any] = yaml.safe_load(text)
    found["info"]["version"] = version("jupyter_sandbox")
    return found
