"""``/sandbox/preview``: the page that shows an upload or a shared file, the *shell*; its lease.

The shell has the user's origin, so nothing of the sandbox is in it but names, as text. Pictures and
films it shows itself, from their download; a document goes into a frame, under a leased token
(``leased.py``). The statuses are those of downloads.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from jupyter_server.utils import url_path_join

from .. import metrics
from ..errors import Forbidden, NotFound
from ..models import StoredFile
from ..policy.decision import Decision
from ..policy.previews import decide_preview, view_of
from ..previews.file_previews import PreviewedFile
from ..previews.leases import IDLE_SECONDS
from ..previews.pages import THEMES, Frame, ShownFile, error_page, shell_page
from ..previews.pdf_viewer import MISSING, has_pdf_viewer
from .base import SandboxHandler, endpoint
from .disposition import safe_name
from .downloads import MOST_VERSIONS, find_share
from .links import share_preview_url, share_url, upload_preview_url, upload_url
from .preview_headers import (
    SANDBOX_LINKS,
    SANDBOX_NOTHING,
    SANDBOX_SCRIPTS,
    SANDBOX_VIEWER,
    document_headers,
    has_name,
    shell_headers,
    source,
)
from .sending import SendingHandler

RENEW_SECONDS = IDLE_SECONDS / 4

_NO_SCRIPTS = (
    "Scripts are off: no content security policy can name the address by which this server was "
    "reached. Use a host name without “_”, or an IPv4 address."
)


@dataclass(frozen=True)
class _File:
    """An upload or a version of a shared file, as the shell needs it."""

    kind: str
    name: str
    size_bytes: int
    version: int
    stored: StoredFile
    url: str
    shell_url: str


class PageHandler(SendingHandler):
    """Base of the handlers whose answers are pages: errors are pages too, for browsers."""

    def answer_error(
        self, status: int, code: str, message: str, retry_after_seconds: int | None = None
    ) -> None:
        """Answer with a page if that is what is asked for, else with JSON."""
        if "text/html" not in self.request.headers.get("Accept", "") or self._headers_written:
            super().answer_error(status, code, message, retry_after_seconds)
            return
        metrics.count_refusal(code)
        if self._finished:
            return
        self.set_status(status)
        if retry_after_seconds is not None:
            self.set_header("Retry-After", str(retry_after_seconds))
        self.answer_page(error_page(message), document_headers(SANDBOX_NOTHING))

    def answer_page(self, page: str, headers: dict[str, str]) -> None:
        """Answer with HTML."""
        for header, value in headers.items():
            self.set_header(header, value)
        self.write(page)
        super(SandboxHandler, self).finish(set_content_type="text/html; charset=utf-8")

    def runs_scripts(self) -> bool:
        """Say whether scripts of HTML files run: where a policy can hold them, if they may."""
        return self.services.previews.html_scripts and has_name(self.request.host)

    def theme(self) -> str:
        """Give the colours that the page is asked for; "" for what the browser prefers."""
        theme = self.get_query_argument("theme", "")
        return theme if theme in THEMES else ""


class PreviewHandler(PageHandler):
    """Base of the two shells."""

    def require_own_page(self) -> None:
        """Refuse other sites' frames and scripts; a link from anywhere may lead here."""
        if self.request.headers.get("Sec-Fetch-Dest", "") != "document":
            self.require_same_site()

    def show(self, conversation_id: str, file: _File) -> None:
        """Answer with the shell."""
        nonce = secrets.token_urlsafe(16)
        name = safe_name(file.name)
        shown = ShownFile(name, file.kind, _size(file.size_bytes), file.url, file.version)
        theme, bare = self.theme(), bool(self.get_query_argument("bare", ""))
        decision = decide_preview(file.kind, file.size_bytes)
        if file.kind == "pdf" and not has_pdf_viewer():
            decision = Decision(False, MISSING)
        host = self.request.host
        view = view_of(file.kind) if decision else "none"
        frame = None
        headers = shell_headers(nonce, shown=source(host, file.url.partition("?")[0]))
        if view == "frame":
            frame, path = self._open(conversation_id, file, theme)
            headers = shell_headers(
                nonce,
                framed=source(host, path),
                renew=source(host, frame.renew_url),
                fetched=source(host, file.url.partition("?")[0]) if file.kind == "pdf" else "",
            )
        page = shell_page(
            shown,
            view,
            nonce=nonce,
            frame=frame,
            reason=decision.reason,
            notice=_NO_SCRIPTS if file.kind == "html" and not has_name(host) else "",
            theme=theme,
            bare=bare,
        )
        self.answer_page(page, headers)

    def _open(self, conversation_id: str, file: _File, theme: str) -> tuple[Frame, str]:
        """Open a lease; give the frame, and the path that it must not leave."""
        previews = self.services.previews
        target = PreviewedFile(
            caller=self.caller,
            kind=file.kind,
            name=file.name,
            size_bytes=file.size_bytes,
            stored=file.stored,
            shell_url=file.shell_url,
        )
        token, lease = previews.leases.open(self.owner, conversation_id, target)
        path = url_path_join(self.base_url, "sandbox/preview/leased", token) + "/"
        renew_url = url_path_join(self.base_url, "sandbox/api/previews", lease.lease_id, "renew")
        url = f"{path}view?theme={theme}" if theme else f"{path}view"
        frame = Frame(
            url=url,
            sandbox=sandbox_of(file.kind, self.runs_scripts()),
            renew_url=renew_url,
            renew_seconds=RENEW_SECONDS,
            xsrf=self.xsrf_token.decode(),
        )
        return frame, path


class SharePreviewHandler(PreviewHandler):
    """The shell of a shared file."""

    @endpoint
    async def get(self, conversation_id: str, path: str) -> None:
        """Show the newest version, or ``?version=N``."""
        self.require_own_page()
        wanted = self.integer_argument("version", 0, 1, MOST_VERSIONS)
        share = await find_share(self, conversation_id, path, wanted)
        place = (self.base_url, conversation_id, share.path, share.version)
        file = _File(
            kind=share.preview,
            name=share.name,
            size_bytes=share.size_bytes,
            version=share.version,
            stored=share.stored,
            url=share_url(*place),
            shell_url=share_preview_url(*place),
        )
        self.show(conversation_id, file)


class UploadPreviewHandler(PreviewHandler):
    """The shell of an upload."""

    @endpoint
    async def get(self, conversation_id: str, name: str) -> None:
        """Show it."""
        self.require_own_page()
        try:
            await self.find(conversation_id)
        except NotFound:
            raise NotFound("There is no such file.") from None
        upload = await self.services.uploads.find(conversation_id, name)
        place = (self.base_url, conversation_id, upload.name)
        file = _File(
            kind=upload.preview,
            name=upload.name,
            size_bytes=upload.size_bytes,
            version=0,
            stored=upload.stored,
            url=upload_url(*place),
            shell_url=upload_preview_url(*place),
        )
        self.show(conversation_id, file)


class RenewHandler(SandboxHandler):
    """A lease of the caller's."""

    _track_activity = False

    @endpoint
    async def post(self, lease_id: str) -> None:
        """Let the preview live on for another while; its page asks for this, every 30 s."""
        if self.request.headers.get("Sec-Fetch-Site", "same-origin") != "same-origin":
            raise Forbidden("Only the preview's own page renews it.")
        self.services.previews.leases.renew(self.owner, lease_id)
        self.set_status(204)
        self.finish()


def sandbox_of(kind: str, html_scripts: bool) -> str:
    """Give the frame's ``sandbox``."""
    match kind:
        case "pdf":
            return SANDBOX_VIEWER
        case "html" if html_scripts:
            return SANDBOX_SCRIPTS
        case "markdown":
            return SANDBOX_LINKS
        case _:
            return SANDBOX_NOTHING


def _size(size_bytes: int) -> str:
    size, units = float(size_bytes), ["bytes", "kB", "MB", "GB"]
    while size >= 1000 and len(units) > 1:
        size /= 1000
        units.pop(0)
    return f"{size:,.0f} {units[0]}" if units[0] == "bytes" else f"{size:,.1f} {units[0]}"
