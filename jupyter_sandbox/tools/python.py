"""``python``: a cell in the conversation's Jupyter kernel."""

from __future__ import annotations

import base64
from dataclasses import dataclass

from ..models import Content, Image, ImageContent, Limits, Outcome, ToolResult
from ..policy.image_size import decide_image_size
from ..policy.media import image_type
from .arguments import number, text, why
from .context import ToolContext
from .outcome_text import off_loop, outcome_result
from .status_line import cell_status
from .texts import exact_size
from .tool import Tool

MAX_CODE_BYTES = 1024 * 1024
MAX_IMAGE_BYTES = 5_000_000
_MOST_IMAGES = 20

DESCRIPTION = """\
Run Python code in this conversation's Jupyter kernel (IPython).
Variables, imports and functions stay until the kernel restarts. Gives what was printed, the value \
of the last expression, tracebacks, and images (matplotlib figures are shown), then one status \
line. Starts in /workspace, with the same files as bash; `%pip install` adds packages.
A cell may take {command_seconds:g} s; then it is interrupted. Cells run one after the other; bash \
and the file tools do not wait for a running cell."""


@dataclass(frozen=True, kw_only=True)
class PythonArguments:
    """What ``python`` takes."""

    description: str = why()
    code: str = text(
        "The code of the cell.",
        max_bytes=MAX_CODE_BYTES,
        nul=False,
        instead="put long text into a file with create_file",
    )
    timeout_seconds: float | None = number(
        "Seconds after which the cell is interrupted.",
        minimum=0.1,
        maximum="command_seconds",
        instead="run longer work as a background process started with bash",
    )


async def run(context: ToolContext, arguments: PythonArguments) -> ToolResult:
    """Run the cell and give what came out."""
    seconds = arguments.timeout_seconds or context.limits.command_seconds
    outcome = await context.sandbox.run_python(
        context.call_id, arguments.code, seconds, context.emit, context.limits.output_bytes
    )
    return await off_loop(outcome, lambda: python_result(outcome, context.limits, seconds))


def python_result(outcome: Outcome, limits: Limits, timeout_seconds: float) -> ToolResult:
    """Give the result of a cell that has ended; an exception of its code is data, not an error."""
    notes: list[str] = []
    told = f"[cell timed out after {timeout_seconds:g} s]"
    if outcome.timed_out and told not in outcome.text:  # the kernel's side knows more
        notes.append(told)
        if not outcome.lost:
            notes.append(
                "The cell was interrupted; variables and files are as far as it had come. Run "
                "longer work as a background process started with bash."
            )
    elif outcome.interrupted:
        notes.append("[cell was cancelled]")
    images, refused = _images(outcome.images)
    result = outcome_result(outcome, limits, [*refused, *notes], cell_status(outcome))
    return ToolResult(
        content=(*result.content, *images),
        is_error=result.is_error,
        code=result.code,
        truncated=result.truncated,
    )


def _images(found: tuple[Image, ...]) -> tuple[list[Content], list[str]]:
    """Give the images a model can look at, and a line for each that is left out."""
    shown: list[Content] = []
    refused: list[str] = []
    for image in found[:_MOST_IMAGES]:
        media_type = image_type(image.data[:64])  # what it is, not what it claims to be
        if media_type is None:
            refused.append("[an image that is no png, jpeg, gif or webp is not shown]")
        elif len(image.data) > MAX_IMAGE_BYTES:
            size = exact_size(len(image.data))
            refused.append(f"[an image of {size} is not shown; {MAX_IMAGE_BYTES:,} are the most]")
        elif not (decision := decide_image_size(image.data)):
            refused.append(f"[an image is not shown: {decision.reason}]")
        else:
            shown.append(ImageContent(media_type, base64.b64encode(image.data).decode("ascii")))
    if len(found) > _MOST_IMAGES:
        refused.append(f"[{len(found) - _MOST_IMAGES} more images are not shown]")
    return shown, refused


TOOL = Tool("python", "Run Python", DESCRIPTION, PythonArguments, run)
