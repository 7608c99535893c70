"""Seals what users wrote and saw, in the database's rows: each under its conversation's key.

It knows bytes and keys, no tables. A sealed value is::

    version (1) · nonce (12) · AES-256-GCM of the value, with its tag

The cipher's key is derived from the conversation's key (HKDF-SHA256), which is never used as it is.
The associated data names the conversation and the value's place (table, column, row): what lies in
another place does not open. Nonces are random: the chance that two of one conversation's first
2**32 values have the same is 2**-33. Who destroys a conversation's key has deleted its values,
wherever copies of them are.

Source: https://nvlpubs.nist.gov/nistpubs/Legacy/SP/nistspecialpublication800-38d.pdf (8.2.2, 8.3).
"""

from __future__ import annotations

import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from ..errors import NotFound, Unavailable
from .conversation_keys import ConversationKeys
from .master_keys import KEY_BYTES
from .vault_format import joined

_VERSION = b"\x01"
_NONCE_BYTES = 12
_TAG_BYTES = 16
SEAL_BYTES = len(_VERSION) + _NONCE_BYTES + _TAG_BYTES
"""How much longer a value is when it is sealed."""


class RowSeal:
    """Seals and opens the values of one conversation."""

    def __init__(self, conversation_id: str, key: bytes) -> None:
        derived = HKDF(SHA256(), KEY_BYTES, salt=None, info=b"jupyter-sandbox rows").derive(key)
        self._conversation_id = conversation_id
        self._cipher = AESGCM(derived)

    def __repr__(self) -> str:
        return f"<RowSeal of {self._conversation_id}>"

    def seal(self, value: bytes, *place: str) -> bytes:
        """Give the sealed form of a value for the place that these words name."""
        nonce = os.urandom(_NONCE_BYTES)
        return _VERSION + nonce + self._cipher.encrypt(nonce, value, self._about(place))

    def open(self, sealed: bytes, *place: str) -> bytes:
        """Give the value that was sealed for this place; ``Unavailable`` if it is another."""
        nonce, rest = sealed[1 : 1 + _NONCE_BYTES], sealed[1 + _NONCE_BYTES :]
        try:
            if not sealed.startswith(_VERSION):
                raise ValueError("the version is unknown")
            return self._cipher.decrypt(nonce, rest, self._about(place))
        except (InvalidTag, ValueError) as exc:
            raise Unavailable(
                "what the database holds of this conversation is damaged (changed or swapped); "
                "an administrator can restore it from a backup",
                detail=f"{self._conversation_id}: {' '.join(place)}",
            ) from exc

    def _about(self, place: tuple[str, ...]) -> bytes:
        return _VERSION + joined(self._conversation_id, *place)


class RowSeals:
    """Gives what seals the values of a conversation."""

    def __init__(self, keys: ConversationKeys) -> None:
        self._keys = keys

    def __repr__(self) -> str:
        return f"<RowSeals {self._keys!r}>"

    async def get_or_make(self, conversation_id: str) -> RowSeal:
        """Give it, for new values; ``NotFound`` if the conversation was deleted."""
        return RowSeal(conversation_id, await self._keys.get_or_make(conversation_id))

    async def find(self, conversation_id: str) -> RowSeal | None:
        """Give it, to open values; None if the conversation has no key, so nothing sealed."""
        try:
            return RowSeal(conversation_id, await self._keys.get(conversation_id))
        except NotFound:
            return None
