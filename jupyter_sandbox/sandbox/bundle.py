"""The guest bundle: what is mounted at ``/opt/jupyter-sandbox`` in every sandbox.

A copy of the packages ``sandbox_guest`` and ``sandbox_python`` with their bytecode, and of
``engines.base.ETC_DIR``, readable by any user, in a directory of the host's named by its contents.
A copy, because the installed packages may lie below a directory that no other user can enter and
whose name nobody inside need know, and because a mounted directory must not change while sandboxes
run on it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import py_compile
import shutil
from importlib.util import find_spec
from pathlib import Path

from ..engines.base import ETC_DIR
from ..stores.unfinished import making_directory

_PACKAGES = ("sandbox_guest", "sandbox_python")


def prepare_bundle(directory: Path) -> Path:
    """Give the directory of the bundle below ``directory``; make it if it is not there.

    Two processes may do so at once: each makes its own and one is renamed into place.
    """
    sources = {name: _package_dir(name) for name in _PACKAGES}
    files = sorted(
        (name, path.relative_to(source), path)
        for name, source in sources.items()
        for path in source.rglob("*.py")
    )
    files += [("etc", Path(path.name), path) for path in sorted(ETC_DIR.iterdir())]
    digest = hashlib.sha256()
    for name, relative, path in files:
        digest.update(f"{name}/{relative}\0".encode() + path.read_bytes() + b"\0")
    target = directory / f"guest-{digest.hexdigest()[:16]}"
    if target.is_dir():
        return target
    directory.mkdir(parents=True, exist_ok=True)
    with making_directory(target) as made:
        for name, relative, path in files:
            copy = made / name / relative
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
            if path.suffix != ".py":
                continue
            # Unchecked: nothing is compared or written at start (the mount is read-only).
            py_compile.compile(
                str(copy),
                dfile=f"/opt/jupyter-sandbox/{name}/{relative}",
                doraise=True,
                invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
            )
        _make_readable(made)
        with contextlib.suppress(OSError):  # another process was first
            made.rename(target)
    return target


def _package_dir(name: str) -> Path:
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        raise RuntimeError(f"the package {name} is not installed; reinstall jupyter_sandbox")
    return Path(spec.origin).parent


def _make_readable(directory: Path) -> None:
    for root, _, names in os.walk(directory):
        os.chmod(root, 0o755)
        for name in names:
            os.chmod(os.path.join(root, name), 0o644)
