"""JupyterLab's client package starts a session in a conversation, interrupts, restarts, saves."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from .node_packages import installed

PACKAGES = ("@jupyterlab/services@7.6.6", "ws@8.23.0")
PROGRAM = Path(__file__).parent / "jupyterlab_services.cjs"


def test_jupyterlabs_client_works_on_a_conversation(sandbox_server):
    modules = installed(*PACKAGES)
    conversation = sandbox_server.conversation()
    done = subprocess.run(
        ["node", str(PROGRAM), sandbox_server.of(conversation), sandbox_server.token],
        env={**os.environ, "NODE_PATH": str(modules)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    assert done.stdout.endswith("all done\n")
    # closing a notebook leaves the kernel to the assistant
    assert "False" in sandbox_server.text(
        conversation, "python", code="print('answer' in globals())"
    )
