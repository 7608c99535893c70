"""The files of its own that a bubblewrap sandbox starts with: /etc, a home, a virtual environment.

Written into the sandbox's directory on the host, or into its disk image, before anything runs in
it; afterwards the host opens nothing there any more. The virtual environment makes ``python`` and
``pip install`` work in private space on top of the host's packages, which its ``.pth`` file adds
read-only. About twenty small files: a copy of a real virtual environment would cost hundreds.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from .host_python import HostPython

USER = "sandbox"
UID = 1000
HOME = "/home/sandbox"
VENV = f"{HOME}/venv"
PYTHON = f"{VENV}/bin/python"


@dataclass(frozen=True)
class PrivateFiles:
    """Where on the host the parts of one sandbox lie, below its ``root``.

    ``disk`` is where what it may write lies; the same directory unless that is an image's mount.
    """

    root: Path
    disk: Path

    @classmethod
    def beneath(cls, root: Path, in_image: bool = False) -> PrivateFiles:
        """Give them; ``in_image`` when an image is to be mounted at ``disk``."""
        return cls(root, root / "disk" if in_image else root)

    @property
    def image(self) -> Path:
        """The image, if there is one."""
        return self.root / "disk.img"

    @property
    def home(self) -> Path:
        """The home directory."""
        return self.disk / "home"

    @property
    def var_tmp(self) -> Path:
        """``/var/tmp``: temporary files that are too large for memory."""
        return self.disk / "var-tmp"

    def writable(self, target: str) -> Path:
        """Give the host side of a writable directory that the spec asks for."""
        return self.disk / f"dir-{quote(target.strip('/'), safe='')}"


def etc_files(hostname: str) -> dict[str, str]:
    """Give the generated files of ``/etc`` by name: one user, no name service, no host names."""
    return {
        "passwd": (
            f"root:x:0:0:root:/root:/usr/sbin/nologin\n{USER}:x:{UID}:{UID}::{HOME}:/bin/bash\n"
            "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
        ),
        "group": f"root:x:0:\n{USER}:x:{UID}:\nnogroup:x:65534:\n",
        "hosts": f"127.0.0.1 localhost {hostname}\n::1 localhost {hostname}\n",
        "hostname": f"{hostname}\n",
        "nsswitch.conf": "passwd: files\ngroup: files\nshadow: files\nhosts: files\n",
        "resolv.conf": "# There is no network but the egress proxy, which resolves names.\n",
    }


def make_root(files: PrivateFiles) -> None:
    """Make ``root``, which must not exist yet."""
    files.root.mkdir(mode=0o711, parents=True)
    files.root.chmod(0o711)  # whatever the umask: the sandbox's user passes through


def write_writable(
    files: PrivateFiles, writable_dirs: Iterable[str], python: HostPython, owner: int | None
) -> None:
    """Write what the sandbox may change into ``disk``.

    Parameters
    ----------
    owner : int, optional
        Host uid and gid that gets it; None keeps the server's own.
    """
    made = [files.home, files.var_tmp, *(files.writable(target) for target in writable_dirs)]
    for directory in made:
        directory.mkdir(mode=0o755)
        directory.chmod(0o755)
    files.var_tmp.chmod(0o1777)
    made += _write_venv(files.home / "venv", python)
    if owner is not None:
        for path in made:
            os.chown(path, owner, owner, follow_symlinks=False)


def _write_venv(venv: Path, python: HostPython) -> list[Path]:
    """Write a virtual environment as PEP 405 has it; give all paths that were made."""
    library = venv / "lib" / f"python{python.version}"
    directories = [venv, venv / "bin", venv / "lib", library, library / "site-packages"]
    for directory in directories:
        directory.mkdir(mode=0o755)
    links = dict.fromkeys(("python3", f"python{python.version}"), Path("python"))
    links["python"] = python.executable
    for name, target in links.items():
        (venv / "bin" / name).symlink_to(target)
    texts = {
        venv / "pyvenv.cfg": (
            f"home = {python.executable.parent}\n"
            f"include-system-site-packages = false\nversion = {python.version}\n"
        ),
        # Lines that begin with "import" would be run: paths are absolute, so none does.
        library / "site-packages" / "host-packages.pth": "".join(
            f"{path}\n" for path in python.packages
        ),
    }
    for name in ("pip", "pip3"):
        texts[venv / "bin" / name] = (
            f"#!{PYTHON}\nimport sys\nfrom pip._internal.cli.main import main\nsys.exit(main())\n"
        )
    for path, text in texts.items():
        _write(path, text, 0o755 if path.parent.name == "bin" else 0o644)
    return [*directories, *(venv / "bin" / name for name in links), *texts]


def _write(path: Path, text: str, mode: int = 0o644) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        os.fchmod(fd, mode)
        os.write(fd, text.encode("utf-8", "surrogateescape"))
    finally:
        os.close(fd)
