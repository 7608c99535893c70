"""Two workers run tests at once, but for those that must be alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

_CONFTEST = 'pytest_plugins = ["tests.taking_turns"]\n'
_COMMON = """
import time
from pathlib import Path
import pytest
HERE = Path(__file__).parent

def meet(name, other):
    (HERE / f"{name}.in").touch()
    ends_at = time.monotonic() + 20
    while not (HERE / f"{other}.in").exists():
        assert time.monotonic() < ends_at, "the other worker does not come"
        time.sleep(0.01)
"""
_ONE = """
def test_together(): meet("one", "two")

@pytest.mark.alone
@pytest.mark.parametrize("n", range(5))
def test_alone(n):
    assert list(HERE.glob("*.by_other")) == []
    (HERE / "alone").touch()
    time.sleep(0.05)
    assert list(HERE.glob("*.by_other")) == []
    (HERE / "alone").unlink()
"""
_TWO = """
def test_together(): meet("two", "one")

@pytest.mark.parametrize("n", range(40))
def test_beside(n):
    assert not (HERE / "alone").exists()
    (HERE / f"{n}.by_other").touch()
    time.sleep(0.01)
    assert not (HERE / "alone").exists()
    (HERE / f"{n}.by_other").unlink()
"""


def test_two_run_at_once_and_one_that_is_alone_has_the_machine_for_itself(tmp_path):
    (tmp_path / "conftest.py").write_text(_CONFTEST)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = alone: has the machine for itself\n")
    (tmp_path / "test_one.py").write_text(_COMMON + _ONE)
    (tmp_path / "test_two.py").write_text(_COMMON + _TWO)
    root = Path(__file__).parents[1]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n2", "--dist=loadfile", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        env={**environment, "PYTHONPATH": f"{root}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "47 passed" in done.stdout
