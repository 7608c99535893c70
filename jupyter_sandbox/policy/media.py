"""What kind of file it is, from its first bytes; the name only says which kind of text.

The rule: the host chooses the media type, the sandbox never does. Binary formats are known by their
magic bytes whatever they are called; a name can turn text into HTML, SVG, Markdown or JSON, but
never bytes into text. What is not known is for download only.
"""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass
from typing import Literal

Preview = Literal["image", "svg", "pdf", "html", "markdown", "text", "video", "audio", "download"]

HEAD_BYTES = 8192
"""How much of a file ``media_of`` wants to see; less will do."""


@dataclass(frozen=True)
class Media:
    """A media type that is safe to send, and how SPEC.md 4 shows it."""

    media_type: str
    preview: Preview


UNKNOWN = Media("application/octet-stream", "download")
TEXT = Media("text/plain", "text")

_MAGIC: tuple[tuple[bytes, Media], ...] = (
    (b"\x89PNG\r\n\x1a\n", Media("image/png", "image")),
    (b"\xff\xd8\xff", Media("image/jpeg", "image")),
    (b"GIF87a", Media("image/gif", "image")),
    (b"GIF89a", Media("image/gif", "image")),
    (b"%PDF-", Media("application/pdf", "pdf")),
    (b"ID3", Media("audio/mpeg", "audio")),
    (b"fLaC", Media("audio/flac", "audio")),
    (b"\x1f\x8b", Media("application/gzip", "download")),
    (b"BZh", Media("application/x-bzip2", "download")),
    (b"\xfd7zXZ\x00", Media("application/x-xz", "download")),
    (b"7z\xbc\xaf\x27\x1c", Media("application/x-7z-compressed", "download")),
    (b"SQLite format 3\x00", Media("application/vnd.sqlite3", "download")),
)

_RIFF = {
    b"WEBP": Media("image/webp", "image"),
    b"WAVE": Media("audio/wav", "audio"),
}

_OFFICE = "application/vnd.openxmlformats-officedocument."
_ODF = "application/vnd.oasis.opendocument."
_ZIP_BASED = {
    "docx": _OFFICE + "wordprocessingml.document",
    "xlsx": _OFFICE + "spreadsheetml.sheet",
    "pptx": _OFFICE + "presentationml.presentation",
    "odt": _ODF + "text",
    "ods": _ODF + "spreadsheet",
    "odp": _ODF + "presentation",
    "epub": "application/epub+zip",
}

_TEXTS = {
    "html": Media("text/html", "html"),
    "htm": Media("text/html", "html"),
    "md": Media("text/markdown", "markdown"),
    "markdown": Media("text/markdown", "markdown"),
    "csv": Media("text/csv", "text"),
    "json": Media("application/json", "text"),
    "ipynb": Media("application/json", "text"),
}

_SVG = Media("image/svg+xml", "svg")
# Possessive (*+): what has been passed is not tried in another way, so the time is linear.
_SVG_ROOT = re.compile(
    r"\ufeff?(?:\s+|<\?xml[^>]{0,500}\?>|<!--.*?-->|<!DOCTYPE[^>\[]{0,500}>)*+<svg[\s>/]",
    re.DOTALL | re.IGNORECASE,
)
# What text may have below a space: tab, line feed, form feed, carriage return, escape.
_BINARY_CONTROLS = re.compile(rb"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f]")


def media_of(name: str, head: bytes) -> Media:
    """Give what a file is.

    Parameters
    ----------
    name : str
        Its name; only the extension is looked at.
    head : bytes
        Its first ``HEAD_BYTES``, or all of it.
    """
    extension = name.rpartition(".")[2].lower() if "." in name else ""
    for magic, media in _MAGIC:
        if head.startswith(magic):
            return media
    container = _container(extension, head)
    if container is not None:
        return container
    if not is_text(head):
        return UNKNOWN
    if extension == "svg" and _SVG_ROOT.match(head.decode("utf-8", "replace")):
        return _SVG
    return _TEXTS.get(extension, TEXT)


def image_type(head: bytes) -> str | None:
    """Give the media type of an image that a model can look at (png, jpeg, gif, webp), or None."""
    media = media_of("", head)
    return media.media_type if media.preview == "image" else None


def is_text(head: bytes) -> bool:
    """Decide whether these first bytes are text in UTF-8, UTF-16 with its mark, or Latin-1."""
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return True
    if _BINARY_CONTROLS.search(head):
        return False
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        # Latin-1 or Windows text has few such bytes, and a line somewhere.
        high = sum(byte >= 0x80 for byte in head)
        return high * 10 <= len(head) * 3
    return True


def _container(extension: str, head: bytes) -> Media | None:
    """Look into the formats whose first bytes are shared by several kinds."""
    if head[:4] == b"RIFF":
        return _RIFF.get(head[8:12], UNKNOWN)
    if head[4:8] == b"ftyp":
        return _mp4(head[8:12])
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        if b"webm" in head[:64]:
            return Media("video/webm", "video")
        return Media("video/x-matroska", "download")
    if head.startswith(b"OggS"):
        if b"theora" in head[:128]:
            return Media("video/ogg", "video")
        return Media("audio/ogg", "audio")
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return Media(_ZIP_BASED.get(extension, "application/zip"), "download")
    # An MPEG frame without a tag begins with eleven bits of ones: too few to go by alone.
    if extension == "mp3" and len(head) > 2 and head[0] == 0xFF and head[1] & 0xE6 == 0xE2:
        return Media("audio/mpeg", "audio")
    return None


def _mp4(brand: bytes) -> Media:
    if brand in (b"M4A ", b"M4B "):
        return Media("audio/mp4", "audio")
    if brand in (b"avif", b"avis"):
        return Media("image/avif", "download")
    if brand in (b"heic", b"heix", b"mif1", b"msf1"):
        return Media("image/heic", "download")
    if brand == b"qt  ":
        return Media("video/quicktime", "download")
    return Media("video/mp4", "video")
