"""``jupyter sandbox enable|disable`` and ``policy check``: the file of flags and grants.

They edit the same file as ``PUT /sandbox/api/policy``; running servers follow at their next
request.
"""

from __future__ import annotations

import asyncio
import getpass
import os
import sys
from pathlib import Path

from traitlets import Unicode

from ..errors import SandboxError
from ..policy.access_text import POLICY_NAME, PolicyTextError, parse_policy, with_flag
from ..stores.audit_log import MARK_NAME, AuditLog
from ..stores.audit_records import AuditRecords
from ..stores.master_keys import load_master_keys
from ..stores.whole_file import replace_text
from .server_data import ServerDataApp
from .strict_app import StrictApp


class _PolicyFileApp(ServerDataApp):
    """Base: finds the file that the server means."""

    policy_file = Unicode(help="As SandboxApp.policy_file.").tag(config=True)

    @property
    def file(self) -> Path:
        """The file."""
        return Path(self.server.policy_file or self.directory / POLICY_NAME)

    def _read(self, file: Path) -> str:
        try:
            return file.read_text(encoding="utf-8")
        except FileNotFoundError:
            return ""
        except (OSError, UnicodeDecodeError) as exc:
            return self._fail(f"{file}: {exc}")

    def _fail(self, why: str) -> str:
        print(why, file=sys.stderr)
        self.exit(1)
        return ""


class _SwitchApp(_PolicyFileApp):
    """Base of the two that switch."""

    value = True

    def start(self) -> None:
        """Switch; exit with 1 and the line when the file is not right as it is."""
        super().start()
        try:
            text = with_flag(self._read(self.file), self.value)
            replace_text(self.file, text, keeps_access=True)
        except (OSError, PolicyTextError) as exc:
            self._fail(f"{self.file}: {exc}; nothing was changed")
        print(f"{self.file}: chat_sandbox is {'on' if self.value else 'off'}")
        try:
            asyncio.run(self._note())
        except (SandboxError, OSError, KeyError) as exc:
            print(f"not in the audit log: {exc}", file=sys.stderr)

    async def _note(self) -> None:
        """Write it into the audit log, if a server has made one."""
        if not self.server.db_url and not self.database_file.exists():
            return
        async with self.database() as database:
            master = load_master_keys(self.key_file, os.environ, may_create=False)
            records = AuditRecords(database.connections, master)
            audit = AuditLog(records, self.directory / MARK_NAME, self.log)
            user = f"{getpass.getuser()} at the command line"
            audit.note("policy_changed", user, switched_on=self.value)
            await audit.flush()
            await audit.close()


class EnableApp(_SwitchApp):
    """Switch the sandbox on, for everybody who has chat access."""

    name = "jupyter-sandbox-enable"
    description = __doc__ or ""
    aliases = {"data-dir": "EnableApp.data_dir", "policy-file": "EnableApp.policy_file"}  # noqa: RUF012


class DisableApp(_SwitchApp):
    """Switch the sandbox off; what runs goes on until its idle time, and nothing is lost."""

    name = "jupyter-sandbox-disable"
    description = __doc__ or ""
    value = False
    aliases = {"data-dir": "DisableApp.data_dir", "policy-file": "DisableApp.policy_file"}  # noqa: RUF012


class PolicyCheckApp(_PolicyFileApp):
    """Say whether the file of flags and grants (or the one that is named) is right."""

    name = "jupyter-sandbox-policy-check"
    description = __doc__ or ""
    aliases = {  # noqa: RUF012
        "data-dir": "PolicyCheckApp.data_dir",
        "policy-file": "PolicyCheckApp.policy_file",
    }

    def start(self) -> None:
        """Check; exit with 1, the line and the reason when it is not."""
        super().start()
        file = Path(self.extra_args[0]) if self.extra_args else self.file
        if self.extra_args and not file.exists():
            self._fail(f"{file}: there is no such file")
        try:
            policy = parse_policy(self._read(file))
        except PolicyTextError as exc:
            self._fail(f"{file}: {exc}")
            return
        switched = "on" if policy.chat_sandbox else "off"
        print(f"{file}: right; chat_sandbox is {switched}, {len(policy.grants)} grants")


class PolicyApp(StrictApp):
    """Work with the file of flags and grants."""

    name = "jupyter-sandbox-policy"
    description = __doc__ or ""
    subcommands = {  # noqa: RUF012
        "check": ("jupyter_sandbox.cli.policy.PolicyCheckApp", PolicyCheckApp.description)
    }

    def start(self) -> None:
        """Hand over to the subcommand; without one, say which there are and fail."""
        super().start()
        self.print_help()
        self.exit(1)
