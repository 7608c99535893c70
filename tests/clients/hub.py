"""A JupyterHub on loopback with the documentation's configuration; nothing of it stays."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil

from benchmarks.server import remove_left

from .node_packages import installed

PROXY = "configurable-http-proxy@5.3.0"
_START_SECONDS = 90.0
_STOP_SECONDS = 30.0


class Hub:
    """A running Hub, asked by its administrator and by users.

    Attributes
    ----------
    policy : Path
        The file of flags and grants that all servers read; it lets everybody in at first.
    """

    def __init__(self, base: Path, port: int, token: str) -> None:
        self.policy = base / "sandbox-policy.json"
        self._url = f"http://127.0.0.1:{port}"
        self._password = token
        self._as_service = self._client(token)

    def hub(self, method: str, path: str, body: object = None) -> httpx.Response:
        """Ask the Hub as its administrator; what is no success fails."""
        response = self._as_service.request(method, f"/hub/api{path}", json=body)
        response.raise_for_status()
        return response

    def start_servers(self, *names: str) -> None:
        """Start users' servers, at the same time, and wait until they run."""
        for name in names:
            self.hub("POST", f"/users/{name}/server")
        for name in names:
            wait_for(lambda name=name: self._is_ready(name), f"{name}'s server")

    def by_token(self, name: str) -> httpx.Client:
        """Give a client with a new token of a user's."""
        token = self.hub("POST", f"/users/{name}/tokens", {}).json()["token"]
        return self._client(token)

    def by_cookie(self, name: str, below: str) -> httpx.Client:
        """Give a client that has logged in as a browser does, to the server at a path."""
        client = httpx.Client(base_url=self._url, follow_redirects=True, timeout=60)
        client.get("/hub/login")
        form = {"username": name, "password": self._password, "_xsrf": client.cookies["_xsrf"]}
        client.post("/hub/login", data=form).raise_for_status()
        client.get(f"{below}files/none")  # a page, so it leads through the Hub's OAuth
        for cookie in client.cookies.jar:
            if cookie.name == "_xsrf" and cookie.path == below:
                client.headers["X-XSRFToken"] = str(cookie.value)
        return client

    def is_up(self) -> bool:
        with contextlib.suppress(httpx.HTTPError):
            routes = self._as_service.get("/services/sandbox/api")
            return self._as_service.get("/hub/api/").is_success and routes.is_success
        return False

    def _is_ready(self, name: str) -> bool:
        server = self.hub("GET", f"/users/{name}").json()["servers"].get("")
        return bool(server and server["ready"])

    def _client(self, token: str) -> httpx.Client:
        headers = {"Authorization": f"token {token}"}
        return httpx.Client(base_url=self._url, headers=headers, timeout=60)


@contextlib.contextmanager
def running_hub() -> Iterator[Hub]:
    """Run a Hub while the block runs; whatever its servers leave is removed."""
    base = Path(tempfile.mkdtemp(prefix="jsb-hub", dir="/tmp"))  # short, for sockets
    (base / "all").mkdir()
    (base / "sandbox-policy.json").write_text("{}")
    program = installed(PROXY) / "configurable-http-proxy/bin/configurable-http-proxy"
    ports, token = free_ports(4), secrets.token_hex(16)
    env = {
        **os.environ,
        "HUB_TEST_DIR": str(base),
        "HUB_TEST_PORTS": " ".join(map(str, ports)),
        "HUB_TEST_PROXY": f"node {program}",
        "HUB_TEST_TOKEN": token,
    }
    config = Path(__file__).parent / "jupyterhub_config.py"
    log = base / "hub.log"
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "jupyterhub", "-f", str(config)],
            env=env,
            cwd=base,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
        )
    try:
        hub = Hub(base, ports[0], token)
        wait_for(lambda: process.poll() is not None or hub.is_up(), "the Hub")
        assert process.poll() is None, "the Hub ended"
        yield hub
    finally:
        started = psutil.Process(process.pid).children(recursive=True)
        process.terminate()  # it stops the servers, the service and the proxy
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:  # a slow machine: nothing of it may stay all the same
            process.kill()
        finally:
            for child in started:
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.kill()
            psutil.wait_procs(started, timeout=_STOP_SECONDS)
            process.wait(_STOP_SECONDS)
            print(log.read_text(errors="replace")[-6000:])
            for data in base.glob("*/.local/share/jupyter/jupyter_sandbox"):
                asyncio.run(remove_left("bubblewrap", data))
            subprocess.run(["rm", "-rf", "--one-file-system", "--", str(base)], check=False)


def wait_for(condition, what: str) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"{what}: nothing came of it"
        time.sleep(0.1)


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
