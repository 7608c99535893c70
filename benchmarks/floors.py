"""What nothing of ours can be faster than: the work without a sandbox, or a sandbox without us.

Each floor is a class or function that gives an ``Arm``; each cleans up after itself.
"""

from __future__ import annotations

import contextlib
import os
import queue
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager

from jupyter_sandbox.engines import bubblewrap_flags
from jupyter_sandbox.engines.base import DIAL_TARGET, GUEST_TARGET, Mount, SandboxSpec
from jupyter_sandbox.engines.bubblewrap_program import find_programs
from jupyter_sandbox.engines.docker import DockerEngine
from jupyter_sandbox.engines.docker_flags import DockerSettings, container_name, create_config
from jupyter_sandbox.engines.host_python import find_host_python
from jupyter_sandbox.engines.host_view import find_host_view
from jupyter_sandbox.engines.private_files import PrivateFiles, etc_files, make_root, write_writable
from jupyter_sandbox.sandbox.bundle import prepare_bundle
from jupyter_sandbox.sandbox.sandboxes import GUEST_ARGV

from .arms import Arm, timed
from .client import CaseFailed, Client

_REPLY_SECONDS = 60.0


def host_command(command: str) -> Arm:
    """Give fork, exec and the command on the host, its output read from one pipe."""

    def work() -> None:
        subprocess.run(
            ["/bin/bash", "-c", command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=True,
        )

    return timed(work)


def host_command_to_file(command: str, directory: Path) -> Arm:
    """Give the command on the host with its output in a file, which is removed untimed."""
    path = directory / "output"

    def arm() -> float:
        with path.open("wb") as file:
            seconds = timed(
                lambda: subprocess.run(
                    ["/bin/bash", "-c", command], stdin=subprocess.DEVNULL, stdout=file, check=True
                )
            )()
        path.unlink()
        return seconds

    return arm


@contextlib.contextmanager
def tornado_echo(body: bytes) -> Iterator[Arm]:
    """Give a round trip of ``body`` through a bare tornado server."""
    with bare_tornado(Path(tempfile.gettempdir())) as client:

        def work() -> None:
            if client.request("POST", "/echo", body) != (200, body):
                raise CaseFailed("the echo server gave something else")

        yield timed(work)


@contextlib.contextmanager
def tornado_file(directory: Path, body: bytes) -> Iterator[tuple[Arm, Arm]]:
    """Give an upload to and a download from a bare tornado server that streams a file."""
    with bare_tornado(directory) as client:

        def upload() -> None:
            if client.request("PUT", "/file", body)[0] != 201:
                raise CaseFailed("the bare server took no file")

        def download() -> None:
            if client.download("/file") != len(body):
                raise CaseFailed("the bare server gave another file")

        upload()
        yield timed(upload), timed(download)


@contextlib.contextmanager
def bare_tornado(directory: Path) -> Iterator[Client]:
    """Give a client of ``benchmarks.echo_server``, a process of its own in this directory."""
    search = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    server = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.echo_server"],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(search)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is for the benchmark, which ends this one
    )
    try:
        assert server.stdout is not None
        client = Client(int(server.stdout.readline()))
        yield client
        client.close()
    finally:
        server.communicate()  # the end of its stdin ends it, and its file


@contextlib.contextmanager
def engine_start(engine: str, directory: Path) -> Iterator[Arm]:
    """Give the bare start of an environment by this engine's own program, with the same flags."""
    with _docker_start(directory) if engine == "docker" else _bubblewrap_start(directory) as arm:
        yield arm


@contextlib.contextmanager
def _docker_start(directory: Path) -> Iterator[Arm]:
    """Create and start of the same container through the SDK; its end is not timed."""
    import docker

    client = docker.APIClient(version="auto", timeout=120)
    settings = DockerSettings(
        image=DockerEngine().image,
        api_version=tuple(int(part) for part in client.api_version.split(".")),
        limits_swap=bool(client.info().get("SwapLimit", True)),
    )
    made: set[str] = set()

    def arm() -> float:
        spec = _spec(directory, (*GUEST_ARGV, "--dial-dir", DIAL_TARGET))
        name = container_name(spec.sandbox_id)
        made.add(name)
        started = time.perf_counter()
        client.create_container_from_config(create_config(spec, settings), name)
        client.start(name)
        seconds = time.perf_counter() - started
        client.remove_container(name, force=True, v=True)
        made.remove(name)
        return seconds

    try:
        yield arm
    finally:
        for name in made:
            with contextlib.suppress(docker.errors.NotFound):
                client.remove_container(name, force=True, v=True)
        client.close()


@contextlib.contextmanager
def _bubblewrap_start(directory: Path) -> Iterator[Arm]:
    """``bwrap … python -c pass`` with the engine's arguments, to its end."""
    spec = _spec(directory, ("{python}", "-c", "pass"))
    view = find_host_view(find_host_python(), [Path.home()])
    root = directory / "bwrap"
    files = PrivateFiles.beneath(root)
    make_root(files)
    write_writable(files, spec.writable_dirs, view.python, None)
    program = find_programs()[0]
    arguments = bubblewrap_flags.create_arguments(spec, view, files, version=program.version)
    for name, text in etc_files("floor").items():
        path = files.root / name
        path.write_text(text)
        arguments = ["--ro-bind", str(path), f"/etc/{name}", *arguments]
    words = [str(program.path), "--die-with-parent", *arguments, "--"]
    words += bubblewrap_flags.guest_command(spec)
    try:
        yield timed(lambda: subprocess.run(words, stdin=subprocess.DEVNULL, check=True, cwd="/"))
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _spec(directory: Path, argv: tuple[str, ...]) -> SandboxSpec:
    """Give the specification that `Sandboxes` would make, with a dial directory nobody serves."""
    dial, uploads = directory / "dial", directory / "uploads"
    for path in (dial, uploads):
        path.mkdir(exist_ok=True)
    return SandboxSpec(
        sandbox_id=secrets.token_hex(12),
        server_id="bec4",
        dial_dir=dial,
        mounts=(
            Mount(prepare_bundle(directory), GUEST_TARGET),
            Mount(uploads, "/mnt/user-data/uploads"),
        ),
        guest_argv=argv,
        env={"PYTHONPATH": GUEST_TARGET},
    )


class BareKernel:
    """An ipykernel of this machine behind jupyter_client, as everybody uses it."""

    def __init__(self) -> None:
        self._manager: KernelManager | None = None
        self._client: BlockingKernelClient | None = None

    def start(self) -> float:
        """Give the seconds from the start of a new kernel to the first reply."""
        self.close()
        started = time.perf_counter()
        self._manager = KernelManager(kernel_name="python3")
        self._manager.start_kernel(
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self._client = self._manager.blocking_client()
        self._client.start_channels(stdin=False, hb=False)
        self._reply("pass")
        return time.perf_counter() - started

    def execute(self) -> float:
        """Give the seconds of one ``pass``: reply and idle."""
        started = time.perf_counter()
        self._reply("pass", wait_idle=True)
        return time.perf_counter() - started

    def close(self) -> None:
        """End the kernel. Twice is once."""
        client, self._client = self._client, None
        manager, self._manager = self._manager, None
        if client is not None:
            client.stop_channels()
        if manager is not None:
            manager.shutdown_kernel(now=True)
            manager.cleanup_resources()
            manager.context.destroy(linger=0)

    def _reply(self, code: str, wait_idle: bool = False) -> None:
        client = self._client
        assert client is not None
        sent = client.execute(code)
        try:
            while client.get_shell_msg(timeout=_REPLY_SECONDS)["parent_header"]["msg_id"] != sent:
                pass
            while wait_idle and not _is_idle(client.get_iopub_msg(timeout=_REPLY_SECONDS), sent):
                pass
        except queue.Empty:
            raise CaseFailed("the bare kernel did not answer") from None


def _is_idle(message: dict[str, Any], sent: str) -> bool:
    return (
        message["parent_header"].get("msg_id") == sent
        and message["content"].get("execution_state") == "idle"
    )
