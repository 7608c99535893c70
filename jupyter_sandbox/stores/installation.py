"""Which installation a database belongs to: the one whose data directory has the files.

The rule: a server with another data directory is refused. Its sandboxes, keys and files are others,
so it would take all that it does not have for lost.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from ..errors import Unavailable
from .connections import Connections
from .schema import installation

_SELECT = sa.select(installation.c.server_id)
_INSERT = sa.insert(installation)


async def require_installation(connections: Connections, server_id: str) -> None:
    """Check that the database is this installation's; a new one becomes it.

    Raises
    ------
    Unavailable
        It is another's.
    """

    def work(connection: sa.Connection) -> str:
        try:
            connection.execute(_INSERT, {"one": 1, "server_id": server_id})
        except IntegrityError:
            return str(connection.execute(_SELECT).scalar_one())
        return server_id

    if await connections.run(work) != server_id:
        raise Unavailable(
            "this database belongs to a server with another data directory; servers that share "
            "SandboxApp.db_url share SandboxApp.data_dir too (see the file server-id in it)",
            status=503,
        )
