"""The data that the server means, for subcommands that work on it whether a server runs or not.

The server's own settings (``jupyter_server_config``) count, so that both mean the same files; what
stands on the command line comes first. The rule: where a server would not work with its settings,
nothing is done here: it would be done to other files.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from traitlets import Unicode

from ..directories import require_database
from ..stores.database import Database
from ..stores.vault_opening import MASTER_KEY_NAME
from .server_settings import ServerSettingsApp, configured_extension

_SETTINGS = ("data_dir", "db_url", "master_key_file", "policy_file")


class ServerDataApp(ServerSettingsApp):
    """Base: finds the server's files; a subclass may have more of its settings as traits."""

    config_file_name = Unicode("jupyter_server_config")
    data_dir = Unicode(help="As SandboxApp.data_dir.").tag(config=True)

    def start(self) -> None:
        """Find the server's files; exit with 1 and what is wrong if no server would work."""
        super().start()
        given = {name: getattr(self, name, "") for name in _SETTINGS}
        words = [f"--SandboxApp.{name}={value}" for name, value in given.items() if value]
        self.server: Any = configured_extension([*words, *self.settings_given])
        problems = self.server.find_wrong_settings() or self.server.find_wrong_places()
        if problems:
            self.refuse(problems)

    @property
    def directory(self) -> Path:
        """The server's data directory."""
        return Path(self.server.data_dir)

    @property
    def database_file(self) -> Path:
        """The database, where no ``db_url`` is set."""
        return self.directory / "sandbox.db"

    @property
    def key_file(self) -> Path:
        """The keyring."""
        return Path(self.server.master_key_file or self.directory / MASTER_KEY_NAME)

    @asynccontextmanager
    async def database(self) -> AsyncIterator[Database]:
        """Lend the open database, which is that of the directory's files.

        Raises
        ------
        Unavailable
            It cannot be opened, or it is another's: what is decided by it would harm these files.
        """
        database = Database(self.server.db_url or f"sqlite:///{self.database_file}")
        await database.open()
        try:
            await require_database(database.connections, self.directory)
            yield database
        finally:
            await database.close()
