"""How one file lies in the vault: encrypted in chunks whose order, end and length are authentic.

It knows bytes and keys, no files and no database. A sealed file is::

    header   "JSBXVLT2" · data key wrapped by the conversation's key (RFC 3394) · nonce prefix
    chunks   64 KiB of plaintext each, the last one shorter; an empty file has one empty chunk
    footer   size and SHA-256 of the plaintext

Each chunk and the footer are AES-256-GCM under the file's own data key, with the nonce
``prefix (7) || counter (4) || mark (1)``; the mark is 0 for a chunk, 1 for the last one, 2 for the
footer. That is the STREAM construction. The associated data names the conversation, the file's id,
its kind, its name and its version: sealed bytes that lie in another file's place do not open. Files
of earlier versions of this package ("JSBXVLT1") have no version in it; what lets them open as no
other version either is for the caller (``Opening``).

The rule: what does not open as exactly this file is ``Unavailable``, and gives no byte.

Source: https://eprint.iacr.org/2015/189 (Hoang, Reyhanitabar, Rogaway, Vizár: STREAM).
"""

from __future__ import annotations

import os
from collections.abc import Callable

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.keywrap import (
    InvalidUnwrap,
    aes_key_unwrap,
    aes_key_wrap,
)

from ..errors import Unavailable
from ..models import FileIdentity, StoredFile

MAGIC = b"JSBXVLT2"
UNVERSIONED_MAGIC = b"JSBXVLT1"
CHUNK_BYTES = 64 * 1024
TAG_BYTES = 16
SEALED_CHUNK_BYTES = CHUNK_BYTES + TAG_BYTES
KEY_BYTES = 32

_WRAPPED_KEY_BYTES = KEY_BYTES + 8
_PREFIX_BYTES = 7
_DIGEST_BYTES = 32
HEADER_BYTES = len(MAGIC) + _WRAPPED_KEY_BYTES + _PREFIX_BYTES
FOOTER_BYTES = 8 + _DIGEST_BYTES + TAG_BYTES

_MORE, _LAST, _FOOTER = b"\x00", b"\x01", b"\x02"
_NO_COUNTER = b"\xff" * 4  # of the footer; 2**32 - 1 chunks are 256 TiB


def sealed_size(size_bytes: int) -> int:
    """Give the size of the sealed form of ``size_bytes`` of plaintext."""
    return HEADER_BYTES + size_bytes + TAG_BYTES * chunk_count(size_bytes) + FOOTER_BYTES


def chunk_count(size_bytes: int) -> int:
    """Give in how many chunks so much plaintext lies; at least one."""
    return max(1, -(-size_bytes // CHUNK_BYTES))


def damaged(detail: str) -> Unavailable:
    """Give the error of a stored file that was changed, cut, extended or swapped."""
    return Unavailable(
        "the stored file is damaged (changed, cut or swapped in the store); nothing of it was "
        "delivered. Restore the store from a backup, or upload or share the file again",
        detail=detail,
    )


class Sealing:
    """Seals one file as its plaintext comes.

    Parameters
    ----------
    identity : FileIdentity
        Which file it is: the sealed form opens as this one only.
    conversation_key : bytes
        The key that the data key is wrapped with.
    """

    def __init__(self, identity: FileIdentity, conversation_key: bytes) -> None:
        data_key = os.urandom(KEY_BYTES)
        self._prefix = os.urandom(_PREFIX_BYTES)
        self._cipher = AESGCM(data_key)
        self._about = _associated_data(identity)
        self._pending = bytearray()
        self._scratch = bytearray()
        self._room = bytearray()  # used again: new memory costs more than the cipher
        self._chunks = 0
        self.header = MAGIC + aes_key_wrap(conversation_key, data_key) + self._prefix

    def __repr__(self) -> str:
        return f"<Sealing {self._chunks} chunks>"

    def update(self, data: bytes | bytearray) -> memoryview:
        """Take plaintext; give sealed chunks, until the next call. The last one is held back."""
        whole = max(0, (len(self._pending) + len(data) - 1) // CHUNK_BYTES)
        if len(self._room) < whole * SEALED_CHUNK_BYTES:
            self._room = bytearray(whole * SEALED_CHUNK_BYTES)
        room = memoryview(self._room)[: whole * SEALED_CHUNK_BYTES]
        view, start = memoryview(data), 0
        for index in range(whole):
            place = room[index * SEALED_CHUNK_BYTES : (index + 1) * SEALED_CHUNK_BYTES]
            nonce = self._nonce(self._chunks, _MORE)
            self._chunks += 1
            if self._pending:
                start = CHUNK_BYTES - len(self._pending)
                self._pending += view[:start]
                self._cipher.encrypt_into(nonce, bytes(self._pending), self._about, place)
                self._pending.clear()
            else:
                piece = view[start : start + CHUNK_BYTES]
                self._cipher.encrypt_into(nonce, piece, self._about, place)
                start += CHUNK_BYTES
        self._pending += view[start:]
        return room

    def finish(self, size_bytes: int, sha256: bytes) -> bytes:
        """Give the last chunk and the footer."""
        nonce = self._nonce(self._chunks, _LAST)
        last = self._cipher.encrypt(nonce, bytes(self._pending), self._about)
        footer = self._cipher.encrypt(
            self._prefix + _NO_COUNTER + _FOOTER,
            size_bytes.to_bytes(8, "big") + sha256,
            self._about,
        )
        self._pending.clear()
        return last + footer

    def check(self, first: int, sealed: bytes) -> None:
        """Raise ``Unavailable`` if these are not the chunks from ``first`` on that were given."""
        if len(self._scratch) < CHUNK_BYTES:
            self._scratch = bytearray(CHUNK_BYTES)
        with memoryview(sealed) as view:
            for index, start in enumerate(range(0, len(view), SEALED_CHUNK_BYTES), first):
                piece = view[start : start + SEALED_CHUNK_BYTES]
                try:
                    nonce = self._nonce(index, _MORE)
                    self._cipher.decrypt_into(nonce, piece, self._about, self._scratch)
                except InvalidTag as exc:
                    raise damaged(f"chunk {index} was not written as it is") from exc

    def _nonce(self, chunk: int, mark: bytes) -> bytes:
        return self._prefix + chunk.to_bytes(4, "big") + mark


class Opening:
    """Opens the chunks of one sealed file, in any order.

    Parameters
    ----------
    file : StoredFile
        What the caller expects: a file that is another, or another version, is refused.
    header, footer : bytes
        The first ``HEADER_BYTES`` and last ``FOOTER_BYTES`` of the sealed form.
    unversioned : callable
        Says whether a file may be one that was sealed without its version.
    """

    def __init__(
        self,
        file: StoredFile,
        conversation_key: bytes,
        header: bytes,
        footer: bytes,
        unversioned: Callable[[FileIdentity], bool] = lambda identity: False,
    ) -> None:
        magic = header[: len(MAGIC)]
        if len(header) != HEADER_BYTES or magic not in (MAGIC, UNVERSIONED_MAGIC):
            raise damaged("no header")
        if magic == UNVERSIONED_MAGIC and not unversioned(file.identity):
            raise damaged("another version, or one that was sealed without its version")
        wrapped = header[len(MAGIC) : -_PREFIX_BYTES]
        try:
            data_key = aes_key_unwrap(conversation_key, wrapped)
        except InvalidUnwrap as exc:
            raise damaged("the data key does not unwrap") from exc
        self._cipher = AESGCM(data_key)
        self._prefix = header[-_PREFIX_BYTES:]
        self._about = _associated_data(file.identity, magic)
        self._size_bytes = file.size_bytes
        self._last = chunk_count(file.size_bytes) - 1
        said = self._open_footer(footer)
        expected = file.size_bytes.to_bytes(8, "big") + bytes.fromhex(file.sha256)
        if said != expected:
            raise damaged("another version: size or hash is not that of the record")

    def __repr__(self) -> str:
        return f"<Opening of {self._last + 1} chunks>"

    def sealed_bytes(self, first: int, count: int) -> int:
        """Give the size of so many sealed chunks from ``first`` on, which must exist."""
        plain = min((first + count) * CHUNK_BYTES, self._size_bytes) - first * CHUNK_BYTES
        return plain + count * TAG_BYTES

    def chunks(self, first: int, sealed: bytes, scratch: bytearray) -> memoryview:
        """Give the plaintext of consecutive sealed chunks, ``first`` being the number of one.

        It lies in ``scratch``, which grows as needed, until that is used again.
        """
        count = -(-len(sealed) // SEALED_CHUNK_BYTES)
        size = max(0, len(sealed) - count * TAG_BYTES)
        if len(scratch) < size:
            scratch.extend(bytes(size - len(scratch)))
        room = memoryview(scratch)[:size]
        with memoryview(sealed) as view:
            for index in range(count):
                piece = view[index * SEALED_CHUNK_BYTES : (index + 1) * SEALED_CHUNK_BYTES]
                place = room[index * CHUNK_BYTES : (index + 1) * CHUNK_BYTES]
                number = first + index
                mark = _LAST if number == self._last else _MORE
                nonce = self._prefix + number.to_bytes(4, "big") + mark
                try:
                    self._cipher.decrypt_into(nonce, piece, self._about, place)
                except (InvalidTag, ValueError) as exc:  # changed, or too short for a tag
                    raise damaged(f"chunk {number}") from exc
        return room

    def _open_footer(self, sealed: bytes) -> bytes:
        try:
            nonce = self._prefix + _NO_COUNTER + _FOOTER
            return self._cipher.decrypt(nonce, sealed, self._about)
        except InvalidTag as exc:
            raise damaged("footer") from exc


def joined(*parts: str) -> bytes:
    """Give texts as one, each behind its length: other texts give other bytes."""
    encoded = [part.encode("utf-8") for part in parts]
    return b"".join(len(part).to_bytes(4, "big") + part for part in encoded)


def _associated_data(identity: FileIdentity, magic: bytes = MAGIC) -> bytes:
    parts = [identity.conversation_id, identity.file_id, identity.kind, identity.name]
    if magic == MAGIC:
        parts.append(str(identity.version))
    return magic + joined(*parts)
