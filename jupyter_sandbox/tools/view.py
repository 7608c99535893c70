"""``view``: a text file with line numbers, a directory, or an image.

Which of these a path is, the file service says; here it is only asked and handed on.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass

from ..errors import ToolError
from ..models import ImageContent, TextContent, ToolResult
from ..policy.image_size import decide_image_size
from ..policy.media import image_type, media_of
from ..sandbox.file_errors import BadRange
from ..sandbox.file_models import LinesView
from ..sandbox.link import GuestError
from .arguments import line_range, path, why
from .context import ToolContext
from .file_problems import file_problem, require_absolute
from .texts import exact_size
from .tool import Tool
from .view_directory import directory_text
from .view_lines import lines_text

MAX_IMAGE_BYTES = 5_000_000
_PIECE_BYTES = 4 * 1024 * 1024

DESCRIPTION = """\
Look at a file or directory. A text file is shown with line numbers (they are not part of the \
file); `view_range` picks lines. A directory is listed two levels deep with sizes, without hidden \
entries and node_modules. An image (png, jpg, gif, webp) is shown as an image; of any other binary \
file type and size are said. At most {view_bytes} bytes are shown; the end of a cut text names the \
`view_range` that continues it."""


@dataclass(frozen=True, kw_only=True)
class ViewArguments:
    """What ``view`` takes."""

    description: str = why()
    path: str = path("Absolute path of a file or directory.")
    view_range: tuple[int, int] | None = line_range(
        "First and last line to show, counted from 1; -1 as last is the end of the file. Text "
        "files only."
    )


async def run(context: ToolContext, arguments: ViewArguments) -> ToolResult:
    """Show what is at the path."""
    target = require_absolute(arguments.path, context.areas.workspace)
    first, last = _checked(arguments.view_range)
    limit = context.limits.view_bytes
    files = context.sandbox.files
    try:
        try:
            lines = await files.view(target, first, last, min(2 * limit, 1024 * 1024))
        except BadRange as exc:
            raise _beyond(arguments.view_range or (first, last), exc) from exc
        except GuestError as exc:
            if exc.code != "is_a_directory":
                raise
            if arguments.view_range is not None:
                raise ToolError(
                    "The `view_range` parameter is not allowed when `path` points to a directory.",
                    code="bad_range",
                ) from exc
            text, cut = await directory_text(files, target, limit)
            return ToolResult((TextContent(text),), truncated=cut)
        if lines.is_binary or _is_pdf(lines):
            return await _binary(context, target, lines)
    except GuestError as exc:
        raise file_problem(exc, target, context.areas) from exc
    text, cut = lines_text(target, lines, last, limit)
    return ToolResult((TextContent(text),), truncated=cut)


async def _binary(context: ToolContext, path: str, lines: LinesView) -> ToolResult:
    head = lines.head or lines.data
    size = lines.size_bytes
    media_type = image_type(head)
    if media_type is None:
        kind = media_of(path, head).media_type
        return ToolResult(
            (
                TextContent(
                    f"The file {path} is binary ({kind}, {exact_size(size)}); only text and images "
                    "can be viewed. Use bash or python to look inside."
                ),
            )
        )
    if size > MAX_IMAGE_BYTES:
        return ToolResult(
            (
                TextContent(
                    f"The file {path} is an image ({media_type}, {exact_size(size)}), too large to "
                    f"be viewed: at most {exact_size(MAX_IMAGE_BYTES)}. Make a smaller copy of it "
                    "and view that."
                ),
            )
        )
    data = await _whole(context, path, size)
    if image_type(data) != media_type:
        raise ToolError(
            f"The file {path} was changed while it was read. Try again.", code="changed"
        )
    decision = decide_image_size(data)
    if not decision:
        return ToolResult(
            (
                TextContent(
                    f"The file {path} is an image ({media_type}, {exact_size(size)}) that cannot "
                    f"be viewed: {decision.reason}. Make a smaller copy of it and view that."
                ),
            )
        )
    return ToolResult(
        (
            TextContent(f"Here's the image {path} ({media_type}, {exact_size(len(data))}):"),
            ImageContent(media_type, base64.b64encode(data).decode("ascii")),
        )
    )


async def _whole(context: ToolContext, path: str, size: int) -> bytes:
    data = b""
    while len(data) < size:
        most = min(_PIECE_BYTES, size - len(data))
        piece = (await context.sandbox.files.read(path, len(data), most)).data
        if not piece:
            break
        data += piece
    return data


def _is_pdf(lines: LinesView) -> bool:
    """Say whether it is a PDF without a NUL in its beginning, which looks like text."""
    return lines.first == 1 and lines.data.startswith(b"%PDF-")


def _checked(view_range: tuple[int, int] | None) -> tuple[int, int]:
    if view_range is None:
        return 1, -1
    first, last = view_range
    said = f"Invalid `view_range`: [{first}, {last}]."
    if first < 1:
        raise ToolError(
            f"{said} Its first element `{first}` should be at least 1: lines are counted from 1.",
            code="bad_range",
        )
    if last != -1 and last < first:
        raise ToolError(
            f"{said} Its second element `{last}` should be larger or equal than its first "
            f"`{first}` (or -1 for the end of the file).",
            code="bad_range",
        )
    return first, last


def _beyond(asked: tuple[int, int], error: BadRange) -> ToolError:
    said = f"Invalid `view_range`: [{asked[0]}, {asked[1]}]."
    total = error.total_lines
    if total is None:
        return ToolError(f"{said} {error.message}.", code="bad_range")
    if total == 0:
        return ToolError(f"{said} The file is empty.", code="bad_range")
    return ToolError(
        f"{said} Its first element `{asked[0]}` should be within the range of lines of the file: "
        f"[1, {total}]",
        code="bad_range",
    )


TOOL = Tool("view", "Look at a file", DESCRIPTION, ViewArguments, run, read_only=True)
