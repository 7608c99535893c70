"""``share_files``: copies of files out of the sandbox, that the user keeps.

The rule: one bad path spoils no other; whatever is said to be shared is whole in the store and in
the database. Names and types in the card are decided here, not inside.
"""

from __future__ import annotations

import asyncio
import contextlib
import posixpath
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime

from .. import metrics
from ..errors import (
    LimitExceeded,
    NotFound,
    SandboxError,
    ToolError,
    Unavailable,
    VersionTaken,
)
from ..models import Content, FileCard, FileIdentity, ShareRecord, TextContent, ToolResult
from ..policy.capacity import decide_capacity, decide_count
from ..policy.media import media_of
from ..policy.names import decide_file_name
from ..sandbox.link import GuestError
from .arguments import paths, why
from .context import ToolContext
from .file_problems import file_problem, require_absolute
from .texts import count, exact_size
from .tool import Tool

_MAX_PATH_BYTES = 1024
_TRIES = 20  # while other calls share the same path at the same time

DESCRIPTION = """\
Give files to the user: each is copied out of the sandbox and shown as a card with preview and \
download. Files must be in /mnt/user-data/outputs (copy them there first), at most {share_files} \
in one call. Sharing the same path again makes a new version. Share finished results once, at the \
end; do not write links or paths for the user to open."""


@dataclass(frozen=True, kw_only=True)
class ShareFilesArguments:
    """What ``share_files`` takes."""

    description: str = why()
    paths: tuple[str, ...] = paths(
        "Absolute paths of files in /mnt/user-data/outputs, the most relevant first.",
        maximum="share_files",
    )


async def run(context: ToolContext, arguments: ShareFilesArguments) -> ToolResult:
    """Share each file; give a card for each path."""
    usage = await context.database.usage(context.conversation_id)
    room = context.limits.capacity_bytes - usage.total_bytes
    decision = decide_count(usage.uploads + usage.shares)
    if not decision:
        raise LimitExceeded(decision.reason, status=413)
    cards: list[FileCard] = []
    for path in dict.fromkeys(arguments.paths):
        try:
            card = await _share(context, path, room)
            room -= card.size_bytes
        except NotFound:
            raise  # the conversation was deleted
        except SandboxError as exc:
            if isinstance(exc, Unavailable) and not any(not c.error for c in cards):
                raise  # nothing was shared, and the next one would not be
            card = FileCard(path, posixpath.basename(path), error=_told(exc), code=exc.code)
        cards.append(card)
    content: list[Content] = [TextContent(_summary(cards)), *cards]
    failed = [card for card in cards if card.error]
    if len(failed) < len(cards):
        return ToolResult(tuple(content))
    codes = {card.code for card in failed}
    return ToolResult(
        tuple(content), is_error=True, code=codes.pop() if len(codes) == 1 else "not_shared"
    )


async def _share(context: ToolContext, asked: str, room: int) -> FileCard:
    path, relative = _place(context, asked)
    most = max(0, min(context.limits.share_bytes, room))
    for _ in range(_TRIES):
        with contextlib.suppress(VersionTaken):  # by another call: the bytes are sealed as one
            return await _share_version(context, path, relative, most, room)
    return await _share_version(context, path, relative, most, room)


async def _share_version(
    context: ToolContext, path: str, relative: str, most: int, room: int
) -> FileCard:
    share_id = uuid.uuid4().hex
    version = await context.database.next_version(context.conversation_id, relative)
    identity = FileIdentity(context.conversation_id, share_id, "share", relative, version)
    async with context.shares.sink(identity, most) as sink:
        try:
            await context.sandbox.files.export(path, context.areas.outputs, most, sink.write)
        except GuestError as exc:
            raise _refusal(context, exc, path, room) from exc
        sha256 = await sink.commit()
        media = media_of(path, sink.head)
        record = ShareRecord(
            share_id=share_id,
            conversation_id=context.conversation_id,
            path=relative,
            name=posixpath.basename(path),
            version=version,
            size_bytes=sink.size_bytes,
            sha256=sha256,
            media_type=media.media_type,
            preview=media.preview,
            stored_name=share_id,
            created_at=datetime.now(UTC),
        )
        try:
            record = await context.database.add_share(record)
        except BaseException:
            await asyncio.shield(context.shares.remove(context.conversation_id, share_id))
            raise
    metrics.SHARED_BYTES.inc(record.size_bytes)
    return FileCard(
        path=path,
        name=record.name,
        file_id=record.share_id,
        size_bytes=record.size_bytes,
        media_type=record.media_type,
        preview=record.preview,
        version=record.version,
        sha256=record.sha256,
    )


def _place(context: ToolContext, asked: str) -> tuple[str, str]:
    """Give the path, and its place in the outputs area."""
    outputs = context.areas.outputs
    path = posixpath.normpath(require_absolute(asked, outputs))  # no link is followed in there
    if path == outputs:
        raise ToolError(
            f"The path {path} is a directory; name the files in it.", code="is_a_directory"
        )
    if not path.startswith(outputs + "/"):
        raise ToolError(
            f"The path {path} is outside {outputs}; copy the file there (cp) and share the copy.",
            code="outside",
        )
    relative = path[len(outputs) + 1 :]
    if len(relative.encode("utf-8")) > _MAX_PATH_BYTES:
        raise ToolError("The path is too long; use shorter names.", code="name_too_long")
    for name in relative.split("/"):
        decision = decide_file_name(name)
        if not decision:
            raise ToolError(
                f"The file cannot be shared under this name: {decision.reason}. Rename it.",
                code="bad_name",
            )
    return path, relative


def _refusal(context: ToolContext, error: GuestError, path: str, room: int) -> SandboxError:
    areas, limits = context.areas, context.limits
    if error.code == "is_a_directory":
        text = f"The path {path} is a directory; share files, or pack it (zip -r) and share that."
        return ToolError(text, code=error.code)
    if error.code == "link":
        text = f"The path {path} is a link or leads through one; copy the file itself (cp -L)."
        return ToolError(text, code=error.code)
    if error.code == "outside":
        text = f"The path {path} is outside {areas.outputs}; copy the file there and share that."
        return ToolError(text, code=error.code)
    if error.code == "too_large":
        if room < limits.share_bytes:
            full = decide_capacity(limits.capacity_bytes + 1, limits.capacity_bytes)
            return LimitExceeded(full.reason, status=413)
        text = f"The file {path} is larger than {exact_size(limits.share_bytes)}, the most."
        return ToolError(text, code=error.code)
    return file_problem(error, path, areas)


def _told(error: SandboxError) -> str:
    if isinstance(error, Unavailable):
        return f"exec failed: {error.message}. A retry may succeed."
    return error.message


def _summary(cards: list[FileCard]) -> str:
    shared = [card for card in cards if not card.error]
    failed = [card for card in cards if card.error]
    lines = []
    if shared:
        lines.append(f"Shared {count(len(shared), 'file')} with the user:")
        lines += [
            f"- {card.path} ({exact_size(card.size_bytes)}, {card.media_type}"
            + (f", version {card.version})" if card.version > 1 else ")")
            for card in shared
        ]
    if failed:
        lines.append("Not shared:" if shared else "Nothing was shared:")
        lines += [f"- {card.path}: {card.error}" for card in failed]
    return "\n".join(lines)


TOOL = Tool("share_files", "Share files", DESCRIPTION, ShareFilesArguments, run)
