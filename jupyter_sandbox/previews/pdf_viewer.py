"""The viewer of PDFs: pdf.js, which is copied into the package when it is built.

The page that shows a PDF has all its parts in itself, because nothing may be loaded where it runs;
the PDF comes in a message of the shell. The rule: no links, no forms, no scripts of the document,
no network.
Source: https://mozilla.github.io/pdf.js/api/draft/module-pdfjsLib.html, labextension/package.json.
"""

from __future__ import annotations

import base64
import functools
import json
import re
from pathlib import Path

from markupsafe import Markup

_DIRECTORY = Path(__file__).parent / "pdfjs"
_TEXTS = ("pdf.min.mjs", "pdf.worker.min.mjs", "pdf_viewer.mjs", "pdf_viewer.css")
_DECODERS = ("jbig2.wasm", "openjpeg.wasm", "qcms_bg.wasm")
_PICTURE = re.compile(r"url\([^()]*\)")  # of icons that are not here

MISSING = (
    "This installation has no PDF viewer, because it was made without npm. "
    "Download the file to see it."
)


def has_pdf_viewer() -> bool:
    """Say whether pdf.js is there: an installation that was made without npm has none."""
    return all((_DIRECTORY / name).is_file() for name in (*_TEXTS, *_DECODERS))


@functools.cache
def viewer_parts() -> dict[str, Markup]:
    """Give pdf.js as it stands in the page (``templates/pdf.html``)."""
    api, worker, viewer, style = (
        (_DIRECTORY / name).read_text(encoding="utf-8") for name in _TEXTS
    )
    for text in (api, worker, viewer, style):
        if "</script" in text.lower() or "</style" in text.lower() or "<!--" in text:
            raise ValueError("this version of pdf.js cannot stand inside of a page")
    decoders = {
        name: base64.b64encode((_DIRECTORY / name).read_bytes()).decode("ascii")
        for name in _DECODERS
    }
    return {
        "api": Markup(api),
        "worker": Markup(_as_script(worker)),
        "viewer": Markup(viewer),
        "style": Markup(_PICTURE.sub("none", style)),
        "decoders": Markup(json.dumps(decoders)),
    }


def _as_script(module: str) -> str:
    """Give the worker's module as a script: a page without an origin can start no module."""
    script = module.replace("import.meta.url", "self.location.href")
    script = script.replace("export{WorkerMessageHandler};", "")
    if "import.meta" in script or "export{" in script:
        raise ValueError("the worker of this version of pdf.js cannot be a script")
    return script
