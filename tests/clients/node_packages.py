"""Programs in JavaScript that tests drive us with, as npm gives them; installed once, then kept."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

_INSTALL_SECONDS = 120


def installed(*packages: str) -> Path:
    """Give the ``node_modules`` that holds these packages.

    Parameters
    ----------
    packages : str
        Names with a version, as ``ws@8.18.0``: another version gets another directory.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    name = "+".join(package.replace("/", "_") for package in packages)
    target = cache / "jupyter_sandbox-tests" / name
    target.parent.mkdir(parents=True, exist_ok=True)
    with (target.parent / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another run may be at it
        if not target.exists():
            _install(target, packages)
    return target / "node_modules"


def _install(target: Path, packages: tuple[str, ...]) -> None:
    begun = Path(tempfile.mkdtemp(dir=target.parent))
    try:
        (begun / "package.json").write_text('{"private": true}')
        words = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", *packages]
        done = subprocess.run(
            words, cwd=begun, capture_output=True, text=True, timeout=_INSTALL_SECONDS, check=False
        )
        assert done.returncode == 0, f"npm did not install {packages}: {done.stderr[-2000:]}"
        begun.rename(target)
    finally:
        shutil.rmtree(begun, ignore_errors=True)
