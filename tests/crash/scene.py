"""What a user has done and was told, and whether all of it is still true.

For each conversation: what was acknowledged (it must be there), what was begun and not acknowledged
(it must be there whole, or not at all), and what runs in its sandbox. Knows the API, no engine.
"""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass, field
from typing import Any

from .site import ServerDied, Site

OUTPUTS = "/mnt/user-data/outputs"
UPLOADS = "/mnt/user-data/uploads"
NEXT_CALL_SECONDS = 45.0


@dataclass
class Talk:
    """One conversation.

    Attributes
    ----------
    uploads, shares : dict
        By name what may be there: bytes, or None for no such file. More than one when a change was
        not acknowledged.
    value : int or None
        Of the variable ``kept`` in the Python kernel; None when none was set.
    sandbox_id : str
        Of the sandbox that has it.
    may_end : bool
        Somebody has asked for the end of the sandbox.
    may_go : bool
        Somebody has asked for the end of the conversation.
    calls : list of str
        Calls whose ids were given out.
    """

    conversation_id: str
    uploads: dict[str, set[bytes | None]] = field(default_factory=dict)
    shares: dict[str, set[bytes | None]] = field(default_factory=dict)
    value: int | None = None
    sandbox_id: str = ""
    may_end: bool = False
    may_go: bool = False
    calls: list[str] = field(default_factory=list)


class Scene:
    """The conversations of a site."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.talks: list[Talk] = []
        self._count = 0

    # What users do; what is acknowledged is written down here after the answer.

    def new(self) -> Talk:
        """Give a new conversation."""
        talk = Talk(self.site.json("POST", "conversations", {})["id"])
        self.talks.append(talk)
        return talk

    def lived_in(self) -> Talk:
        """Give a conversation with a sandbox, a variable, an upload and a share; an old one if any."""
        for talk in self.talks:
            if talk.value is not None and not talk.may_end and not talk.may_go:
                return talk
        talk = self.new()
        self.upload(talk, "data.bin", self.some_bytes())
        self.share(talk, "result.bin", "seed.bin")
        self.set_value(talk)
        return talk

    def some_bytes(self, size: int = 1_500_000) -> bytes:
        """Give bytes that no other call gives; more than the vault writes at once."""
        self._count += 1
        block = hashlib.sha256(f"{self.site.base}{self._count}".encode()).digest()
        return block * (size // len(block))

    def call(self, talk: Talk, tool: str, **arguments: Any) -> dict[str, Any]:
        """Call a tool; give its result."""
        path = f"conversations/{talk.conversation_id}/tools/{tool}"
        result: dict[str, Any] = self.site.json("POST", path, arguments)
        return result

    def text(self, talk: Talk, tool: str, **arguments: Any) -> str:
        """Call a tool that must work; give its text."""
        result = self.call(talk, tool, **arguments)
        text = "\n".join(part["text"] for part in result["content"] if part["type"] == "text")
        assert not result["is_error"], f"{text}\n{self.site.last_words()}"
        return text

    def begin(self, talk: Talk, tool: str, **arguments: Any) -> str:
        """Begin a call and give its id; it goes on."""
        path = f"conversations/{talk.conversation_id}/tools/{tool}?wait=0"
        call_id: str = self.site.json("POST", path, arguments)["call_id"]
        talk.calls.append(call_id)
        return call_id

    def set_value(self, talk: Talk) -> None:
        """Set the variable in the Python kernel."""
        self._count += 1
        self.text(talk, "python", code=f"kept = {self._count}")
        talk.value, talk.sandbox_id = self._count, self.row(talk)["sandbox_id"]

    def upload(self, talk: Talk, name: str, data: bytes) -> None:
        """Upload a file."""
        before = talk.uploads.get(name, {None})
        talk.uploads[name] = before | {data}
        self._ask("PUT", f"conversations/{talk.conversation_id}/uploads/{name}", data)
        talk.uploads[name] = {data}

    def delete_upload(self, talk: Talk, name: str) -> None:
        talk.uploads[name] = talk.uploads[name] | {None}
        self._ask("DELETE", f"conversations/{talk.conversation_id}/uploads/{name}")
        talk.uploads[name] = {None}

    def rename_upload(self, talk: Talk, name: str, to: str) -> None:
        """Rename a file, as a file browser does."""
        held = talk.uploads[name]
        talk.uploads[name], talk.uploads[to] = held | {None}, held | {None}
        path = f"{talk.conversation_id}/api/contents/uploads/{name}"
        self._ask("PATCH", path, {"path": f"uploads/{to}"}, "/sandbox/c/")
        talk.uploads[name], talk.uploads[to] = {None}, held

    def share(self, talk: Talk, name: str, word: str) -> None:
        """Write a file of a megabyte and a half and share it."""
        block = hashlib.sha256(word.encode()).hexdigest()
        write = f"python3 -c \"open('{OUTPUTS}/{name}', 'w').write('{block}' * 24000)\""
        self.text(talk, "bash", command=write)
        data = block.encode() * 24000
        talk.shares[name] = talk.shares.get(name, {None}) | {data}
        self.text(talk, "share_files", paths=[f"{OUTPUTS}/{name}"])
        talk.shares[name] = {data}

    def remove_share(self, talk: Talk, name: str) -> None:
        """Remove a shared file, as a file browser does."""
        talk.shares[name] = talk.shares[name] | {None}
        self._ask(
            "DELETE", f"{talk.conversation_id}/api/contents/outputs/{name}", None, "/sandbox/c/"
        )
        talk.shares[name] = {None}

    def by_hand(self, talk: Talk, verb: str) -> None:
        """Suspend, wake or terminate."""
        if verb == "terminate":
            talk.may_end = True
        self.site.json("POST", f"conversations/{talk.conversation_id}/{verb}")

    def delete(self, talk: Talk) -> None:
        """Delete a conversation."""
        talk.may_go = talk.may_end = True
        self.site.json("DELETE", f"conversations/{talk.conversation_id}")
        self.talks.remove(talk)

    # Whether it is true

    def check(self) -> float:
        """Compare with what users were told; the server has been started again.

        Gives how long the next call took, in seconds: the longest of all conversations.
        """
        longest = 0.0
        for talk in list(self.talks):
            if self._is_gone(talk):
                self.talks.remove(talk)
                continue
            self._check_files(talk, "uploads", talk.uploads)
            self._check_files(talk, "shares", talk.shares)
            longest = max(longest, self._check_next_call(talk))
            self._check_calls(talk)
        return longest

    def tidy(self) -> None:
        """Delete the conversations that the next action has no use for."""
        for talk in [talk for talk in self.talks if talk.value is None or talk.may_go]:
            self.delete(talk)

    def row(self, talk: Talk) -> Any:
        """Give the row of a conversation."""
        query = f"SELECT * FROM conversations WHERE conversation_id = '{talk.conversation_id}'"
        return self.site.rows(query)[0]

    def model(self, talk: Talk) -> dict[str, Any]:
        model: dict[str, Any] = self.site.json("GET", f"conversations/{talk.conversation_id}")
        return model

    def _is_gone(self, talk: Talk) -> bool:
        if not talk.may_go:
            return False
        status, _ = self.site.request("GET", f"conversations/{talk.conversation_id}")
        return status == 404

    def _check_files(self, talk: Talk, kind: str, expected: dict[str, set[bytes | None]]) -> None:
        listed = self.site.json("GET", f"conversations/{talk.conversation_id}/{kind}")[kind]
        there = {row.get("path", row["name"]) for row in listed}
        assert there <= set(expected), (kind, there)
        for name, may_be in expected.items():
            found = self._read(talk, kind, name)
            assert found in may_be, f"{kind} {name}: {_said(found)}, not {[*map(_said, may_be)]}"
            assert (name in there) == (found is not None), f"{kind} {name}: listed and not there"
            expected[name] = {found}

    def _read(self, talk: Talk, kind: str, name: str) -> bytes | None:
        if kind == "uploads":
            path, below = f"conversations/{talk.conversation_id}/uploads/{name}", "/sandbox/api/"
        else:
            path, below = f"{talk.conversation_id}/{name}", "/sandbox/files/"
        status, body = self.site.request("GET", path, below=below)
        assert status in (200, 404), f"{kind} {name}: {status} {body[:300]!r}"
        return body if status == 200 else None

    def _check_next_call(self, talk: Talk) -> float:
        """The next call works, soon; it finds the uploads, and the variable if there was one."""
        state, sandbox_id = self.model(talk)["state"], self.row(talk)["sandbox_id"]
        was_running = state in ("running", "suspended") and sandbox_id == talk.sandbox_id
        if talk.value is not None and not talk.may_end:
            assert was_running, f"the sandbox is lost: {state}\n{self.site.last_words()}"
        began = time.monotonic()
        text = self.text(talk, "bash", command=f"cd {UPLOADS} && sha256sum * 2>/dev/null; true")
        seconds = time.monotonic() - began
        assert seconds < NEXT_CALL_SECONDS, f"{seconds:.1f} s"
        for name, (data,) in talk.uploads.items():
            line = f"{hashlib.sha256(data or b'').hexdigest()}  {name}"
            assert (line in text) == (data is not None), f"upload {name}: {text}"
        if talk.value is not None and was_running:
            kept = self.text(talk, "python", code="print(kept)")
            assert f"{talk.value}\n" in kept, kept
        elif talk.may_end:
            talk.value, talk.may_end = None, False
        if talk.may_end and was_running:  # it was asked for and not done; the user asks again
            talk.may_end = False
        assert self.model(talk)["state"] == "running"
        return seconds

    def _check_calls(self, talk: Talk) -> None:
        """Each call whose id was given out has an end, or comes to one."""
        for call_id in talk.calls:
            path = f"conversations/{talk.conversation_id}/calls/{call_id}?wait=20"
            status, body = self.site.request("GET", path)
            assert status == 200, f"call: {status} {body[:300]!r}"
            assert json.loads(body)["state"] in ("finished", "lost"), body[:300]
        talk.calls.clear()

    def _ask(
        self, method: str, path: str, body: object = None, below: str = "/sandbox/api/"
    ) -> None:
        status, answer = self.site.request(method, path, body, below)
        assert status < 300, f"{method} {path}: {status} {answer[:300]!r}"


def _said(data: bytes | None) -> str:
    return (
        "no file" if data is None else f"{len(data)} bytes {hashlib.sha256(data).hexdigest()[:8]}"
    )


__all__ = ["NEXT_CALL_SECONDS", "OUTPUTS", "UPLOADS", "Scene", "ServerDied", "Talk"]
