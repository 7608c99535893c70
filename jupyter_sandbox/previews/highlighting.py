"""Source text in colours: spans with classes, by the library Pygments. Part of the worker.

The rule: what language it is, the name says; the contents are never searched for it.
"""

from __future__ import annotations

from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexer import Lexer
from pygments.lexers import find_lexer_class_for_filename, get_lexer_by_name
from pygments.util import ClassNotFound

# Where several languages have the extension, the one that is meant more often.
_BY_EXTENSION = {"sql": "sql", "pl": "perl", "pm": "perl", "ipynb": "json", "geojson": "json"}
_OPTIONS = {"stripnl": False, "ensurenl": False}


def highlight_file(name: str, text: str) -> str | None:
    """Give a file's text as HTML; None if its name says no language that is known."""
    return _spans(_lexer_of(name), text)


def highlight_code(language: str, text: str) -> str | None:
    """Give the text of a code block as HTML; None if there is no such language."""
    return _spans(_lexer_named(language), text)


def _spans(lexer: Lexer | None, text: str) -> str | None:
    if lexer is None:
        return None
    html: str = highlight(text, lexer, HtmlFormatter(nowrap=True))
    return html


def _lexer_of(name: str) -> Lexer | None:
    known = _BY_EXTENSION.get(name.rpartition(".")[2].lower())
    if known is not None:
        return _lexer_named(known)
    found = find_lexer_class_for_filename(name)
    return None if found is None or found.name == "Text only" else found(**_OPTIONS)


def _lexer_named(language: str) -> Lexer | None:
    try:
        return get_lexer_by_name(language, **_OPTIONS)
    except ClassNotFound:
        return None
