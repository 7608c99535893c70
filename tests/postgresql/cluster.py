"""A PostgreSQL server of the tests' own: on a Unix socket in a short directory, and nowhere else.

PostgreSQL refuses to run as root; then it runs as the user that its package makes. The rule:
``close`` ends it and removes all it wrote.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.database_url import USER, postgresql_url

_SECONDS = 60


def programs() -> Path | None:
    """Give the directory of ``initdb`` and ``pg_ctl``, of the newest version; None: not installed."""
    found = shutil.which("initdb")
    if found:
        return Path(found).parent
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return versions[-1].parent if versions else None


class Cluster:
    """One server; started."""

    def __init__(self, programs: Path) -> None:
        self._programs = programs
        self.directory = Path(tempfile.mkdtemp(prefix="jsbpg", dir="/tmp"))
        if os.geteuid() == 0:
            shutil.chown(self.directory, "postgres")
        self._run("initdb", "-A", "trust", "-U", USER, "-D", str(self._data))
        self.start()

    def __repr__(self) -> str:
        return f"<Cluster {self.directory}>"

    def url(self, name: str = "postgres") -> str:
        """Give the URL of one of its databases."""
        return postgresql_url(self.directory, name)

    def start(self) -> None:
        options = f"-k {self.directory} -c listen_addresses='' -c fsync=off -c max_connections=200"
        self._control("start", "-w", "-o", options, "-l", str(self.directory / "log"))

    def stop(self) -> None:
        """End it at once, as a crash does: connections are cut."""
        self._control("stop", "-w", "-m", "immediate")

    def close(self) -> None:
        if (self._data / "postmaster.pid").exists():
            self.stop()
        shutil.rmtree(self.directory)

    @property
    def _data(self) -> Path:
        return self.directory / "data"

    def _control(self, verb: str, *words: str) -> None:
        self._run("pg_ctl", verb, "-D", str(self._data), *words)

    def _run(self, program: str, *words: str) -> None:
        as_user = []
        if os.geteuid() == 0:
            as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", "--"]
        subprocess.run(
            [*as_user, str(self._programs / program), *words],
            check=True,
            timeout=_SECONDS,
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
