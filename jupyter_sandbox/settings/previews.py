"""How files are shown in a browser."""

from __future__ import annotations

from traitlets import Bool
from traitlets.config import Configurable


class SandboxPreviews(Configurable):
    """How files are shown in a browser."""

    html_scripts = Bool(
        True,
        help="Run the scripts of HTML files in their preview, which has an origin of its own and "
        "loads nothing. False: the page is cleaned of all that runs or connects first; then "
        "browsers other than Chromium make no WebRTC or early connection either.",
    ).tag(config=True)
