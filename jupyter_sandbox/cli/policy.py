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

from jupyter_core.paths import jupyter_data_dir
from traitlets import Unicode

from ..errors import SandboxError
from ..policy.access_text import POLICY_NAME, PolicyTextError, parse_policy, with_flag
from ..stores.audit_log import MARK_NAME, AuditLog
from ..stores.audit_records import AuditRecords
from ..stores.database import Database
from ..stores.master_keys import load_master_keys
from ..stores.vault_opening import MASTER_KEY_NAME
from ..stores.whole_file import replace_text
from .strict_app import StrictApp


class _PolicyFileApp(StrictApp):
    """Base: finds the file that the server means."""

    config_file_name = Unicode("jupyter_server_config")
    policy_file = Unicode(help="As SandboxApp.policy_file.").tag(config=True)
    data_dir = Unicode(help="As SandboxApp.data_dir.").tag(config=True)

    @property
    def file(self) -> Path:
        """The file."""
        data_dir = self._setting("data_dir") or Path(jupyter_data_dir()) / "jupyter_sandbox"
        return Path(self._setting("policy_file") or Path(data_dir) / POLICY_NAME)

    def _setting(self, name: str) -> str:
        mine: str = getattr(self, name)
        return mine or str(self.config.get("SandboxApp", {}).get(name, ""))

    def _read(self) -> str:
        try:
            return self.file.read_text(encoding="utf-8")
        except FileNotFoundError:
            return ""
        except (OSError, UnicodeDecodeError) as exc:
            return self._fail(f"{self.file}: {exc}")

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
            replace_text(self.file, with_flag(self._read(), self.value))
        except (OSError, PolicyTextError) as exc:
            self._fail(f"{self.file}: {exc}; nothing was changed")
        print(f"{self.file}: chat_sandbox is {'on' if self.value else 'off'}")
        try:
            asyncio.run(self._note())
        except (SandboxError, OSError, KeyError) as exc:
            print(f"not in the audit log: {exc}", file=sys.stderr)

    async def _note(self) -> None:
        """Write it into the audit log, if a server has made one."""
        data_dir = self.file.parent
        if self._setting("data_dir"):
            data_dir = Path(self._setting("data_dir"))
        file = data_dir / "sandbox.db"
        url = str(self.config.get("SandboxApp", {}).get("db_url", ""))
        if not url and not file.exists():
            return
        keys = str(self.config.get("SandboxApp", {}).get("master_key_file", ""))
        database = Database(url or f"sqlite:///{file}")
        await database.open()
        try:
            keyring = Path(keys or data_dir / MASTER_KEY_NAME)
            master = load_master_keys(keyring, os.environ, may_create=False)
            records = AuditRecords(database.connections, master)
            audit = AuditLog(records, data_dir / MARK_NAME, self.log)
            user = f"{getpass.getuser()} at the command line"
            audit.note("policy_changed", user, switched_on=self.value)
            await audit.flush()
            await audit.close()
        finally:
            await database.close()


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
        if self.extra_args:
            self.policy_file = self.extra_args[0]
            if not self.file.exists():
                self._fail(f"{self.file}: there is no such file")
        try:
            policy = parse_policy(self._read())
        except PolicyTextError as exc:
            self._fail(f"{self.file}: {exc}")
            return
        switched = "on" if policy.chat_sandbox else "off"
        print(f"{self.file}: right; chat_sandbox is {switched}, {len(policy.grants)} grants")


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
