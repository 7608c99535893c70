"""``jupyter sandbox list|show|suspend|terminate``: the sandboxes of the server that runs.

They ask its REST API as whoever the token belongs to: owners manage theirs, administrators all.
"""

from __future__ import annotations

import json
import os
import sys
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

from jupyter_server.utils import url_path_join
from traitlets import Bool, Unicode

from .running_server import find_server
from .strict_app import StrictApp

_SECONDS = 120.0
_COLUMNS = ("id", "state", "owner", "engine", "used_at", "calls_running")


class _SandboxesApp(StrictApp):
    """Base: asks the server."""

    url = Unicode(
        help="The Jupyter Server, http://host:port/base. Default: the one that this user runs."
    ).tag(config=True)
    as_json = Bool(False, help="Print JSON.").tag(config=True)
    takes = "ID"

    def start(self) -> None:
        """Do it; exit with 1 and the reason if that cannot be."""
        super().start()
        if len(self.extra_args) != bool(self.takes):
            self._fail(
                f"usage: jupyter sandbox {self.name.rpartition('-')[2]} {self.takes}".strip()
            )
        self.do(*self.extra_args)

    def do(self, conversation_id: str = "") -> None:
        """Do what the command is for."""
        raise NotImplementedError

    def ask(self, method: str, path: str) -> dict[str, Any]:
        """Give the server's answer; exits with 1 when it is an error."""
        try:
            url, token = find_server(self.url, os.environ.get("JUPYTER_TOKEN", ""))
        except LookupError as exc:
            self._fail(str(exc))
        request = urllib.request.Request(
            url_path_join(url, "sandbox/api", path),
            method=method,
            headers={"Authorization": f"token {token}"},
        )
        try:
            with urllib.request.urlopen(request, timeout=_SECONDS) as response:
                shape: dict[str, Any] = json.loads(response.read())
        except urllib.error.HTTPError as exc:
            self._fail(_message(exc.read(), exc.code))
        except (OSError, ValueError) as exc:
            self._fail(f"the Jupyter Server cannot be reached: {exc}")
        return shape

    def show(self, shape: dict[str, Any]) -> None:
        """Print one sandbox."""
        if self.as_json:
            print(json.dumps(shape))
            return
        for name, value in shape.items():
            print(f"{name:<14} {'-' if value is None else value}")

    def _fail(self, why: str) -> None:
        print(why, file=sys.stderr)
        self.exit(1)


class ListApp(_SandboxesApp):
    """List the sandboxes, last used first; with --all those of all users."""

    name = "jupyter-sandbox-list"
    description = __doc__ or ""
    takes = ""
    everybody = Bool(False, help="Those of all users; for administrators.").tag(config=True)
    aliases = {"url": "ListApp.url"}  # noqa: RUF012
    flags = {  # noqa: RUF012
        "all": ({"ListApp": {"everybody": True}}, "Those of all users; for administrators."),
        "json": ({"ListApp": {"as_json": True}}, "Print JSON."),
    }

    def do(self, conversation_id: str = "") -> None:
        """Print them."""
        answer = self.ask("GET", "sandboxes?all=1" if self.everybody else "sandboxes")
        if self.as_json:
            print(json.dumps(answer))
            return
        rows = [_COLUMNS, *([str(s[c]) for c in _COLUMNS] for s in answer["sandboxes"])]
        widths = [max(len(row[at]) for row in rows) for at in range(len(_COLUMNS))]
        for row in rows:
            cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            print("  ".join(cells).rstrip())
        if answer["left_out"]:
            print(f"and {answer['left_out']} more")


class ShowApp(_SandboxesApp):
    """Show the sandbox of the conversation with this id."""

    name = "jupyter-sandbox-show"
    description = __doc__ or ""
    aliases = {"url": "ShowApp.url"}  # noqa: RUF012
    flags = {"json": ({"ShowApp": {"as_json": True}}, "Print JSON.")}  # noqa: RUF012

    def do(self, conversation_id: str = "") -> None:
        """Print it."""
        self.show(self.ask("GET", f"sandboxes/{urllib.parse.quote(conversation_id, safe='')}"))


class _VerbApp(_SandboxesApp):
    """Base of those that change a sandbox."""

    verb = ""

    def do(self, conversation_id: str = "") -> None:
        """Change it, and print how it is now."""
        quoted = urllib.parse.quote(conversation_id, safe="")
        self.show(self.ask("POST", f"conversations/{quoted}/{self.verb}"))


class SuspendApp(_VerbApp):
    """Let the sandbox of a conversation stand still; nothing is lost, the next use wakes it."""

    name = "jupyter-sandbox-suspend"
    description = __doc__ or ""
    verb = "suspend"
    aliases = {"url": "SuspendApp.url"}  # noqa: RUF012
    flags = {"json": ({"SuspendApp": {"as_json": True}}, "Print JSON.")}  # noqa: RUF012


class TerminateApp(_VerbApp):
    """End the sandbox of a conversation with all that runs in it; uploads and shared files stay."""

    name = "jupyter-sandbox-terminate"
    description = __doc__ or ""
    verb = "terminate"
    aliases = {"url": "TerminateApp.url"}  # noqa: RUF012
    flags = {"json": ({"TerminateApp": {"as_json": True}}, "Print JSON.")}  # noqa: RUF012


def _message(body: bytes, status: int) -> str:
    try:
        return str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError):
        return f"the Jupyter Server answered {status}"
