"""The data that the server means, for subcommands that work on it whether a server runs or not.

The server's own settings (``jupyter_server_config``) count, so that both mean the same files; what
stands on the command line comes first.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from jupyter_core.paths import jupyter_data_dir
from traitlets import Unicode

from ..directories import require_database
from ..stores.database import Database
from ..stores.vault_opening import MASTER_KEY_NAME
from .strict_app import StrictApp


class ServerDataApp(StrictApp):
    """Base: finds the server's files; a subclass may have more of its settings as traits."""

    config_file_name = Unicode("jupyter_server_config")
    data_dir = Unicode(help="As SandboxApp.data_dir.").tag(config=True)

    @property
    def directory(self) -> Path:
        """The server's data directory."""
        return Path(self.setting("data_dir") or Path(jupyter_data_dir()) / "jupyter_sandbox")

    @property
    def database_file(self) -> Path:
        """The database, where no ``db_url`` is set."""
        return self.directory / "sandbox.db"

    @property
    def key_file(self) -> Path:
        """The keyring."""
        return Path(self.setting("master_key_file") or self.directory / MASTER_KEY_NAME)

    def setting(self, name: str) -> str:
        """Give a setting of the server: as on the command line, else as configured; "" if unset."""
        mine: str = getattr(self, name, "")
        return mine or str(self.config.get("SandboxApp", {}).get(name, ""))

    @asynccontextmanager
    async def database(self) -> AsyncIterator[Database]:
        """Lend the open database, which is that of the directory's files.

        Raises
        ------
        Unavailable
            It cannot be opened, or it is another's: what is decided by it would harm these files.
        """
        database = Database(self.setting("db_url") or f"sqlite:///{self.database_file}")
        await database.open()
        try:
            await require_database(database.connections, self.directory)
            yield database
        finally:
            await database.close()
