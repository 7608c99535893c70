"""``create_file``: a new file with its parents; an existing one only when that is meant."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import ToolError
from ..models import TextContent, ToolResult
from ..sandbox.link import GuestError
from .arguments import path, switch, text, why
from .context import ToolContext
from .file_problems import file_problem, require_absolute
from .texts import count, exact_size
from .tool import Tool

_UNDONE = "Nothing was written."

DESCRIPTION = """\
Create a file with the given text; parent directories are created. A file that exists already is \
refused unless `overwrite` is true; to change part of a file use str_replace. \
/mnt/user-data/uploads is read-only. At most {write_bytes} bytes."""


@dataclass(frozen=True, kw_only=True)
class CreateFileArguments:
    """What ``create_file`` takes."""

    description: str = why()
    path: str = path("Absolute path of the file, e.g. /workspace/app.py.")
    overwrite: bool = switch("Replace the file if it exists.")
    file_text: str = text(
        "The whole text of the file.",
        max_bytes="write_bytes",
        instead="write large files with a script in bash or python",
    )


async def run(context: ToolContext, arguments: CreateFileArguments) -> ToolResult:
    """Write the file."""
    target = require_absolute(arguments.path, context.areas.workspace, _UNDONE)
    if arguments.path.endswith("/"):
        text = f"The path {arguments.path} ends with `/`: name a file in that directory. {_UNDONE}"
        raise ToolError(text, code="is_a_directory")
    data = arguments.file_text.encode("utf-8")
    try:
        written = await context.sandbox.files.write(target, data, overwrite=arguments.overwrite)
    except GuestError as exc:
        if exc.code == "exists":
            raise ToolError(
                f"File already exists at: {target}. {_UNDONE} To replace the whole file call "
                "`create_file` again with `overwrite: true`; to change part of it use "
                "`str_replace`.",
                code="exists",
            ) from exc
        raise file_problem(exc, target, context.areas, _UNDONE) from exc
    verb = "created" if written.created else "overwritten"
    lines = arguments.file_text.count("\n") + (not arguments.file_text.endswith("\n"))
    if not data:
        lines = 0
    said = f"File {verb} successfully at: {target}"
    return ToolResult((TextContent(f"{said} ({count(lines, 'line')}, {exact_size(len(data))})"),))


TOOL = Tool("create_file", "Create a file", DESCRIPTION, CreateFileArguments, run)
