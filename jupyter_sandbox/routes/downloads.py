"""``/sandbox/files``: shared files, by path and version, and all of them as a zip; and their list.

The rule (SPEC.md 4): 401, 503, 403, 404, 502 are found out in this order; what is missing and what
is somebody else's answer alike.
"""

from __future__ import annotations

from ..conversations.archive import Archive
from ..conversations.placing import newest
from ..errors import NotFound
from ..models import JsonValue, ShareRecord
from ..policy.names import decide_file_name
from .base import SandboxHandler, endpoint
from .links import preview_link, share_preview_url, share_url
from .sending import SendingHandler

MOST_VERSIONS = 2**31 - 1


class SharesHandler(SandboxHandler):
    """The shared files of a conversation."""

    @endpoint
    async def get(self, conversation_id: str) -> None:
        """List them, sorted by path: the newest version of each, and all its versions."""
        await self.find(conversation_id)
        records = await self.services.database.shares(conversation_id)
        by_path: dict[str, list[ShareRecord]] = {}
        for record in sorted(records, key=lambda record: -record.version):
            by_path.setdefault(record.path, []).append(record)
        shares: list[JsonValue] = []
        for record in newest(records):
            place = (self.base_url, conversation_id, record.path)
            versions: list[JsonValue] = [
                {
                    **_version_json(other),
                    "url": share_url(*place, other.version),
                    "preview_url": preview_link(
                        other.preview, share_preview_url(*place, other.version)
                    ),
                }
                for other in by_path[record.path]
            ]
            shares.append(
                {
                    "path": record.path,
                    "name": record.name,
                    **_version_json(record),
                    "url": share_url(*place),
                    "preview_url": preview_link(record.preview, share_preview_url(*place)),
                    "versions": versions,
                }
            )
        self.answer({"shares": shares})


class FileHandler(SendingHandler):
    """One shared file."""

    @endpoint
    async def get(self, conversation_id: str, path: str) -> None:
        """Send the newest version, or ``?version=N``."""
        await self._send(conversation_id, path)

    @endpoint
    async def head(self, conversation_id: str, path: str) -> None:
        """Give the headers of ``get``."""
        await self._send(conversation_id, path)

    async def _send(self, conversation_id: str, path: str) -> None:
        self.require_same_site()
        version = self.integer_argument("version", 0, 1, MOST_VERSIONS)
        share = await find_share(self, conversation_id, path, version)
        async with self.services.files.reading(share.stored) as reader:
            await self.send_file(
                reader,
                name=share.name,
                media_type=share.media_type,
                sha256=share.sha256,
                size_bytes=share.size_bytes,
            )


class ZipHandler(SendingHandler):
    """All shared files."""

    @endpoint
    async def get(self, conversation_id: str) -> None:
        """Send a zip of the newest versions."""
        await self._send(conversation_id)

    @endpoint
    async def head(self, conversation_id: str) -> None:
        """Give the headers of ``get``."""
        await self._send(conversation_id)

    async def _send(self, conversation_id: str) -> None:
        self.require_same_site()
        try:
            record = await self.find(conversation_id)
        except NotFound:
            raise NotFound("There is no such file.") from None
        shares = newest(await self.services.database.shares(conversation_id))
        archive = Archive(self.services.files, shares)
        await archive.check()
        self.name_download(f"{record.title or 'shared files'}.zip")
        await self.send_pieces(archive.pieces(), archive.size_bytes, "application/zip")


async def find_share(
    handler: SandboxHandler, conversation_id: str, path: str, version: int
) -> ShareRecord:
    """Give a version of the caller's shared file (0: the newest), or raise ``NotFound``."""
    try:
        await handler.find(conversation_id)
    except NotFound:
        raise NotFound("There is no such file.") from None
    share = None
    if all(decide_file_name(part) for part in path.split("/")):
        share = await handler.services.database.share(conversation_id, path, version)
    if share is None:
        raise NotFound("There is no such file.")
    return share


def _version_json(record: ShareRecord) -> dict[str, JsonValue]:
    return {
        "id": record.share_id,
        "version": record.version,
        "size_bytes": record.size_bytes,
        "media_type": record.media_type,
        "preview": record.preview,
        "sha256": record.sha256,
        "created_at": record.created_at.isoformat(),
    }
