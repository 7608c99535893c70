"""Markdown as HTML that may be shown: by markdown-it-py, then cleaned. Part of the worker.

CommonMark with tables, strikethrough, task lists and footnotes; headings have ids; code blocks are
highlighted. Raw HTML in it passes the same cleaning.
"""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from mdit_py_plugins.anchors import anchors_plugin
from mdit_py_plugins.footnote import footnote_plugin
from mdit_py_plugins.front_matter import front_matter_plugin
from mdit_py_plugins.tasklists import tasklists_plugin

from .highlighting import highlight_code
from .sanitizing import sanitize_fragment


def render_markdown(text: str) -> str:
    """Give the HTML of a Markdown text."""
    parser = MarkdownIt("commonmark", {"html": True, "highlight": _highlight})
    parser.enable(["table", "strikethrough"])
    parser.use(front_matter_plugin).use(footnote_plugin).use(tasklists_plugin)
    parser.use(anchors_plugin, max_level=6)
    parser.add_render_rule("link_open", _link_open)
    html: str = parser.render(text)
    return sanitize_fragment(html)


def _highlight(code: str, language: str, _attributes: str) -> str:
    """Give a code block's inside; "" leaves it to the parser, which escapes it."""
    return (highlight_code(language, code) or "") if language else ""


def _link_open(
    renderer: RendererHTML,
    tokens: Sequence[Token],
    index: int,
    options: Any,
    _env: MutableMapping[str, Any],
) -> str:
    """Let links that lead away open a tab: in the frame nothing else could be shown."""
    if not str(tokens[index].attrGet("href") or "").startswith("#"):
        tokens[index].attrSet("target", "_blank")
    return str(renderer.renderToken(tokens, index, options, _env))
