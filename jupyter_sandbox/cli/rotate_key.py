"""``jupyter sandbox rotate-key``: a new master key; the keys of conversations are wrapped anew.

Stored files are not touched, and a server that runs goes on: it reads the keyring again. It reads
the settings of the server (``jupyter_server_config``), so that both mean the same files.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from jupyter_core.paths import jupyter_data_dir
from traitlets import Bool, Unicode

from ..errors import SandboxError
from ..stores.conversation_keys import rewrap_all
from ..stores.database import Database
from ..stores.key_records import KeyRecords
from ..stores.master_keys import ENVIRONMENT, load_master_keys
from ..stores.vault_opening import MASTER_KEY_NAME
from .strict_app import StrictApp


class RotateKeyApp(StrictApp):
    """Make a new master key and wrap all keys by it."""

    name = "jupyter-sandbox-rotate-key"
    config_file_name = Unicode("jupyter_server_config")
    description = __doc__ or ""
    examples = "jupyter sandbox rotate-key --forget-unused"

    data_dir = Unicode(help="As SandboxApp.data_dir.").tag(config=True)
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
        data_dir = Path(self._setting("data_dir") or Path(jupyter_data_dir()) / "jupyter_sandbox")
        if not data_dir.is_dir():
            self._fail(f"there is no data directory {data_dir}: no server has run with it")
        try:
            print(asyncio.run(self._rotate(data_dir)))
        except SandboxError as exc:
            self._fail(f"{exc.message} {exc.detail}".strip())

    def _setting(self, name: str) -> str:
        mine: str = getattr(self, name)
        return mine or str(self.config.get("SandboxApp", {}).get(name, ""))

    def _fail(self, why: str) -> None:
        print(f"rotate-key: {why}", file=sys.stderr)
        self.exit(1)

    async def _rotate(self, data_dir: Path) -> str:
        database = Database(self._setting("db_url") or f"sqlite:///{data_dir / 'sandbox.db'}")
        await database.open()
        try:
            records = KeyRecords(database.connections)
            file = Path(self._setting("master_key_file") or data_dir / MASTER_KEY_NAME)
            needed = await records.count_by_master_key()
            master = load_master_keys(file, os.environ, may_create=not needed)
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
        finally:
            await database.close()
