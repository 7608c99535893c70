"""``str_replace``: change the one occurrence of a text in a file, or say why not."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import ToolError
from ..models import TextContent, ToolResult
from ..sandbox.file_errors import ManyMatches, Nearest, NoMatch
from ..sandbox.link import GuestError
from .arguments import path, text, why
from .bounds import bound
from .context import ToolContext
from .file_problems import file_problem, require_absolute
from .texts import numbered, quoted, split_lines
from .tool import Tool

_UNDONE = "No replacement was performed."
_NEAREST_LINES = 40
_MANY = 1000  # the guest stops counting here

_DIFFERENCES = {
    "tabs": "tabs and spaces",
    "indentation": "indentation",
    "spaces": "spaces within lines",
    "trailing_whitespace": "white space at line ends",
    "line_endings": "line endings (CRLF)",
    "quotes": "quotes or dashes (typographic ones)",
    "case": "upper and lower case",
    "final_newline": "the newline at the end of the file",
    "content": "content",
}

DESCRIPTION = """\
Replace a text that occurs exactly once in a file; shows the lines around the change. `old_str` \
must match exactly, white space included, without the line numbers that view shows; make it unique \
with surrounding lines. Without `new_str` the text is deleted. Tabs, line endings, encoding and \
mode of the file are kept. View the file again after a change before the next one. \
/mnt/user-data/uploads is read-only."""


@dataclass(frozen=True, kw_only=True)
class StrReplaceArguments:
    """What ``str_replace`` takes."""

    description: str = why()
    path: str = path("Absolute path of the file.")
    old_str: str = text(
        "The text to replace; must occur exactly once.",
        max_bytes="write_bytes",
        instead="change large parts with a script in bash or python",
    )
    new_str: str = text(
        "The text in its place; left out, the old text is deleted.",
        required=False,
        max_bytes="write_bytes",
        instead="change large parts with a script in bash or python",
    )


async def run(context: ToolContext, arguments: StrReplaceArguments) -> ToolResult:
    """Replace the text."""
    target = require_absolute(arguments.path, context.areas.workspace, _UNDONE)
    old, new = arguments.old_str, arguments.new_str
    if not old:
        raise ToolError(
            f"{_UNDONE} old_str is empty. Give the text to replace; to insert, give the line "
            "before and put the new text behind it in new_str.",
            code="invalid_arguments",
        )
    if old == new:
        text = f"{_UNDONE} old_str and new_str are the same."
        raise ToolError(text, code="invalid_arguments")
    try:
        edit = await context.sandbox.files.replace(target, old, new)
    except NoMatch as exc:
        raise ToolError(_no_match(target, old, exc.nearest), code="no_match") from exc
    except ManyMatches as exc:
        raise ToolError(_many_matches(old, exc), code="many_matches") from exc
    except GuestError as exc:
        raise file_problem(exc, target, context.areas, _UNDONE) from exc
    snippet = numbered(split_lines(edit.snippet_text), edit.snippet_first_line)
    shown = "\n".join(snippet) if snippet else "(the file is empty now)"
    text = (
        f"The file {target} has been edited. Here's the result of running `cat -n` on a snippet "
        f"of {target}:\n{shown}\n"
        "Review the changes and make sure they are as expected. Edit the file again if necessary."
    )
    text, cut = bound(text, context.limits.output_bytes)
    return ToolResult((TextContent(text),), truncated=cut or edit.snippet_cut or None)


def _no_match(path: str, old: str, nearest: Nearest | None) -> str:
    said = f"{_UNDONE[:-1]}, old_str {quoted(old)} did not appear verbatim in {path}."
    if nearest is None:
        return (
            f"{said} Nothing in the file is like it. View the file and copy the text exactly, "
            "without line numbers."
        )
    lines = numbered(split_lines(nearest.text)[:_NEAREST_LINES], nearest.first_line)
    where = f"lines {nearest.first_line}-{nearest.last_line}"
    if nearest.first_line == nearest.last_line:
        where = f"line {nearest.first_line}"
    words = ", ".join(_DIFFERENCES[name] for name in nearest.differences if name in _DIFFERENCES)
    listed = "\n".join(lines)
    return (
        f"{said} The nearest text is in {where}:\n{listed}\n"
        f"It differs in: {words or 'content'}. Copy the text exactly as it stands there (without "
        "line numbers) and try again."
    )


def _many_matches(old: str, error: ManyMatches) -> str:
    lines = sorted(error.lines)
    at = f" in lines {lines}" if lines else ""
    if error.count > len(lines) > 0:
        more = f"at least {error.count}" if error.count >= _MANY else str(error.count)
        at += f" (the first {len(lines)} of {more})"
    return (
        f"{_UNDONE} Multiple occurrences of old_str {quoted(old)}{at}. Please ensure it is unique: "
        "include more surrounding lines in old_str (and in new_str)."
    )


TOOL = Tool("str_replace", "Edit a file", DESCRIPTION, StrReplaceArguments, run)
