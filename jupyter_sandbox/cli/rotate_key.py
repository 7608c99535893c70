"""``jupyter sandbox rotate-key``: a new master key; the keys of conversations are wrapped anew.

Stored files are not touched, and a server that runs goes on: it reads the keyring again. It reads
the settings of the server (``jupyter_server_config``), so that both mean the same files.
"""

from __future__ import annotations

import asyncio
import os
import sys

from traitlets import Bool, Unicode

from ..errors import SandboxError
from ..stores.conversation_keys import rewrap_all
from ..stores.key_records import KeyRecords
from ..stores.master_keys import ENVIRONMENT, load_master_keys
from .server_data import ServerDataApp


class RotateKeyApp(ServerDataApp):
    """Make a new master key and wrap all keys by it."""

    name = "jupyter-sandbox-rotate-key"
    description = __doc__ or ""
    examples = "jupyter sandbox rotate-key --forget-unused"

    db_url = Unicode(help="As SandboxApp.db_url.").tag(config=True)
    master_key_file = Unicode(help="As SandboxApp.master_key_file.").tag(config=True)
    forget_unused = Bool(
        False,
        help="Remove the keys that wrap nothing any more. Keep a backup's key with the backup.",
    ).tag(config=True)

    aliases = {  # noqa: RUF012
        "data-dir": "RotateKeyApp.data_dir",
        "db-url": "RotateKeyApp.db_url",
        "master-key-file": "RotateKeyApp.master_key_file",
    }
    flags = {  # noqa: RUF012
        "forget-unused": (
            {"RotateKeyApp": {"forget_unused": True}},
            "Remove the keys that wrap nothing any more.",
        )
    }

    def start(self) -> None:
        """Rotate; exit with 1 and the reason if that cannot be."""
        super().start()
        if not self.directory.is_dir():
            self._fail(f"there is no data directory {self.directory}: no server has run with it")
        try:
            print(asyncio.run(self._rotate()))
        except SandboxError as exc:
            self._fail(f"{exc.message} {exc.detail}".strip())

    def _fail(self, why: str) -> None:
        print(f"rotate-key: {why}", file=sys.stderr)
        self.exit(1)

    async def _rotate(self) -> str:
        async with self.database() as database:
            records = KeyRecords(database.connections)
            needed = await records.count_by_master_key()
            master = load_master_keys(self.key_file, os.environ, may_create=not needed)
            if not os.environ.get(ENVIRONMENT):
                master.add_new()
            changed = await rewrap_all(records, master)
            text = f"master key {master.ids[0]}: {changed} keys wrapped anew"
            used = await records.count_by_master_key()
            unused = [key_id for key_id in master.ids[1:] if key_id not in used]
            if self.forget_unused and unused:
                master.forget(unused)
                text += f"; forgotten: {', '.join(unused)}"
            return text
