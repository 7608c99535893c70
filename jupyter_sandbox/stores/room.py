"""Whether there is room on the host's disks to keep more.

Whoever watches the disks says so here (``sandbox.disk_guard``); whoever is about to keep bytes that
somebody else has sent asks first. The rule: what makes room is never refused.
"""

from __future__ import annotations

from ..errors import DiskFull


class Room:
    """The room of a server; there is some until it is said that there is none.

    Attributes
    ----------
    lack : str
        Why nothing more is kept, as a sentence that is safe to show; "" while there is room.
    """

    def __init__(self) -> None:
        self.lack = ""

    def __repr__(self) -> str:
        return f"<Room {self.lack or 'enough'}>"

    def require(self) -> None:
        """Raise ``DiskFull`` while there is none."""
        if self.lack:
            raise DiskFull(self.lack)
