"""The pages around what is previewed, from the templates beside this file.

It knows neither requests nor stores. The rule: a value of the sandbox reaches a template as text,
which Jinja escapes; the only HTML that is put in as it is comes from the worker, cleaned.
"""

from __future__ import annotations

import functools
import html
from dataclasses import dataclass

from jinja2 import Environment, PackageLoader, StrictUndefined, Template, select_autoescape
from markupsafe import Markup
from pygments.formatters import HtmlFormatter

from .pdf_viewer import viewer_parts

MOST_LINES = 20_000
THEMES = ("light", "dark")

_LIGHT, _DARK = "default", "github-dark"


@dataclass(frozen=True)
class ShownFile:
    """What the page says of a file; ``url`` is where it can be downloaded, ``version`` 0: none."""

    name: str
    kind: str
    size: str
    url: str
    version: int = 0


@dataclass(frozen=True)
class Frame:
    """A document in a frame, and its ``sandbox`` attribute."""

    url: str
    sandbox: str
    renew_url: str
    renew_seconds: float
    xsrf: str


def shell_page(
    file: ShownFile,
    view: str,
    *,
    nonce: str,
    frame: Frame | None = None,
    reason: str = "",
    notice: str = "",
    theme: str = "",
    bare: bool = False,
) -> str:
    """Give the page with the user's own rights: a bar with the name, and the preview below it.

    Parameters
    ----------
    view : str
        ``image``, ``video``, ``audio``, ``frame``, or anything else for ``reason`` and a download.
    notice : str
        A sentence on what is missing in the preview.
    theme : str
        ``light``, ``dark``, or "" for what the browser prefers.
    bare : bool
        Without the bar, for a page that has one.
    """
    return _template("shell.html").render(
        file=file,
        view=view,
        nonce=nonce,
        frame=frame,
        reason=reason,
        notice=notice,
        theme=theme,
        bare=bare,
    )


def text_page(title: str, text: str, spans: str | None, notices: list[str], theme: str) -> str:
    """Give source text with line numbers; ``spans`` is the same text as the worker's HTML."""
    lines = (html.escape(text) if spans is None else spans).split("\n")
    if lines[-1] == "":
        lines.pop()
    if len(lines) > MOST_LINES:
        notices = [*notices, f"The first {MOST_LINES:,} lines are shown."]
        del lines[MOST_LINES:]
    if not lines:
        return _document(title, "", [*notices, "The file is empty."], theme)
    # A line break at the end of each, so that copied text has it.
    inside = "".join(f"<span>{line}\n</span>" for line in lines)
    digits = len(str(len(lines)))
    return _document(
        title, f'<pre class="file" style="--digits: {digits}">{inside}</pre>', notices, theme
    )


def markdown_page(title: str, body: str, notices: list[str], theme: str) -> str:
    """Give rendered Markdown; ``body`` is the worker's."""
    return _document(title, f'<article class="markdown">{body}</article>', notices, theme)


def pdf_page(title: str, theme: str, nonce: str) -> str:
    """Give the viewer of PDFs; its scripts run with ``nonce`` only."""
    return _template("pdf.html").render(title=title, theme=theme, nonce=nonce, **viewer_parts())


def error_page(message: str) -> str:
    """Give a page that says why there is nothing to see."""
    return _template("error.html").render(message=message)


def _document(title: str, body: str, notices: list[str], theme: str) -> str:
    return _template("document.html").render(
        title=title,
        body=Markup(body),  # escaped above, or cleaned by the worker
        notices=notices,
        theme=theme,
        highlighting=Markup(_highlighting()),
    )


@functools.cache
def _highlighting() -> str:
    """Give the colours of highlighted text, for both themes."""
    light, dark = (HtmlFormatter(style=style) for style in (_LIGHT, _DARK))
    dark_rules = dark.get_token_style_defs("")
    return "\n".join(
        [
            *light.get_token_style_defs(""),
            "@media (prefers-color-scheme: dark) { :root:not([data-theme=light]) {",
            *dark_rules,
            '} } :root[data-theme="dark"] {',
            *dark_rules,
            "}",
        ]
    )


@functools.cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("jupyter_sandbox.previews"),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
    )


def _template(name: str) -> Template:
    return _environment().get_template(name)
