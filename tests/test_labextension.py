"""The JupyterLab extension's package: its version, its lock, what it may not be made of."""

from __future__ import annotations

import json
import re
from pathlib import Path

from jupyter_sandbox import __version__

SOURCE = Path(__file__).parents[1] / "labextension"


def test_both_halves_have_the_same_version():
    package = json.loads((SOURCE / "package.json").read_text(encoding="utf-8"))
    assert package["version"] == __version__


def test_the_lock_pins_everything_by_hash_and_names_no_registry():
    lock = json.loads((SOURCE / "package-lock.json").read_text(encoding="utf-8"))
    packages = {name: entry for name, entry in lock["packages"].items() if name}
    assert len(packages) > 100
    for name, entry in packages.items():
        assert "resolved" not in entry, name
        assert entry["integrity"].startswith("sha512-"), name


def test_tokens_do_nothing_when_they_are_loaded():
    text = (SOURCE / "src/tokens.ts").read_text(encoding="utf-8")
    imports = re.findall(r"^import (?!type)(.*)$", text, re.MULTILINE)
    assert imports == ["{ Token } from '@lumino/coreutils';"]


def test_command_ids_are_in_one_place():
    for path in (SOURCE / "src").glob("*.ts"):
        found = re.findall(r"'sandbox:[a-z-]+'", path.read_text(encoding="utf-8"))
        assert bool(found) == (path.name == "tokens.ts"), path.name
