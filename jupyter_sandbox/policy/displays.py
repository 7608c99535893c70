"""What of a kernel's displays a page of the user's session may show. Pure; slow for long HTML.

JupyterLab trusts what a kernel has just displayed: a script in it runs as the user. So displays are
rebuilt from a closed list of media types, and what is HTML in the end is cleaned by nh3.
The rule: nothing that runs, nothing that loads from anywhere (an image's address can carry data out
past the egress proxy), nothing that could pass for a part of JupyterLab (ids, classes, ``data-``
attributes, which are commands to click on). What is left out is left out; the plain text stays.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import nh3
from markdown_it import MarkdownIt

# What is longer is left out. A parser of HTML takes time that grows with the square of nested
# elements and of an element's attributes: within these bounds it is half a second at the worst.
_MOST_HTML = 64 * 1024  # characters, inline images and the like not counted
_MOST_MARKDOWN = 32 * 1024
_MOST_TAGS = 5000  # cells of tables not counted: they do not nest
_LONG_WORD = re.compile(r"[A-Za-z0-9+/=]{200,}")
_TAG = re.compile(r"<(?!/?t[dhr][\s>])")

_RASTER = ("image/png", "image/jpeg", "image/gif", "image/webp")
_TEXT = ("text/plain", "text/latex")
_IMAGE_SIZES = ("width", "height")

_ATTRIBUTES = {
    "*": {"align", "dir", "lang", "title"},
    "a": {"href"},
    "col": {"span"},
    "colgroup": {"span"},
    "details": {"open"},
    "img": {"src", "alt", "width", "height"},
    "ol": {"start", "reversed"},
    "table": {"border"},
    "td": {"colspan", "rowspan"},
    "th": {"colspan", "rowspan", "scope"},
}
_LEFT_OUT = {"area", "map"}
_LINK = re.compile(r"\s*(?:https?://|mailto:)", re.IGNORECASE)
_INLINE_IMAGE = re.compile(r"data:image/(?:png|jpeg|gif|webp|svg\+xml);base64,[A-Za-z0-9+/=\s]*\Z")


@dataclass(frozen=True)
class ToClean:
    """HTML, or Markdown that becomes HTML, that must pass ``clean`` before it is shown.

    JSON cannot say it: what was forgotten to be cleaned is not sent.
    """

    kind: Literal["html", "markdown"]
    text: str


def safe_bundle(data: object) -> dict[str, Any]:
    """Give what of a display's data may be shown, by media type. Slow for long HTML.

    SVG comes as an image in HTML: there it can neither run nor load anything. Markdown comes as
    HTML, because JupyterLab does not clean what it makes of it.
    """
    return with_cleaned(prepared_bundle(data), clean)


def with_cleaned(
    bundle: dict[str, Any], cleaned: Callable[[ToClean], str | None]
) -> dict[str, Any]:
    """Give a prepared bundle with its HTML cleaned; with a text in its place if it cannot be."""
    waiting = bundle.get("text/html")
    if not isinstance(waiting, ToClean):
        return bundle
    html = cleaned(waiting)
    rest = {kind: value for kind, value in bundle.items() if kind != "text/html"}
    if html is not None:
        return {**rest, "text/html": html}
    return rest or {"text/plain": f"[not shown: text/{waiting.kind}]"}


def bundles_of(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Give all bundles of a message's content: of a display, or of what a reply shows."""
    payload, asked = content.get("payload"), content.get("user_expressions")
    parts = [
        content,
        *(payload if isinstance(payload, list) else ()),
        *(asked.values() if isinstance(asked, Mapping) else ()),
    ]
    bundles = [part.get("data") for part in parts if isinstance(part, Mapping)]
    return [bundle for bundle in bundles if isinstance(bundle, dict)]


def prepared_bundle(data: object) -> dict[str, Any]:
    """Give what ``safe_bundle`` gives, but with what is still to be cleaned as ``ToClean``."""
    given = data if isinstance(data, Mapping) else {}
    bundle: dict[str, Any] = {}
    for kind in _TEXT:
        text = _text(given.get(kind))
        if text is not None:
            bundle[kind] = text
    for kind in _RASTER:
        image = _image(given.get(kind))
        if image is not None:
            bundle[kind] = image
    if "application/json" in given:  # a tree of texts and numbers
        bundle["application/json"] = given["application/json"]
    html = _html(given, has_image=any(kind in bundle for kind in _RASTER))
    if html is not None:
        bundle["text/html"] = html
    if not bundle and given:
        kinds = ", ".join(str(kind)[:60] for kind in list(given)[:5])
        bundle["text/plain"] = f"[not shown: {kinds}]"
    return bundle


def safe_metadata(metadata: object) -> dict[str, Any]:
    """Give the sizes of images; the rest of a display's metadata can choose how it is shown."""
    given = metadata if isinstance(metadata, Mapping) else {}
    kept: dict[str, Any] = {}
    for kind in _RASTER:
        sizes = given.get(kind)
        if isinstance(sizes, Mapping):
            numbers = {name: sizes[name] for name in _IMAGE_SIZES if _is_size(sizes.get(name))}
            if numbers:
                kept[kind] = numbers
    return kept


def html_weight(data: object) -> int:
    """Give how much there is to clean in a display's data: characters, long words not counted."""
    if not isinstance(data, Mapping):
        return 0
    texts = (_text(data.get(kind)) for kind in ("text/html", "text/markdown"))
    return sum(_weight(text) for text in texts if text)


def safe_html(html: str) -> str:
    """Give HTML that neither runs nor loads anything."""
    return nh3.clean(
        html,
        tags=nh3.ALLOWED_TAGS - _LEFT_OUT,
        attributes=_ATTRIBUTES,
        allowed_classes={"table": {"dataframe"}},  # how pandas marks its tables
        attribute_filter=_attribute,
        url_schemes={"http", "https", "mailto", "data"},
        link_rel="noopener noreferrer nofollow",
    )


def clean(given: ToClean) -> str | None:
    """Give the HTML, or None if it is so long that this could take long."""
    if given.kind == "html":
        return _cleaned(given.text)
    if len(given.text) > _MOST_MARKDOWN:
        return None
    parser = MarkdownIt("commonmark", {"html": True}).enable("table")
    rendered: str = parser.render(given.text)
    return _cleaned(rendered)


def _html(given: Mapping[Any, Any], has_image: bool) -> str | ToClean | None:
    html = _text(given.get("text/html"))
    if html is not None:
        return ToClean("html", html)
    if has_image:
        return None
    svg = _text(given.get("image/svg+xml"))
    if svg is not None:
        source = base64.b64encode(svg.encode("utf-8", "replace")).decode("ascii")
        return f'<img alt="SVG" src="data:image/svg+xml;base64,{source}">'
    markdown = _text(given.get("text/markdown"))
    return None if markdown is None else ToClean("markdown", markdown)


def _cleaned(html: str) -> str | None:
    """Give it clean, or None if that could take long."""
    if _weight(html) > _MOST_HTML or sum(1 for _ in _TAG.finditer(html)) > _MOST_TAGS:
        return None
    return safe_html(html)


def _weight(html: str) -> int:
    return len(_LONG_WORD.sub("", html))


def _text(value: object) -> str | None:
    """Give a text; nbformat's form of it, a list of lines, too."""
    if isinstance(value, list) and all(isinstance(line, str) for line in value):
        value = "".join(value)
    return value if isinstance(value, str) else None


def _image(value: object) -> str | None:
    text = _text(value)
    if text is None:
        return None
    try:
        return base64.b64encode(base64.b64decode("".join(text.split()), validate=True)).decode()
    except (binascii.Error, ValueError):
        return None


def _is_size(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 20_000


def _attribute(tag: str, attribute: str, value: str) -> str | None:
    """Give the value of an attribute, or None to leave it out."""
    if attribute == "href":
        return value if _LINK.match(value) else None
    if attribute == "src":
        return value if _INLINE_IMAGE.match(value) else None
    return value
