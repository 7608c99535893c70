"""What of an installation is on this host: processes, containers, mounts, files, sockets.

It looks at the host, not at the server, and compares with the rows of the database: what belongs to
a sandbox that a row names, or to the server that runs, is rightly there. The rest was left behind.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

from jupyter_sandbox.engines.docker_flags import LABEL_ID, LABEL_SERVER
from jupyter_sandbox.engines.recorded import MARKER, to_sandbox
from jupyter_sandbox.engines.records import Records

from .site import Site

_UIDS = Path("/run/jupyter-sandbox-stage/uids")
_ALIVE = ("running", "suspended")
_EXPECTED = {"running": "running", "suspended": "paused"}
# Beside them in `data_dir`: whatever a server makes that is not of one conversation or sandbox.
_STANDING = {
    *("sandbox.db", "sandbox.db-wal", "sandbox.db-shm", "master.key", "server-id", "audit.mark"),
    *("runtime-dir", "servers", "unversioned.json"),
    *("vault", "bubblewrap"),
}
_STANDING_IN_RUN = ("guest-", "site-", "servers")


def left_behind(site: Site) -> list[str]:
    """Give what nobody needs any more, each as a line; nothing while all is as it should be."""
    rows = site.rows("SELECT sandbox_id, state FROM conversations WHERE sandbox_id != ''")
    living = {row["sandbox_id"] for row in rows if row["state"] in _ALIVE}
    living |= {row["sandbox_id"] for row in site.rows("SELECT sandbox_id FROM pool_sandboxes")}
    return sorted(
        {
            *_containers(site, living),
            *_processes(site, living),
            *_loop_devices(site, living),
            *_groups(site, living),
            *_user_numbers(site, living),
            *_directories(site, living),
            *_sockets(site),
            *_vault(site),
            *_standing(site),
        }
    )


def untrue(site: Site) -> list[str]:
    """Give the conversations whose state is not what the engine has, each as a line."""
    rows = site.rows("SELECT conversation_id, sandbox_id, state FROM conversations")
    found = {row["sandbox_id"]: _engine_state(site, row["sandbox_id"]) for row in rows}
    return [
        f"{row['conversation_id']} is {row['state']}, its sandbox {found[row['sandbox_id']]}"
        for row in rows
        if found[row["sandbox_id"]] != _EXPECTED.get(row["state"], "gone")
    ]


def _engine_state(site: Site, sandbox_id: str) -> str:
    """Give ``running``, ``paused`` or ``gone``."""
    if not sandbox_id:
        return "gone"
    if site.engine == "docker":
        words = ["docker", "ps", "--filter", f"label={LABEL_ID}={sandbox_id}"]
        words += ["--format", "{{.Status}}"]
        said = subprocess.run(words, check=True, capture_output=True, text=True).stdout
        return "paused" if "Paused" in said else "running" if said.startswith("Up") else "gone"
    record = Records(site.data / "bubblewrap").read(sandbox_id)
    return "gone" if record is None else str(to_sandbox(record).state).replace("exited", "gone")


def _containers(site: Site, living: set[str]) -> Iterator[str]:
    if site.engine != "docker":
        return
    with contextlib.suppress(FileNotFoundError):
        installation = (site.data / "server-id").read_text().strip()
        words = ["docker", "ps", "-a", "--filter", f"label={LABEL_SERVER}={installation}"]
        words += ["--format", f'{{{{.Label "{LABEL_ID}"}}}} {{{{.Status}}}}']
        said = subprocess.run(words, check=True, capture_output=True, text=True).stdout
        for line in said.splitlines():
            sandbox_id, _, status = line.partition(" ")
            if sandbox_id not in living:
                yield f"container of {sandbox_id}: {status}"
            elif not status.startswith("Up"):
                yield f"container of a living sandbox {sandbox_id}: {status}"


def _processes(site: Site, living: set[str]) -> Iterator[str]:
    """Find processes by what names this installation: mounts, command line, environment."""
    homes = {sandbox_id[:12] for sandbox_id in living}
    known = {site.pid, site.launcher.pid, os.getpid()}
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) in known:
            continue
        mounts, words, environment = (
            _read(f"/proc/{entry}/{name}") for name in ("mountinfo", "cmdline", "environ")
        )
        ids = {word for word in environment.split("\0") if word.startswith(f"{MARKER}=")}
        ours = {each.partition("=")[2] for each in ids} & site.sandbox_ids()
        name = site.base.name
        if not ours and not any(name in text for text in (mounts, words, environment)):
            continue
        if ours & living or any(f"{name}/run/{home}/" in mounts for home in homes):
            continue
        if site.pid and _parent(entry) == site.pid:
            continue  # the egress process and others that end with their server
        yield f"process {entry}: {words.replace(chr(0), ' ')[:150]}"


def _loop_devices(site: Site, living: set[str]) -> Iterator[str]:
    for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
        with contextlib.suppress(OSError):
            file = backing.read_text().strip()
            if site.base.name in file and not any(each in file for each in living):
                yield f"loop device {backing.parts[3]}: {file}"


def _groups(site: Site, living: set[str]) -> Iterator[str]:
    for sandbox_id in site.sandbox_ids() - living:
        for path in Path("/sys/fs/cgroup").glob(f"*/jupyter-sandbox/{sandbox_id}"):
            yield f"control group {path}"
        for path in Path("/sys/fs/cgroup").glob(f"jupyter-sandbox/{sandbox_id}"):
            yield f"control group {path}"


def _user_numbers(site: Site, living: set[str]) -> Iterator[str]:
    gone = site.sandbox_ids() - living
    with contextlib.suppress(FileNotFoundError):
        for link in _UIDS.iterdir():
            with contextlib.suppress(OSError):
                if os.readlink(link) in gone:
                    yield f"user number {link.name} of {os.readlink(link)}"


def _directories(site: Site, living: set[str]) -> Iterator[str]:
    homes = {sandbox_id[:12] for sandbox_id in living}
    installation = ""
    with contextlib.suppress(FileNotFoundError):
        installation = (site.data / "server-id").read_text().strip()
        if not installation:
            yield "an empty id of the installation"
    plaintext = Path(f"/dev/shm/jsbx-{installation}")
    for directory in (site.run, plaintext):
        for path in _children(directory):
            if path.name not in homes and not path.name.startswith(_STANDING_IN_RUN):
                yield f"directory {path}"
    for home in homes:
        for path in _children(plaintext / home / "incoming"):
            yield f"plaintext on its way {path}"
    for directory in (site.data / "bubblewrap", site.data / "bubblewrap" / "data"):
        for path in _children(directory):
            if path.name not in living and path.name != "data":
                yield f"of the engine {path}"


def _sockets(site: Site) -> Iterator[str]:
    """Find sockets that nobody listens on: of servers that are gone."""
    held = set(_read("/proc/net/unix").split())
    for path in site.run.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            if stat.S_ISSOCK(path.lstat().st_mode) and str(path) not in held:
                yield f"socket {path}"


def _vault(site: Site) -> Iterator[str]:
    uploads = site.rows("SELECT conversation_id, upload_id AS file FROM uploads")
    shares = site.rows("SELECT conversation_id, stored_name AS file FROM shares")
    named = {f"{row['conversation_id']}/{row['file']}" for row in (*uploads, *shares)}
    root = site.data / "vault"
    there = {str(path.relative_to(root)) for path in root.glob("*/*")}
    conversations = {row[0] for row in site.rows("SELECT conversation_id FROM conversations")}
    for path in sorted(named - there):
        yield f"a row without its file: {path}"
    for path in sorted(there - named):
        yield f"a file without a row: {path}"
    for path in _children(root):
        if path.name not in conversations:
            yield f"files of a conversation that is gone: {path.name}"


def _standing(site: Site) -> Iterator[str]:
    for path in _children(site.data / "servers"):
        if not _is_locked(path):
            yield f"mark of a dead server {path}"
    for path in _children(site.data):
        if path.name not in _STANDING:
            yield f"file {path}"
    for path in _children(site.temporary):
        if not path.name.startswith("jupyter-clean-cfg-"):  # of $JUPYTER_NO_CONFIG, Jupyter's own
            yield f"temporary {path}"


def _is_locked(path: Path) -> bool:
    with contextlib.suppress(FileNotFoundError), path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _children(directory: Path) -> list[Path]:
    with contextlib.suppress(FileNotFoundError):
        return sorted(directory.iterdir())
    return []


def _read(path: str) -> str:
    try:
        return Path(path).read_bytes().decode("utf-8", "replace")
    except OSError:
        return ""


def _parent(pid: str) -> int:
    text = _read(f"/proc/{pid}/stat")
    return int(text.rpartition(")")[2].split()[1]) if text else 0
