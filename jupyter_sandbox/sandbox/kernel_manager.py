"""A kernel manager whose kernel runs in a sandbox; one per conversation, in no server's map.

It differs from jupyter_client's in what it leaves out: no connection file on the host (the key
would lie there), no TCP ports, no restarter (a kernel that died is started by the next call, which
tells what was lost), no kernelspec directory a user can write.
"""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import sandbox_python
import zmq.asyncio
from jupyter_client.connect import KernelConnectionInfo
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager

from .provisioner import SandboxAccess, SandboxProvisioner

KERNEL_NAME = "sandbox-python"


def kernel_spec() -> KernelSpec:
    """Give the kernelspec of the sandbox's Python kernel, from our own package."""
    return KernelSpec.from_resource_dir(str(Path(sandbox_python.__file__).parent))


class SandboxKernelManager(AsyncKernelManager):
    """Manages one kernel in the sandbox of ``sandbox_access``."""

    sandbox_access: SandboxAccess

    def __init__(self, sandbox_access: SandboxAccess, **kwargs: Any) -> None:
        self.sandbox_access = sandbox_access
        kwargs.setdefault("context", zmq.asyncio.Context.instance())
        super().__init__(
            kernel_name=KERNEL_NAME, transport="ipc", autorestart=False, cache_ports=False, **kwargs
        )
        self._kernel_spec = kernel_spec()

    @property
    def sandbox_provisioner(self) -> SandboxProvisioner:
        """The provisioner: ours, whoever else is registered under its name."""
        if self.provisioner is None:
            self.kernel_id = self.kernel_id or str(uuid.uuid4())
            self.provisioner = SandboxProvisioner(
                kernel_id=self.kernel_id, kernel_spec=self._kernel_spec, parent=self
            )
        assert isinstance(self.provisioner, SandboxProvisioner)
        return self.provisioner

    def write_connection_file(self, **kwargs: Any) -> None:
        """Write none."""

    def _reconcile_connection_info(self, info: KernelConnectionInfo) -> None:
        for name in ("shell_port", "iopub_port", "stdin_port", "hb_port", "control_port"):
            setattr(self, name, 0)  # load_connection_info() keeps what is set
        self.load_connection_info(info)

    async def _async_pre_start_kernel(self, **kw: Any) -> tuple[list[str], dict[str, Any]]:
        assert self.sandbox_provisioner is not None
        return await super()._async_pre_start_kernel(**kw)

    async def _async_post_start_kernel(self, **kw: Any) -> None:
        # No control socket yet: it would be one more stream to a kernel that is not up.
        await self.sandbox_provisioner.post_launch(**kw)

    def cleanup_ipc_files(self) -> None:
        """Leave the sockets to the relay that made them."""
