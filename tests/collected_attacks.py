"""Which attacks were collected, and for which tier: what pytest itself says, not what the code looks like.

A plugin that keeps a list of ``[test, numbers, tiers, tiers in make test]``, taken before tests are
deselected by their marks. What is left to run it writes as JSON to the file that
``COLLECTED_ATTACKS`` names; ``collect()`` has that done in a process of its own.

Tiers: **D** Docker with runc, **G** Docker with gVisor, **B** bubblewrap with a server that is root,
**U** bubblewrap with a server that is an ordinary user of the host.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TIERS = {"docker": "D", "gvisor": "G", "bubblewrap": "B", "bubblewrap-ordinary-user": "U"}
# Files whose attacks on bubblewrap tests/isolation/test_ordinary_user.py makes once more.
AGAIN = {
    "limits": (
        "isolation/test_resource_attacks.py",
        "isolation/test_limits_told.py",
        "isolation/test_limits_said.py",
    ),
    "disk and processes": (
        "isolation/test_disk_attacks.py",
        "isolation/test_orphans.py",
        "end_to_end/test_commands.py",
        "end_to_end/test_files.py",
    ),
    "the rest": (
        "isolation/test_probe.py",
        "isolation/test_network_attacks.py",
        "isolation/test_link_attacks.py",
        "isolation/test_uploads_attacks.py",
        "isolation/test_kernels_on_engines.py",
        "end_to_end/test_way_out.py",
        "end_to_end/test_packages.py",
        "end_to_end/test_crowds.py",
        "end_to_end/test_uploads.py",
        "isolation/test_warm_pool_attacks.py",
    ),
}
SELECTED = "attack and bubblewrap and not full"  # of those files; see TIERS


Row = tuple[str, list[str], str, str]
_COLLECTED = pytest.StashKey[list[Row]]()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if set(_files()) <= {item.path for item in items}:
        config.stash[_COLLECTED] = _rows(items)


def pytest_collection_finish(session: pytest.Session) -> None:
    if path := os.environ.get("COLLECTED_ATTACKS"):
        Path(path).write_text(json.dumps(_rows(session.items)), encoding="utf-8")


def attacks(config: pytest.Config) -> list[Row]:
    """Return the attacks of all tests; they are collected in another process if this one has few."""
    return config.stash[_COLLECTED] if _COLLECTED in config.stash else collect()


def collect() -> list[Row]:
    """Give the attacks of all tests, collected in another process."""
    with tempfile.NamedTemporaryFile(prefix="jsb-attacks-", suffix=".json") as file:
        command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider"]
        done = subprocess.run(
            [*command, *map(str, _files())],
            cwd=ROOT,
            env={
                **{k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")},
                "COLLECTED_ATTACKS": file.name,
            },
            capture_output=True,
            text=True,
            timeout=170,
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return [tuple(row) for row in json.loads(Path(file.name).read_text(encoding="utf-8"))]


def _files() -> list[Path]:
    """Give the files that may hold an attack."""
    mark = re.compile(r"^\s*@attack\(|def test_t\d\d_", re.MULTILINE)
    paths = sorted((ROOT / "tests").rglob("test_*.py"))
    return [path for path in paths if mark.search(path.read_text(encoding="utf-8"))]


def _rows(items: list[pytest.Item]) -> list[Row]:
    return [_row(item) for item in items if _numbers(item)]


def _row(item: pytest.Item) -> Row:
    tiers = _tiers(item)
    often = "" if item.get_closest_marker("full") else tiers
    return _name(item), _numbers(item), tiers, often


def _name(item: pytest.Item) -> str:
    path = item.path.relative_to(ROOT / "tests")
    return f"{path}::{getattr(item, 'originalname', item.name)}"


def _numbers(item: pytest.Item) -> list[str]:
    found = {number for mark in item.iter_markers("attack") for number in mark.args}
    found.update(re.findall(r"^test_(t\d\d)_", item.name))
    return sorted(number.upper() for number in found)


def _tiers(item: pytest.Item) -> str:
    """Give the tiers of one item; "" for what no engine changes."""
    for mark in item.iter_markers("attack"):
        if "on" in mark.kwargs:
            return str(mark.kwargs["on"])
    named = []
    callspec = getattr(item, "callspec", None)
    params = callspec.params if callspec is not None else {}
    named.append(TIERS.get(params.get("engine_name"), ""))
    for fixture, value in params.items():
        if fixture.endswith("lab") and value[0] in TIERS:
            named.append(TIERS[value[0]])
    tiers = set("".join(named))
    again = {file for files in AGAIN.values() for file in files}
    if "B" in tiers and _name(item).partition("::")[0] in again:
        tiers.add("U")
    return "".join(sorted(tiers, key="DGBU".index))
