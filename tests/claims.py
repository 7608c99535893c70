"""The right to provision, taken where places are not the matter."""

from __future__ import annotations

from jupyter_sandbox.stores.database import Database
from jupyter_sandbox.stores.place_records import PlaceRecords, Taking


async def claim(
    database: Database, conversation_id: str, server: str, seconds: float, ended: str = ""
) -> bool:
    """Take it as a server does that has room for any number of sandboxes."""
    places = PlaceRecords(database.connections, database.now)
    taking = await places.claim(conversation_id, server, seconds, lambda taken: True, ended)
    return taking is Taking.TAKEN
