"""What of foreign HTML may be shown: a closed list of tags and attributes, by the library nh3.

The rule: nothing that runs, loads or connects. Images carry their own bytes (``data:``); links are
http, https, mailto or lead within the page; no link but the user's click follows them.
"""

from __future__ import annotations

import re

import nh3

_FORMATTING = {
    *("a", "abbr", "article", "aside", "b", "bdi", "bdo", "blockquote", "br", "caption", "center"),
    *("cite", "code", "col", "colgroup", "dd", "del", "details", "dfn", "div", "dl", "dt", "em"),
    *("figcaption", "figure", "footer", "h1", "h2", "h3", "h4", "h5", "h6", "header", "hgroup"),
    *("hr", "i", "img", "ins", "kbd", "li", "main", "mark", "nav", "ol", "p", "pre", "q", "rp"),
    *("rt", "ruby", "s", "samp", "section", "small", "span", "strike", "strong", "sub", "summary"),
    *("sup", "table", "tbody", "td", "tfoot", "th", "thead", "time", "tr", "tt", "u", "ul", "var"),
    *("wbr",),
}
_ATTRIBUTES = {
    "*": {"align", "class", "dir", "id", "lang", "title"},
    "a": {"href"},
    "col": {"span"},
    "colgroup": {"span"},
    "details": {"open"},
    "img": {"src", "alt", "width", "height"},
    "ol": {"start", "reversed"},
    "td": {"colspan", "rowspan", "style"},
    "th": {"colspan", "rowspan", "scope", "style"},
}
_LINK = re.compile(r"\s*(?:https?://|mailto:|#)", re.IGNORECASE)
_IMAGE = re.compile(
    r"data:image/(?:png|jpeg|gif|webp|svg\+xml)(?:;charset=[\w-]+)?(?:;base64)?,", re.I
)
_REL = "noopener noreferrer nofollow"


def sanitize_fragment(html: str) -> str:
    """Give the part of a page that Markdown was made into."""
    return nh3.clean(
        html,
        tags=_FORMATTING | {"input"},  # the boxes of task lists
        attributes={**_ATTRIBUTES, "input": {"checked", "disabled"}},
        tag_attribute_values={"a": {"target": {"_blank"}}, "input": {"type": {"checkbox"}}},
        attribute_filter=_attribute,
        filter_style_properties={"text-align"},
        url_schemes={"http", "https", "mailto", "data"},
        link_rel=_REL,
    )


def sanitize_page(html: str) -> str:
    """Give what a page shows, with its own looks (CSS cannot load anything there)."""
    return nh3.clean(
        html,
        tags=_FORMATTING | {"style"},
        clean_content_tags={"script"},
        attributes={**_ATTRIBUTES, "*": {*_ATTRIBUTES["*"], "style"}},
        attribute_filter=_attribute,
        url_schemes={"http", "https", "mailto", "data"},
        link_rel=_REL,
    )


def _attribute(tag: str, attribute: str, value: str) -> str | None:
    """Give the value of an attribute, or None to leave it out."""
    if attribute == "href":
        return value if _LINK.match(value) else None
    if attribute == "src":
        return value if _IMAGE.match(value) else None
    return value
