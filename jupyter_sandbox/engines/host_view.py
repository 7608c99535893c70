"""What of the host's file system a bubblewrap sandbox sees, all of it read-only.

Programs and libraries (``/usr``), what of ``/etc`` those need, and the server's Python. Not shown:
homes, ``/run``, ``/var``, ``/root``, other parts of ``/etc`` (host configuration can hold secrets),
and Jupyter's own configuration, which pip may have put beside the libraries.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .host_python import HostPython

# Needed by: the dynamic linker; Debian's links to chosen programs; TLS; times; mail and file types;
# port names; fontconfig; distribution name. Private keys lie beside these in /etc/ssl and /etc/pki.
_ETC = (
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "alternatives",
    "ssl/certs",
    "ssl/openssl.cnf",
    "ca-certificates",
    "pki/tls/certs",
    "pki/ca-trust/extracted",
    "localtime",
    "mime.types",
    "protocols",
    "services",
    "fonts",
    "os-release",
)
_TOP = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
_CERTIFICATES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)


@dataclass(frozen=True)
class HostView:
    """Paths of the host to show at their own places.

    Attributes
    ----------
    read_only : tuple of Path
        Files and directories.
    links : tuple of (target, path)
        Symbolic links to make, such as ``/bin`` to ``usr/bin``.
    masks : tuple of Path
        Directories inside the shown ones that must look empty.
    python : HostPython
    certificates : str
        The bundle of certificate authorities, "" when there is none.
    """

    read_only: tuple[Path, ...]
    links: tuple[tuple[str, str], ...]
    masks: tuple[Path, ...]
    python: HostPython
    certificates: str = ""


def find_host_view(python: HostPython, private: Sequence[Path]) -> HostView:
    """Look at this host.

    Parameters
    ----------
    private : sequence of Path
        Directories that no sandbox may see, wherever they lie (homes, the engines' state).
    """
    links, shown = [], [Path("/usr")]
    for name in _TOP:
        path = Path("/", name)
        if path.is_symlink():
            links.append((os.readlink(path), str(path)))
        elif path.is_dir():
            shown.append(path)
    etc = [Path("/etc", name) for name in _ETC]
    etc += sorted(Path("/etc").glob("java-*"))  # a Debian JDK keeps its settings there
    shown += python.trees
    configuration = [
        tree / "etc" / "jupyter" for tree in (*python.trees, Path("/usr"), Path("/usr/local"))
    ]
    return HostView(
        read_only=(*shown, *(path for path in etc if path.exists())),
        links=tuple(links),
        masks=tuple(_inside(shown, [*configuration, *private])),
        python=python,
        certificates=next((path for path in _CERTIFICATES if os.path.isfile(path)), ""),
    )


def _inside(trees: Sequence[Path], private: Sequence[Path]) -> list[Path]:
    found = []
    for path in dict.fromkeys(Path(os.path.realpath(path)) for path in private):
        if path.is_dir():
            for tree in trees:
                real = Path(os.path.realpath(tree))
                if path.is_relative_to(real):
                    found.append(tree / path.relative_to(real))
                    break
    return found
