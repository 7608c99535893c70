"""The attacks on bubblewrap again, with the server as an ordinary user of the host.

Tests here run as root mostly; then those of ``AGAIN`` run once more in a pytest of that user's own.
Where they run as an ordinary user already, they are what they are.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.collected_attacks import AGAIN, SELECTED

sys.path.append(str(Path(__file__).parents[1] / "engines"))
from other_user_engine import REPOSITORY, UID, _open_way

pytestmark = [
    pytest.mark.alone,
    pytest.mark.bubblewrap,
    pytest.mark.skipif(os.geteuid() != 0, reason="the tests run as an ordinary user already"),
]
_SECONDS = 420


@pytest.mark.timeout(_SECONDS + 20)
@pytest.mark.parametrize("part", AGAIN)
def test_the_attacks_are_contained_where_the_server_is_an_ordinary_user(part):
    home = Path(tempfile.mkdtemp(prefix="jsbu", dir="/tmp"))
    os.chown(home, UID, UID)
    environment = {
        "HOME": str(home),
        "TMPDIR": str(home),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.defpath]),
        "PYTHONPATH": os.pathsep.join(
            str(REPOSITORY / each) for each in (".", "kernels/guest", "kernels/sandbox-python")
        ),
        "PYTHONDONTWRITEBYTECODE": "1",
        "COLLECTED_ATTACKS": str(home / "collected.json"),
    }
    command = ["setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups", "--"]
    command += [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    command += ["--durations=10", "--show-capture=no"]
    command += [f"--basetemp={home}/base", "--rootdir", str(REPOSITORY), "-m", SELECTED]
    command += [f"{REPOSITORY}/tests/{each}" for each in AGAIN[part]]
    way = _open_way([REPOSITORY, Path(sys.prefix).resolve(), Path(sys.base_prefix)])
    outer = ["unshare", "--mount", "--propagation", "private", "sh", "-ec", way + 'exec "$@"', "sh"]
    try:
        done = subprocess.run(
            [*outer, *command],
            env=environment,
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
        )
        print(done.stdout[-3000:])
        assert done.returncode == 0, done.stdout[-9000:] + done.stderr[-2000:]
        tests = json.loads((home / "collected.json").read_text())
    finally:
        shutil.rmtree(home, ignore_errors=True)
    passed = re.search(r"^(\d+) passed", done.stdout.splitlines()[-1])
    assert passed
    assert int(passed[1]) == len(tests) > 10  # none was skipped
