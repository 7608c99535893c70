"""Which installation a database belongs to: the one whose data directory has the files.

The rule: the two belong together, and a server that has them otherwise is refused. With another
data directory it would take what it does not have for lost; with another database it would take
all files for left-overs, and remove them.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from ..errors import Unavailable
from .connections import Connections
from .schema import conversations, installation

_SELECT = sa.select(installation.c.server_id)
_INSERT = sa.insert(installation)
_ANY = sa.select(conversations.c.conversation_id).limit(1)


async def require_installation(
    connections: Connections, server_id: str, has_files: bool = False
) -> None:
    """Check that the database is this installation's; a new one becomes it.

    Parameters
    ----------
    has_files : bool
        The data directory has stored files, so there was a database that names them.

    Raises
    ------
    Unavailable
        It is another's, or it is new and the files are not.
    """

    def work(connection: sa.Connection) -> str:
        if has_files and _is_new(connection):
            raise Unavailable(
                "this database is new, but the data directory has files of conversations that "
                "another database names; set SandboxApp.db_url to that one, restore it from a "
                "backup, or move the folder `vault` away to begin anew",
                status=503,
            )
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


def _is_new(connection: sa.Connection) -> bool:
    no_row = connection.execute(_SELECT).first() is None
    return no_row and connection.execute(_ANY).first() is None
