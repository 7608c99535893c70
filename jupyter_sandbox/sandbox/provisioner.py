"""Start, signal and end a kernel through the guest, as jupyter_client asks for it.

A provisioner finds its sandbox on the kernel manager that made it (``sandbox_access``), never in
kernel.json, whose ``config`` anybody who can write a kernelspec could fill, and never in a global.
Starting and adopting are one request: the guest gives the kernel that runs under this id, with its
key, or starts one. Nothing a caller passes as environment reaches the sandbox.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jupyter_client.connect import KernelConnectionInfo
from jupyter_client.provisioning.provisioner_base import KernelProvisionerBase
from sandbox_guest import protocol

from ..errors import Unavailable
from .answers import Answer
from .link import GuestError, GuestLink
from .relay import CHANNELS, KernelRelay

_WAIT_SECONDS = 20.0
_SIGNATURE = "hmac-sha256"
_UNKNOWN_EXIT = 1


@dataclass(frozen=True)
class SandboxAccess:
    """What a kernel manager needs to have its kernel in a sandbox.

    Attributes
    ----------
    local_prefix : Path
        Here: of the relay's sockets, in a directory of ours that no sandbox can reach.
    python_path : str
        Inside: where the package ``sandbox_python`` is.
    cwd : str
        Inside: of the kernel.
    env : dict
        Further variables of the kernel.
    """

    link: GuestLink
    local_prefix: Path
    python_path: str = protocol.GUEST_DIR
    cwd: str = "/workspace"
    env: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class KernelEnd:
    """Whether the guest knows a kernel, and how it ended."""

    known: bool
    alive: bool
    exit_code: int | None = None


class SandboxProvisioner(KernelProvisionerBase):
    """Provisions one kernel in the sandbox of its kernel manager."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.relay: KernelRelay | None = None
        self.exit_code: int | None = None
        self._launched = False

    @property
    def access(self) -> SandboxAccess:
        """The sandbox, as the kernel manager names it."""
        access = getattr(self.parent, "sandbox_access", None)
        if not isinstance(access, SandboxAccess):
            raise RuntimeError("this kernel's manager has no sandbox; use SandboxKernelManager")
        return access

    @property
    def has_process(self) -> bool:
        """Whether a kernel was launched and its end not yet waited for."""
        return self._launched

    async def pre_launch(self, **kwargs: Any) -> dict[str, Any]:
        """Give the command; drops the environment and whatever else the caller would pass on."""
        return {"cmd": list(self.kernel_spec.argv)}

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> KernelConnectionInfo:
        """Start the kernel, or adopt the one that runs under this id; serve its channels here.

        Raises
        ------
        Unavailable
            The guest does not answer, or could not start it.
        """
        access = self.access
        env = {"PYTHONPATH": access.python_path, **access.env}
        key = self._own_key()
        request = {
            "op": "kernel_start",
            "kernel_id": self.kernel_id,
            "argv": cmd,
            "env": env,
            "cwd": access.cwd,
            "connection": {"key": key, "signature_scheme": _SIGNATURE},
        }
        record = Answer(await self._request(request))
        connection = record.inner("connection")
        remote_prefix, key = connection.text("ip", 256), connection.text("key", 256)
        await self._close_relay()
        self.relay = KernelRelay(access.link, remote_prefix, access.local_prefix, log=self.log)
        await self.relay.start()
        self.exit_code = None
        self._launched = True
        shell, iopub, stdin, control, hb = range(1, len(CHANNELS) + 1)
        self.connection_info = {
            "transport": "ipc",
            "ip": str(access.local_prefix),
            "key": key.encode("utf-8"),  # type: ignore[typeddict-item]  # bytes, as the manager compares
            "signature_scheme": _SIGNATURE,
            "shell_port": shell,
            "iopub_port": iopub,
            "stdin_port": stdin,
            "control_port": control,
            "hb_port": hb,
        }
        return self.connection_info

    async def look(self, timeout_seconds: float = 0.0) -> KernelEnd:
        """Give what the guest says of the kernel; waits for its end, at most ``timeout_seconds``.

        Raises
        ------
        Unavailable
            The guest does not answer.
        """
        body = {
            "op": "kernel_wait",
            "kernel_id": self.kernel_id,
            "timeout_seconds": timeout_seconds,
        }
        try:
            frame = await self.access.link.request(
                protocol.CONTROL, body, timeout_seconds=timeout_seconds + 10.0
            )
        except GuestError as exc:
            if exc.code == "not_found":
                return KernelEnd(known=False, alive=False)
            raise Unavailable("the sandbox refused", detail=str(exc)) from exc
        answer = Answer(frame.body["ok"])
        alive = answer.flag("alive")
        code = None if alive else answer.maybe_whole("exit_code", -255, 255)
        return KernelEnd(known=True, alive=alive, exit_code=code)

    async def poll(self) -> int | None:
        """Give the exit code, or None while it runs or a sandbox that is asleep cannot tell."""
        if not self._launched:
            return self.exit_code if self.exit_code is not None else _UNKNOWN_EXIT
        try:
            end = await self.look()
        except Unavailable:
            return None
        return None if end.alive else self._note(end)

    async def wait(self) -> int | None:
        """Wait for the kernel's end; give its exit code."""
        while self._launched:
            end = await self.look(_WAIT_SECONDS)
            if not end.alive:
                self._note(end)
                self._launched = False
        return self.exit_code

    async def send_signal(self, signum: int) -> None:
        """Send a signal to the kernel's process group."""
        await self._signal(signum)

    async def kill(self, restart: bool = False) -> None:
        """End the kernel and all it started, whatever session they are in."""
        with contextlib.suppress(GuestError):
            await self.access.link.request(
                protocol.CONTROL, {"op": "kernel_kill", "kernel_id": self.kernel_id}
            )

    async def terminate(self, restart: bool = False) -> None:
        """Ask the kernel's process group to end."""
        await self._signal(signal.SIGTERM)

    async def cleanup(self, restart: bool = False) -> None:
        """Close the channels; a restart serves new ones."""
        await asyncio.shield(self._close_relay())

    async def get_provisioner_info(self) -> dict[str, Any]:
        """Give what a later process needs, as JSON: the id. The rest is asked of the guest."""
        return {"kernel_id": self.kernel_id}

    async def load_provisioner_info(self, provisioner_info: dict[str, Any]) -> None:
        """Take the id; the next launch adopts the kernel if it still runs."""
        self.kernel_id = provisioner_info["kernel_id"]

    def _own_key(self) -> str:
        """Give the key a kernel that is started now is to have."""
        key: bytes = getattr(self.parent, "session").key  # noqa: B009
        return key.decode("ascii")

    def _note(self, end: KernelEnd) -> int:
        self.exit_code = _UNKNOWN_EXIT if end.exit_code is None else end.exit_code
        return self.exit_code

    async def _signal(self, signum: int) -> None:
        if signum == 0:
            return
        body = {
            "op": "kernel_signal",
            "kernel_id": self.kernel_id,
            "signum": int(signum),
            "group": True,
        }
        with contextlib.suppress(GuestError):  # it has just ended: poll() will say so
            await self.access.link.request(protocol.CONTROL, body)

    async def _request(self, body: dict[str, Any]) -> object:
        try:
            return (await self.access.link.request(protocol.CONTROL, body)).body["ok"]
        except GuestError as exc:
            raise Unavailable(
                "the Python kernel could not be started", detail=f"{exc.code}: {exc}"
            ) from exc

    async def _close_relay(self) -> None:
        relay, self.relay = self.relay, None
        if relay is not None:
            await relay.close()
