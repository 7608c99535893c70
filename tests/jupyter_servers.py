"""Jupyter servers in the test process: one at a time, kept while the tests of a file want the same.

Starting a server costs more than most of what is asked of one, so the tests of a file share it; a
conversation of its own is a test's isolation. A plugin that takes the place of pytest-jupyter's
fixtures of a server for each test. A test that stops, breaks or counts what all conversations of a
server share is marked ``own_server``.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import io
import logging
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jupyter_core.paths
import pytest
import sqlalchemy as sa
from jupyter_core.utils import ensure_event_loop
from jupyter_server.serverapp import ServerApp
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port
from traitlets.config import Config

from jupyter_sandbox.errors import Unavailable
from jupyter_sandbox.sandbox.bundle import prepare_bundle
from jupyter_sandbox.stores import schema

BASE_URL = "/a%40b/"  # what must be quoted shows what is not


class RunningServer:
    """A Jupyter server with the extension, in directories of its own, on a loop of its own."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config
        # Short: a socket's path has at most 107 bytes.
        self.directory = Path(tempfile.mkdtemp(prefix="jsb", dir="/tmp"))
        self.loop = ensure_event_loop(prefer_selector_loop=True)
        self._environment = pytest.MonkeyPatch()
        self._socket, self.port = bind_unused_port()
        self._log = io.StringIO()
        self.token = secrets.token_hex(4)
        self.app = self._start()
        self.http_server = self.loop.run_until_complete(self._listen())

    def __repr__(self) -> str:
        return f"<RunningServer {self.directory} port {self.port}>"

    def remove_conversations(self) -> None:
        """Delete all conversations and sandboxes."""
        self.loop.run_until_complete(self._remove_conversations())

    def close(self) -> None:
        """Remove all sandboxes, end the server, remove its directories."""
        try:
            self.loop.run_until_complete(self._close())
        finally:
            self.app.kernel_manager.context.destroy()
            ServerApp.clear_instance()
            self._socket.close()
            self._environment.undo()
            print(self._log.getvalue())
            remove_tree(self.directory)

    def _start(self) -> ServerApp:
        config = Config(
            {
                "NotebookNotary": {"db_file": ":memory:"},
                "IdentityProvider": {"token": self.token},
                "SandboxApp": in_directories(self.directory),
            }
        )
        config.merge(Config(self.config))
        put_bundle(Path(config.SandboxApp.runtime_dir))
        self._set_environment()
        ServerApp.clear_instance()
        app = ServerApp.instance(
            log_level="DEBUG",
            port=self.port,
            port_retries=0,
            open_browser=False,
            base_url=BASE_URL,
            config=config,
            allow_root=True,
            root_dir=str(_made(self.directory / "root")),
        )
        app.init_signal = lambda: None

        async def initialize() -> None:
            app.initialize(argv=[], new_httpserver=False)

        self.loop.run_until_complete(initialize())
        for handler in app.log.handlers:
            if isinstance(handler, logging.StreamHandler):
                handler.setStream(self._log)  # pytest closes the streams that it captures
        app.log.propagate = True
        app.log.handlers = []
        app.start_app()
        return app

    def _set_environment(self) -> None:
        home = _made(self.directory / "home")
        self._environment.setenv("HOME", str(home))
        self._environment.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        for name in ("config", "data", "runtime"):
            directory = _made(self.directory / "jupyter" / name)
            self._environment.setenv(f"JUPYTER_{name.upper()}_DIR", str(directory))
        for name in ("SYSTEM_CONFIG_PATH", "ENV_CONFIG_PATH"):
            self._environment.setattr(jupyter_core.paths, name, [str(self.directory / name)])

    async def _listen(self) -> HTTPServer:
        server = HTTPServer(self.app.web_app)
        server.add_socket(self._socket)
        return server

    @property
    def _extension(self) -> Any:
        return self.app.web_app.settings["jupyter_sandbox"]

    async def _remove_conversations(self) -> None:
        services = await self._extension.ready()
        conversations = services.conversations
        rows = sa.select(schema.conversations.c.owner, schema.conversations.c.conversation_id)
        found = await services.database.connections.run(lambda c: c.execute(rows).all())
        await asyncio.gather(*(conversations.delete(*row) for row in found))
        sandboxes = conversations._around.sandboxes
        for left in await sandboxes.list():
            await sandboxes.remove(left.sandbox_id)

    async def _close(self) -> None:
        services = await self._extension.ready()
        sandboxes = services.conversations._around.sandboxes
        await self._extension.stop_extension()
        with contextlib.suppress(Unavailable):  # of an engine that is made to fail
            for found in await sandboxes.list():
                await sandboxes.remove(found.sandbox_id)
        plaintext = sandboxes.settings.plaintext
        for sandbox_id in plaintext.sandboxes():  # of sandboxes that a test ended by itself
            plaintext.remove(sandbox_id)
        await sandboxes.engine.close()
        self.http_server.stop()
        with contextlib.suppress(asyncio.TimeoutError):
            await self.http_server.close_all_connections()
        with contextlib.suppress(RuntimeError, SystemExit):
            await self.app._cleanup()


class JupyterServers:
    """Gives the tests of a file their server."""

    def __init__(self) -> None:
        self._server: RunningServer | None = None

    def get(self, config: dict[str, Any], *, is_shared: bool) -> RunningServer:
        """Return a server of this configuration: the one that runs, if it may be shared."""
        if self._server is None or not is_shared or self._server.config != config:
            self.close()
            self._server = RunningServer(config)
        return self._server

    def runs_on(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Say whether the server runs on this loop."""
        return self._server is not None and self._server.loop is loop

    def close(self) -> None:
        """End the server. Twice is once."""
        server, self._server = self._server, None
        if server is not None:
            server.close()


@pytest.fixture(scope="module")
def jupyter_servers() -> Iterator[JupyterServers]:
    servers = JupyterServers()
    yield servers
    servers.close()
    ensure_event_loop(prefer_selector_loop=True).close()


@pytest.fixture(autouse=True)
def jp_asyncio_loop(jupyter_servers) -> Iterator[asyncio.AbstractEventLoop]:
    """The loop of the file's server while one runs, else a loop for each test."""
    loop = ensure_event_loop(prefer_selector_loop=True)
    yield loop
    if not jupyter_servers.runs_on(loop):
        loop.close()


@pytest.fixture(autouse=True)
def jp_server_cleanup():
    """Take the place of pytest-jupyter's: servers end with their file."""


@pytest.fixture
def jupyter_server(request, jupyter_servers, jp_server_config) -> Iterator[RunningServer]:
    """The running server; without conversations again after the test."""
    is_shared = request.node.get_closest_marker("own_server") is None
    server = jupyter_servers.get(jp_server_config, is_shared=is_shared)
    yield server
    if is_shared:
        server.remove_conversations()
    else:
        jupyter_servers.close()


@pytest.fixture
def jp_serverapp(jupyter_server) -> ServerApp:
    return jupyter_server.app


@pytest.fixture
def jp_http_port(jupyter_server) -> int:
    return jupyter_server.port


@pytest.fixture
def http_server(jupyter_server) -> HTTPServer:
    return jupyter_server.http_server


@pytest.fixture
def server_dir(jupyter_server) -> Path:
    """The directory that has the server's ``data`` and ``run``."""
    return jupyter_server.directory


@pytest.fixture
def short_dir() -> Iterator[Path]:
    """A directory whose path is short enough for sockets."""
    path = Path(tempfile.mkdtemp(prefix="jsb", dir="/tmp"))
    yield path
    remove_tree(path)


def in_directories(directory: Path) -> dict[str, str]:
    """Return settings of a server whose directories a test prepares before it starts."""
    return {"data_dir": str(directory / "data"), "runtime_dir": str(directory / "run")}


def remove_tree(directory: Path) -> None:
    subprocess.run(["rm", "-rf", "--one-file-system", "--", str(directory)], check=False)


@cache
def _bundle() -> Path:
    """The guest bundle of this process: copying and compiling it costs more than a sandbox."""
    directory = Path(tempfile.mkdtemp(prefix="jsb-bundle-", dir="/tmp"))
    atexit.register(remove_tree, directory)
    return prepare_bundle(directory)


def put_bundle(runtime_dir: Path) -> None:
    """Put the guest bundle into a directory where a server would make it."""
    runtime_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    shutil.copytree(_bundle(), runtime_dir / _bundle().name, copy_function=_link_or_copy)


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copyfile(source, target)


def _made(directory: Path) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    return directory
