"""Which parts of the host's Python a local sandbox must see to have that Python and its libraries.

Only the trees of the interpreter and of the server's virtual environment, never what surrounds
them. The rule: a tree that holds a home directory is not shown, whatever is installed in it.
"""

from __future__ import annotations

import functools
import os
import site
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class HostPython:
    """The interpreter of the server.

    Attributes
    ----------
    executable : Path
        The real interpreter, not a virtual environment's link to it.
    trees : tuple of Path
        Directories to show read-only at their own paths.
    packages : tuple of Path
        Where the server's packages are, in import order.
    scripts : tuple of Path
        Directories of commands that come with them.
    version : str
        ``"3.11"``; names the library directory of a virtual environment.
    """

    executable: Path
    trees: tuple[Path, ...]
    packages: tuple[Path, ...]
    scripts: tuple[Path, ...]
    version: str


@functools.cache
def find_host_python() -> HostPython:
    """Look at the interpreter that runs this code."""
    executable = Path(os.path.realpath(getattr(sys, "_base_executable", "") or sys.executable))
    packages = [Path(path) for path in site.getsitepackages()]
    if site.ENABLE_USER_SITE:
        packages.append(Path(site.getusersitepackages()))
    packages = [path for path in packages if path.is_dir()] + _bundled_pip()
    trees = [Path(sys.base_prefix), Path(sys.prefix), executable.parent.parent, *packages]
    scripts = [Path(sys.prefix) / "bin", Path(sys.base_prefix) / "bin"]
    return HostPython(
        executable=executable,
        trees=minimal_trees([tree for tree in trees if not _holds_a_home(tree)]),
        packages=tuple(dict.fromkeys(packages)),
        scripts=tuple(path for path in dict.fromkeys(scripts) if path.is_dir()),
        version=f"{sys.version_info.major}.{sys.version_info.minor}",
    )


def minimal_trees(trees: list[Path]) -> tuple[Path, ...]:
    """Give the trees that are not inside another one (nor inside ``/usr``, which is shown)."""
    found: list[Path] = []
    for tree in sorted(dict.fromkeys(trees), key=lambda path: len(path.parts)):
        if tree.is_relative_to("/usr"):
            continue
        if not any(tree.is_relative_to(other) for other in found):
            found.append(tree)
    return tuple(found)


def _holds_a_home(tree: Path) -> bool:
    home = Path(os.path.realpath(os.path.expanduser("~")))
    return home.is_relative_to(os.path.realpath(tree)) or tree == Path("/home")


def _bundled_pip() -> list[Path]:
    """Give the wheel that ``ensurepip`` carries when the server's environment has no pip."""
    from importlib.util import find_spec

    if find_spec("pip") is not None or find_spec("ensurepip") is None:
        return []
    import ensurepip

    return sorted(Path(ensurepip.__file__).parent.glob("_bundled/pip-*.whl"))[-1:]
