"""The core of the attacks again, on bubblewrap, with the server as an ordinary user of the host.

Tests here run as root mostly; then these run once more in a pytest of that user's own. Where they run
as an ordinary user already, they are what they are.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "engines"))
from other_user_engine import REPOSITORY, UID, _open_way

# As in docs/isolation-attacks.md; tests/test_attacks.py reads this list.
AGAIN = (
    "isolation/test_probe.py::test_every_attack_is_contained",
    "isolation/test_network_attacks.py::test_nothing_is_reached_directly",
    "isolation/test_network_attacks.py::test_nothing_of_the_hosts_is_reached_through_the_proxy",
    "isolation/test_network_attacks.py::test_the_proxys_socket_cannot_be_replaced_nor_its_port_taken",
    "isolation/test_uploads_attacks.py::test_root_inside_cannot_change_an_upload_in_any_way",
    "isolation/test_uploads_attacks.py::test_links_and_what_is_no_file_are_never_followed_out_of_outputs",
    "isolation/test_resource_attacks.py::test_a_kernel_that_makes_links_of_its_sockets_leads_the_host_nowhere",
)


@pytest.mark.bubblewrap
@pytest.mark.skipif(os.geteuid() != 0, reason="the tests run as an ordinary user already")
def test_the_attacks_are_contained_where_the_server_is_an_ordinary_user():
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
    }
    command = ["setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups", "--"]
    command += [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    command += [f"--basetemp={home}/base", "--rootdir", str(REPOSITORY)]
    command += [f"{REPOSITORY}/tests/{each}[bubblewrap]" for each in AGAIN]
    way = _open_way([REPOSITORY, Path(sys.prefix).resolve(), Path(sys.base_prefix)])
    outer = ["unshare", "--mount", "--propagation", "private", "sh", "-ec", way + 'exec "$@"', "sh"]
    try:
        done = subprocess.run(
            [*outer, *command],
            env=environment,
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            timeout=170,
        )
    finally:
        shutil.rmtree(home, ignore_errors=True)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert f"{len(AGAIN)} passed" in done.stdout
