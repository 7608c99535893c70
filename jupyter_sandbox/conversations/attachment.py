"""What is attached here of a conversation's sandbox: the link to it, whether it rests, who follows.

It asks neither the database nor the engine, and decides nothing. The rule: whoever changes it holds
the conversation's lock.
"""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections.abc import Iterator
from typing import Protocol

from ..fair_turns import NOBODY
from ..sandbox.sandbox import Sandbox
from ..sandbox.sandboxes import Sandboxes

_LOOKERS_SECONDS = 2.0


class Followers(Protocol):
    """Those who follow the sandbox as it runs: the clients of its kernel."""

    def rested(self) -> None:
        """Learn that it stands still, or is let go; at once, and nothing waits."""
        ...

    def attached(self, sandbox: Sandbox) -> None:
        """Learn that it goes on, as this one; nothing waits."""
        ...

    async def let_go(self) -> None:
        """Let go of what was connected to it; it may come back."""
        ...


class Attachment:
    """The sandbox that one conversation has in this process, or none.

    Attributes
    ----------
    owner : str
        Of the conversation, as far as it is known: whose turns the sandbox's messages take.
    rests_since : float or None
        The loop's time; None: it runs, as far as we know.
    silent_since : float or None
        The loop's time since when its guest runs and does not answer.
    """

    def __init__(self, sandboxes: Sandboxes) -> None:
        self.owner = NOBODY
        self.rests_since: float | None = None
        self.silent_since: float | None = None
        self._sandboxes = sandboxes
        self._sandbox: Sandbox | None = None
        self._followers: weakref.ref[Followers] | None = None  # they hold on to the conversation
        self._lookers = 0
        self._no_lookers = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Attachment {self._sandbox} {'rests' if self.rests_since is not None else ''}>"

    @property
    def sandbox(self) -> Sandbox | None:
        """The attached sandbox; it may be gone, or rest."""
        return self._sandbox

    @property
    def is_there(self) -> bool:
        """Whether a sandbox is attached that is not gone; it may rest."""
        return self._sandbox is not None and not self._sandbox.gone

    @property
    def is_running(self) -> bool:
        """Whether it could be lent at once."""
        return self.is_there and self.rests_since is None

    @property
    def followers(self) -> Followers | None:
        """Whoever is told what becomes of the sandbox."""
        return None if self._followers is None else self._followers()

    @followers.setter
    def followers(self, followers: Followers) -> None:
        self._followers = weakref.ref(followers)

    def run(self, sandbox: Sandbox) -> None:
        """Note that this one is attached, and runs."""
        self._sandbox = sandbox
        sandbox.python.owner = self.owner
        self.rests_since = None
        if self.followers is not None:
            self.followers.attached(sandbox)

    def rest(self) -> None:
        """Note that it stands still; what is attached stays so."""
        if self._sandbox is not None:
            self.rests_since = asyncio.get_running_loop().time()
            self._sandboxes.rested(self._sandbox)
            if self.followers is not None:
                self.followers.rested()

    async def let_go(self) -> None:
        """Detach; it runs on. Twice is once."""
        sandbox, self._sandbox = self._sandbox, None
        self.rests_since = None
        if sandbox is not None:
            if sandbox.silence is not None:
                self.silent_since = sandbox.silence.since
            if (followers := self.followers) is not None:
                followers.rested()
                await followers.let_go()
            await sandbox.detach()

    @contextlib.contextmanager
    def looked_at(self) -> Iterator[None]:
        """Count one that looks at what is attached, and uses nothing."""
        self._lookers += 1
        try:
            yield
        finally:
            self._lookers -= 1
            if not self._lookers:
                self._no_lookers.set()

    async def await_lookers(self) -> None:
        """Wait a moment for those that look: they lose what they look at."""
        if self._lookers:
            self._no_lookers.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOKERS_SECONDS):
                    await self._no_lookers.wait()
