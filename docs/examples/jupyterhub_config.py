# For a JupyterHub: sandboxes in each user's server, and in one server for all, a service.
# docs/administrators.md says what to know of it; tests/clients/test_jupyterhub.py runs it.
import sys
from pathlib import Path

c = get_config()  # noqa
here = Path(__file__).parent

# Flags and grants: one file for all servers, which users can read and not write. Make it before
# they start: `{}` lets everybody in.
settings = ["--SandboxApp.policy_file=/etc/jupyterhub/sandbox-policy.json"]

c.Spawner.cmd = [sys.executable, "-m", "jupyterhub.singleuser"]
c.Spawner.args = settings

c.JupyterHub.services = [
    {
        "name": "sandbox",
        "url": "http://127.0.0.1:10101",
        "command": [
            *(sys.executable, "-m", "jupyterhub.singleuser", *settings),
            f"--config={here / 'sandbox_service_config.py'}",
        ],
        "oauth_no_confirm": True,
    },
]
c.JupyterHub.load_roles = [
    {"name": "user", "scopes": ["self", "access:services!service=sandbox"]},
]
