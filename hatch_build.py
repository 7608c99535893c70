"""Puts the JupyterLab extension and pdf.js into the wheel, for `hatch build` and `pip install .`.

The rule: what is built already is taken (a source distribution has it, `make labextension` makes
it); else it is built, which needs npm; without npm the package is made without, and says so.
An editable installation has no part of them: `make labextension` builds and links them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_SOURCE = "labextension"
_BUILT = "jupyter_sandbox/labextension"
_PDFJS = "jupyter_sandbox/previews/pdfjs"
_SHARED = "share/jupyter/labextensions/jupyter-sandbox"


class LabExtensionHook(BuildHookInterface[Any]):
    """Builds the extension if it must, and names its files."""

    def dependencies(self) -> list[str]:
        """Ask for the build tool where it will run."""
        return ["jupyter_builder>=1.3"] if self._must_build and shutil.which("npm") else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build, before the files are collected."""
        if version == "editable":
            return
        if self._must_build:
            if shutil.which("npm") is None:
                self.app.display_warning(
                    "jupyter_sandbox is made WITHOUT its JupyterLab extension and its viewer of "
                    "PDFs: building them needs npm (Node.js 20 or newer)."
                )
                return
            self._build()
        build_data["artifacts"].append(f"{_PDFJS}/")
        if self.target_name == "wheel":
            build_data["shared_data"][f"{self.root}/{_BUILT}"] = _SHARED
        else:
            build_data["artifacts"].append(f"{_BUILT}/")

    @property
    def _must_build(self) -> bool:
        root = Path(self.root)
        return not (
            (root / _BUILT / "package.json").exists() and (root / _PDFJS / "LICENSE").exists()
        )

    def _build(self) -> None:
        source = Path(self.root) / _SOURCE
        here = str(Path(sys.executable).parent)  # where pip has put jupyter-builder
        environment = {**os.environ, "PATH": f"{here}{os.pathsep}{os.environ['PATH']}"}
        for words in (["npm", "ci"], ["npm", "run", "build"]):
            subprocess.run(words, cwd=source, env=environment, check=True)
