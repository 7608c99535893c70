"""A private Linux machine for every conversation with an AI assistant, served by Jupyter Server."""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"


def _jupyter_server_extension_points() -> list[dict[str, Any]]:
    from .app import SandboxApp

    return [{"module": "jupyter_sandbox", "app": SandboxApp}]
