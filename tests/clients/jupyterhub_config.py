# The example of the documentation with what a test needs: ports, directories, a password for all.
import os
from pathlib import Path

c = get_config()  # noqa
base = Path(os.environ["HUB_TEST_DIR"])
ports = os.environ["HUB_TEST_PORTS"].split()
example = Path(__file__).parents[2] / "docs/examples/jupyterhub_config.py"
load_subconfig(str(example))  # noqa: F821

c.JupyterHub.bind_url = f"http://127.0.0.1:{ports[0]}"
c.JupyterHub.hub_port = int(ports[1])
c.ConfigurableHTTPProxy.api_url = f"http://127.0.0.1:{ports[2]}"
c.ConfigurableHTTPProxy.command = os.environ["HUB_TEST_PROXY"].split()
c.ConfigurableHTTPProxy.pid_file = str(base / "proxy.pid")
c.JupyterHub.db_url = f"sqlite:///{base / 'hub.sqlite'}"
c.JupyterHub.cookie_secret_file = str(base / "cookie_secret")

c.JupyterHub.authenticator_class = "dummy"
c.DummyAuthenticator.password = os.environ["HUB_TEST_TOKEN"]
c.Authenticator.allow_all = True
c.Authenticator.admin_users = {"dora"}
c.JupyterHub.load_groups = {"research": {"users": ["alice", "bob"]}}
c.JupyterHub.spawner_class = "simple"
c.SimpleLocalProcessSpawner.home_dir_template = str(base / "{username}")

test_settings = [
    "--SandboxApp.engine=bubblewrap",
    "--SandboxEgress.presets=[]",
    *(["--allow-root"] if os.getuid() == 0 else []),
]


def at_base(words):
    """Give the words with the test's directory in the place of the Hub's."""
    return [word.replace("/etc/jupyterhub", str(base)) for word in words]


test_settings.append(f"--SandboxApp.runtime_dir={base}/r")  # short, for sockets
c.Spawner.args = [*at_base(c.Spawner.args), *test_settings]
c.Spawner.environment = {"PYTHONPATH": os.environ.get("PYTHONPATH", "")}
service = c.JupyterHub.services[0]
service["url"] = f"http://127.0.0.1:{ports[3]}"
service["command"] = [*at_base(service["command"]), *test_settings]
service["environment"] = {
    "HOME": str(base / "all"),
    "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
}
service["cwd"] = str(base / "all")

c.JupyterHub.services = [service, {"name": "test", "api_token": os.environ["HUB_TEST_TOKEN"]}]
c.JupyterHub.load_roles = [
    *c.JupyterHub.load_roles,
    {
        "name": "test",
        "scopes": ["admin:users", "admin:servers", "tokens", "shares"],
        "services": ["test"],
    },
]
