"""What the server gives, as frozen data."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Image:
    """An image for the model; ``media_type`` is image/png, image/jpeg, image/gif or image/webp."""

    media_type: str
    data: bytes = field(repr=False)

    @property
    def base64(self) -> str:
        """The form in which models take images."""
        return base64.b64encode(self.data).decode("ascii")


@dataclass(frozen=True)
class FileCard:
    """A shared file; or, with ``error`` and ``code``, why one was not shared.

    ``path`` is as the model named it; ``preview`` says how the file could be shown.
    """

    path: str
    name: str
    file_id: str = ""
    size_bytes: int = 0
    media_type: str = ""
    preview: str = "download"
    version: int = 0
    sha256: str = ""
    error: str = ""
    code: str = ""


@dataclass(frozen=True)
class Output:
    """A piece of a command's output, as it was written: for people, terminal codes and all."""

    text: str


@dataclass(frozen=True)
class Result:
    """A call that is over.

    Attributes
    ----------
    text : str
        All text of the result, for the model.
    exit_code : int or None
        Of a command; a non-zero one is no error.
    raw : mapping
        The JSON as the server gave it.
    """

    call_id: str
    tool: str
    state: str
    is_error: bool
    code: str
    text: str
    images: tuple[Image, ...]
    files: tuple[FileCard, ...]
    exit_code: int | None
    truncated: bool
    duration_seconds: float
    raw: Mapping[str, Any] = field(repr=False)

    def to_anthropic(self, tool_use_id: str) -> dict[str, Any]:
        """Give the ``tool_result`` block for Anthropic's Messages API."""
        content: list[dict[str, Any]] = [{"type": "text", "text": self.text or "(no text)"}]
        for image in self.images:
            source = {"type": "base64", "media_type": image.media_type, "data": image.base64}
            content.append({"type": "image", "source": source})
        return {
            "type": "tool_result",
            "tool_use_id": tool_use_id,
            "content": content,
            "is_error": self.is_error,
        }

    def to_openai(self, tool_call_id: str) -> dict[str, Any]:
        """Give the ``tool`` message for OpenAI's Chat Completions API, which takes text only."""
        text = self.text or "(no text)"
        if self.images:
            text += f"\n[{len(self.images)} image(s) not shown]"
        return {"role": "tool", "tool_call_id": tool_call_id, "content": text}


@dataclass(frozen=True)
class Tools:
    """The tools in the schemas that were asked for, and the text for the system instructions."""

    tools: tuple[dict[str, Any], ...]
    guidance: str


def to_result(call: Mapping[str, Any]) -> Result:
    """Read a call that is over."""
    content = call.get("content", [])
    return Result(
        call_id=call["call_id"],
        tool=call["tool"],
        state=call["state"],
        is_error=bool(call.get("is_error")),
        code=call.get("code", ""),
        text="\n".join(part["text"] for part in content if part["type"] == "text"),
        images=tuple(
            Image(part["media_type"], base64.b64decode(part["data"]))
            for part in content
            if part["type"] == "image"
        ),
        files=tuple(to_card(part) for part in content if part["type"] == "file"),
        exit_code=call.get("exit_code"),
        truncated=bool(call.get("truncated")),
        duration_seconds=float(call.get("duration_seconds", 0.0)),
        raw=call,
    )


def to_card(part: Mapping[str, Any]) -> FileCard:
    """Read a file card; what a newer server tells beside is left out."""
    known = {name: part[name] for name in FileCard.__dataclass_fields__ if name in part}
    return FileCard(**known, file_id=part.get("id", ""))
