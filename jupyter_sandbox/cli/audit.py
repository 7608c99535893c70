"""``jupyter sandbox audit verify|export``: is the audit log whole, and what stands in it.

They read the database and the keyring of the server's settings, whether a server runs or not.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from traitlets import Int, Unicode

from ..errors import SandboxError
from ..stores.audit_log import MARK_NAME, read_mark
from ..stores.audit_records import AuditRecords
from ..stores.master_keys import load_master_keys
from ..stores.schema import from_microseconds
from .server_data import ServerDataApp
from .strict_app import StrictApp


class _AuditBase(ServerDataApp):
    """Base: opens the records that the server means."""

    db_url = Unicode(help="As SandboxApp.db_url.").tag(config=True)
    master_key_file = Unicode(help="As SandboxApp.master_key_file.").tag(config=True)

    def start(self) -> None:
        """Do it; exit with 1 and the reason if that cannot be, or the log is not whole."""
        super().start()
        if not self.directory.is_dir():
            print(f"audit: there is no data directory {self.directory}", file=sys.stderr)
            self.exit(1)
        try:
            is_right = asyncio.run(self.work())
        except SandboxError as exc:
            print(f"audit: {exc.message} {exc.detail}".strip(), file=sys.stderr)
            is_right = False
        self.exit(0 if is_right else 1)

    async def work(self) -> bool:
        """Do what the command is for; say whether all was right."""
        raise NotImplementedError

    @asynccontextmanager
    async def records(self) -> AsyncIterator[AuditRecords]:
        """Open the records."""
        async with self.database() as database:
            master = load_master_keys(self.key_file, os.environ, may_create=False)
            yield AuditRecords(database.connections, master)


class AuditVerifyApp(_AuditBase):
    """Check the chain of the audit log: changed, removed, inserted and reordered rows are found."""

    name = "jupyter-sandbox-audit-verify"
    description = __doc__ or ""
    after = Int(0, help="Damage that servers have noted up to this row is known.").tag(config=True)
    aliases = {  # noqa: RUF012
        "after": "AuditVerifyApp.after",
        "data-dir": "AuditVerifyApp.data_dir",
        "db-url": "AuditVerifyApp.db_url",
        "master-key-file": "AuditVerifyApp.master_key_file",
    }

    async def work(self) -> bool:
        """Check, and say what is wrong."""
        mark = read_mark(self.directory / MARK_NAME)
        async with self.records() as records:
            report = await records.verify(mark, needs_mark=True, known_number=self.after)
        for problem in report.problems:
            print(problem)
        verdict = "NOT whole" if report.problems else "whole"
        line = f"audit log: {verdict}; {report.rows} rows, the last {report.number} {report.seal}"
        if report.pruned_number:
            line += f"; rows 1 to {report.pruned_number} were removed for their age"
        print(line)
        return not report.problems


class AuditExportApp(_AuditBase):
    """Print the audit log, one JSON object a line."""

    name = "jupyter-sandbox-audit-export"
    description = __doc__ or ""
    after = Int(0, help="Only rows with a higher number.").tag(config=True)
    aliases = {  # noqa: RUF012
        "data-dir": "AuditExportApp.data_dir",
        "db-url": "AuditExportApp.db_url",
        "master-key-file": "AuditExportApp.master_key_file",
        "after": "AuditExportApp.after",
    }

    async def work(self) -> bool:
        """Print."""
        after = self.after
        async with self.records() as records:
            while rows := await records.rows(after):
                for row in rows:
                    shape = {
                        "number": row.number,
                        "at": from_microseconds(row.at).isoformat(),
                        "action": row.action,
                        "actor": row.actor,
                        "conversation_id": row.conversation_id,
                        **json.loads(row.detail),
                        "seal": row.seal,
                    }
                    print(json.dumps(shape))
                after = rows[-1].number
        return True


class AuditApp(StrictApp):
    """Work with the audit log."""

    name = "jupyter-sandbox-audit"
    description = __doc__ or ""
    subcommands = {  # noqa: RUF012
        "verify": ("jupyter_sandbox.cli.audit.AuditVerifyApp", AuditVerifyApp.description),
        "export": ("jupyter_sandbox.cli.audit.AuditExportApp", AuditExportApp.description),
    }

    def start(self) -> None:
        """Hand over to the subcommand; without one, say which there are and fail."""
        super().start()
        self.print_help()
        self.exit(1)
