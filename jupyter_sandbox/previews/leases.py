"""Leased capabilities: short-lived, unguessable names for what one owner looks at.

A preview lives in a frame that has no cookies, so its URL itself must be what lets it in. It knows
nothing of HTTP or of what is previewed. The rules: a token is kept as its hash only; it lives as
long as the page around the preview renews it, and never longer than ``life_seconds``; there are
never more than ``most`` of them; no await, so nothing comes between a look and a change.

Source: reference/security.md 6.4.
"""

from __future__ import annotations

import hashlib
import secrets
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from ..errors import NotFound

T = TypeVar("T")

IDLE_SECONDS = 120.0
"""A lease that is not renewed for so long has ended."""
LIFE_SECONDS = 12 * 3600.0

_TOKEN_BYTES = 32
_MOST = 4096
_MOST_OF_OWNER = 128


@dataclass(eq=False)
class Lease(Generic[T]):
    """What a token lets in to.

    Attributes
    ----------
    lease_id : str
        Its public name, with which it is renewed; it opens nothing and may be logged.
    target : T
        What is previewed.
    opened_at, renewed_at : float
        By the clock of its ``Leases``.
    """

    lease_id: str
    owner: str
    conversation_id: str
    target: T
    opened_at: float
    renewed_at: float
    digest: bytes = field(repr=False)


class Leases(Generic[T]):
    """The leases of one server process; a restart ends them all.

    Parameters
    ----------
    clock : callable
        Gives seconds that never go back.
    most, most_of_owner : int
        Beyond these the one that was renewed longest ago ends.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        idle_seconds: float = IDLE_SECONDS,
        life_seconds: float = LIFE_SECONDS,
        most: int = _MOST,
        most_of_owner: int = _MOST_OF_OWNER,
    ) -> None:
        self._clock = clock
        self._idle_seconds = idle_seconds
        self._life_seconds = life_seconds
        self._most = most
        self._most_of_owner = most_of_owner
        self._by_digest: dict[bytes, Lease[T]] = {}
        self._by_id: dict[str, Lease[T]] = {}

    def __repr__(self) -> str:
        return f"<Leases {len(self._by_id)} of at most {self._most}>"

    def open(self, owner: str, conversation_id: str, target: T) -> tuple[str, Lease[T]]:
        """Give a new token, which is kept nowhere, and its lease."""
        self._make_room(owner)
        token = secrets.token_urlsafe(_TOKEN_BYTES)
        now = self._clock()
        lease = Lease(
            lease_id=uuid.uuid4().hex,
            owner=owner,
            conversation_id=conversation_id,
            target=target,
            opened_at=now,
            renewed_at=now,
            digest=_digest(token),
        )
        self._by_digest[lease.digest] = self._by_id[lease.lease_id] = lease
        return token, lease

    def find(self, token: str) -> Lease[T]:
        """Give the lease of a token; ``NotFound`` alike for one that never was and an ended one."""
        lease = self._by_digest.get(_digest(token))
        if lease is None or not self.is_live(lease):
            raise NotFound("There is no such preview.")
        return lease

    def renew(self, owner: str, lease_id: str) -> None:
        """Let it live on; ``NotFound`` alike for one that has ended and somebody else's."""
        lease = self._by_id.get(lease_id)
        if lease is None or lease.owner != owner or not self.is_live(lease):
            raise NotFound("There is no such preview.")
        lease.renewed_at = self._clock()

    def is_live(self, lease: Lease[T]) -> bool:
        """Say whether it still lets in; who keeps a connection open under it asks now and then."""
        now = self._clock()
        if (
            now - lease.renewed_at <= self._idle_seconds
            and now - lease.opened_at <= self._life_seconds
        ):
            return lease.lease_id in self._by_id
        self._end(lease)
        return False

    def end_conversation(self, conversation_id: str) -> None:
        """End all of a conversation that is deleted or stopped. Twice is once."""
        for lease in list(self._by_id.values()):
            if lease.conversation_id == conversation_id:
                self._end(lease)

    def _make_room(self, owner: str) -> None:
        for lease in list(self._by_id.values()):
            self.is_live(lease)  # those that have ended go
        own = [lease for lease in self._by_id.values() if lease.owner == owner]
        if len(own) >= self._most_of_owner:
            self._end(min(own, key=lambda lease: lease.renewed_at))
        if len(self._by_id) >= self._most:
            self._end(min(self._by_id.values(), key=lambda lease: lease.renewed_at))

    def _end(self, lease: Lease[T]) -> None:
        self._by_id.pop(lease.lease_id, None)
        self._by_digest.pop(lease.digest, None)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
