"""Tables of the small policies: media types, file names, owners, capacity."""

from __future__ import annotations

import io
import zipfile

import pytest

from jupyter_sandbox.policy.capacity import decide_capacity
from jupyter_sandbox.policy.media import image_type, media_of
from jupyter_sandbox.policy.names import decide_file_name
from jupyter_sandbox.policy.ownership import owner_of

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 20
JPEG = b"\xff\xd8\xff\xe0\x00\x10JFIF\x00"
SVG = b'<?xml version="1.0"?>\n<!-- made -->\n<svg xmlns="http://www.w3.org/2000/svg"></svg>'
OFFICE = "application/vnd.openxmlformats-officedocument."


def a_zip() -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("[Content_Types].xml", "<Types/>")
    return data.getvalue()


@pytest.mark.parametrize(
    ("name", "head", "media_type", "preview"),
    [
        ("a.png", PNG, "image/png", "image"),
        ("a.jpg", JPEG, "image/jpeg", "image"),
        ("a.gif", b"GIF89a\x01\x00", "image/gif", "image"),
        ("a.webp", b"RIFF\x00\x00\x00\x00WEBPVP8 ", "image/webp", "image"),
        ("a.html", PNG, "image/png", "image"),  # the contents win
        ("a.png", b"<script>alert(1)</script>", "text/plain", "text"),
        ("a.png", b"\x00\x01\x02", "application/octet-stream", "download"),
        ("a.pdf", b"%PDF-1.7\n%\xe2\xe3", "application/pdf", "pdf"),
        ("a.pdf", b"no pdf", "text/plain", "text"),
        ("a.svg", SVG, "image/svg+xml", "svg"),
        ("a.svg", b"\xef\xbb\xbf  <svg>", "image/svg+xml", "svg"),
        ("a.svg", b"<!DOCTYPE svg PUBLIC 'x' 'y'><svg >", "image/svg+xml", "svg"),
        ("a.svg", b"<html><svg></svg></html>", "text/plain", "text"),
        ("a.txt", SVG, "text/plain", "text"),
        ("a.html", b"<!doctype html><p>\xc3\xbc", "text/html", "html"),
        ("A.HTM", b"<p>", "text/html", "html"),
        ("a.html", b"\x00<p>", "application/octet-stream", "download"),
        ("a.md", b"# T", "text/markdown", "markdown"),
        ("a.csv", b"a,b\n1,2\n", "text/csv", "text"),
        ("a.json", b"{}", "application/json", "text"),
        ("a.py", b"print()", "text/plain", "text"),
        ("a.jsx", b"<App/>", "text/plain", "text"),
        ("a.tsx", b"<App/>", "text/plain", "text"),
        ("a.mermaid", b"graph TD", "text/plain", "text"),
        ("Makefile", b"all:\n\techo", "text/plain", "text"),
        ("a.txt", b"", "text/plain", "text"),
        ("a.txt", "Grüße".encode("latin-1") + b" aus Wien", "text/plain", "text"),
        ("a.txt", "ü".encode("utf-16"), "text/plain", "text"),
        ("cut.txt", "aé".encode()[:2], "text/plain", "text"),  # the head ends in a character
        ("a.bin", bytes(range(128, 256)), "application/octet-stream", "download"),
        ("a.mp4", b"\x00\x00\x00\x20ftypisom\x00", "video/mp4", "video"),
        ("a.m4a", b"\x00\x00\x00\x20ftypM4A \x00", "audio/mp4", "audio"),
        ("a.avif", b"\x00\x00\x00\x20ftypavif\x00", "image/avif", "download"),
        ("a.webm", b"\x1a\x45\xdf\xa3\x01\x42\x82\x84webm", "video/webm", "video"),
        ("a.mkv", b"\x1a\x45\xdf\xa3\x01\x42\x82\x88matroska", "video/x-matroska", "download"),
        ("a.mp3", b"ID3\x04\x00", "audio/mpeg", "audio"),
        ("a.mp3", b"\xff\xfb\x90\x00", "audio/mpeg", "audio"),
        ("a.bin", b"\xff\xfb\x90\x00", "application/octet-stream", "download"),
        ("a.wav", b"RIFF\x00\x00\x00\x00WAVEfmt ", "audio/wav", "audio"),
        ("a.avi", b"RIFF\x00\x00\x00\x00AVI ", "application/octet-stream", "download"),
        ("a.ogg", b"OggS\x00\x02" + b"\0" * 20 + b"\x01vorbis", "audio/ogg", "audio"),
        ("a.ogv", b"OggS\x00\x02" + b"\0" * 20 + b"\x80theora", "video/ogg", "video"),
        ("a.docx", a_zip(), OFFICE + "wordprocessingml.document", "download"),
        ("a.xlsx", a_zip(), OFFICE + "spreadsheetml.sheet", "download"),
        ("a.pptx", a_zip(), OFFICE + "presentationml.presentation", "download"),
        ("a.zip", a_zip(), "application/zip", "download"),
        ("a.html", a_zip(), "application/zip", "download"),
        ("a.tar.gz", b"\x1f\x8b\x08", "application/gzip", "download"),
        ("a.so", b"\x7fELF\x02\x01\x01\x00", "application/octet-stream", "download"),
    ],
)
def test_the_type_comes_from_the_contents(name, head, media_type, preview):
    media = media_of(name, head)
    assert (media.media_type, media.preview) == (media_type, preview)


@pytest.mark.parametrize(
    ("head", "media_type"),
    [(PNG, "image/png"), (JPEG, "image/jpeg"), (SVG, None), (b"", None), (b"GIF8", None)],
)
def test_images_for_a_model_are_raster_images(head, media_type):
    assert image_type(head) == media_type


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("a", True),
        ("Bericht – März 日本 🎉.xlsx", True),
        (" .hidden ", True),
        ("..a", True),
        ("...", True),
        ("a" * 255, True),
        ("ä" * 127 + "a", True),
        ("a" * 256, False),
        ("ä" * 128, False),
        ("", False),
        (".", False),
        ("..", False),
        ("a/b", False),
        ("a\\b", False),
        ("a\0b", False),
        ("a\nb", False),
        ("a\x7fb", False),
        ("a\x85b", False),
        ("a\u2028b", False),
        ("a\ud800b", False),
    ],
)
def test_file_names(name, allowed):
    decision = decide_file_name(name)
    assert decision.allowed is allowed
    assert bool(decision) is allowed
    assert bool(decision.reason) is not allowed


@pytest.mark.parametrize(
    ("username", "single_secret", "mode", "owner"),
    [
        ("5e8f0c", True, "auto", "local"),
        ("alice", False, "auto", "alice"),
        ("alice", True, "username", "alice"),
        ("alice", False, "constant", "local"),
        ("", True, "auto", "local"),
    ],
)
def test_owners(username, single_secret, mode, owner):
    assert owner_of(username, single_secret, mode) == owner


def test_a_user_without_a_name_owns_nothing():
    with pytest.raises(ValueError, match="without a name"):
        owner_of("", False)
    with pytest.raises(ValueError, match="neither"):
        owner_of("alice", False, "neither")


def test_capacity_ends_at_its_last_byte():
    assert decide_capacity(5 * 1024**3, 5 * 1024**3).allowed
    assert decide_capacity(5 * 1024**3 + 1, 5 * 1024**3).reason == (
        "This conversation's attached files exceed the sandbox capacity (5 GiB combined). "
        "Archive or remove some files and try again."
    )
