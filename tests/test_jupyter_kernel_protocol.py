"""The messaging protocol's conformance suite on the sandbox's kernel, through our provisioner.

The same suite runs on a plain ipykernel beside it: what that passes, ours passes.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import threading
from pathlib import Path
from unittest import TestCase

import jupyter_kernel_test
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import start_new_kernel

from jupyter_sandbox.sandbox.kernel_manager import SandboxKernelManager
from jupyter_sandbox.sandbox.link import GuestLink
from jupyter_sandbox.sandbox.provisioner import SandboxAccess

from .local_guest import PYTHON_PATH, LocalGuest


class SandboxedKernel:
    """A kernel in a guest, for tests that block: its manager runs on a loop of its own."""

    def __init__(self) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="jsb", dir="/tmp"))
        self._guest = LocalGuest(self._directory)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._link = GuestLink(self._guest.dial, "h1")
        access = SandboxAccess(
            self._link,
            self._guest.private / "k",
            python_path=PYTHON_PATH,
            cwd=str(self._guest.work),
        )
        self.manager = SandboxKernelManager(access)
        self._wait(self._start())

    def client(self) -> BlockingKernelClient:
        client = BlockingKernelClient()
        client.load_connection_info(self.manager.get_connection_info())
        return client

    def close(self) -> None:
        self._wait(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()
        self._guest.close()
        shutil.rmtree(self._directory)

    def _wait(self, work) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    async def _start(self) -> None:
        await self._link.start()
        await self.manager.start_kernel(kernel_name="ignored", env={"PATH": "/nowhere"})

    async def _stop(self) -> None:
        assert await self.manager.is_alive()
        await self.manager.shutdown_kernel()
        assert not await self.manager.is_alive()
        await self._link.close()


class Conformance(jupyter_kernel_test.KernelTests):
    language_name = "python"
    file_extension = ".py"
    code_hello_world = "print('hello, world')"
    code_stderr = "import sys; print('test', file=sys.stderr)"
    completion_samples = (
        {"text": "zi", "matches": {"zip"}},
        {"text": "import sys; sys.stdou"},
    )
    complete_code_samples = ("1", "print('hello, world')", "def f(x):\n  return x*2\n\n\n")
    incomplete_code_samples = ("print('''hello", "def f(x):\n  x*2")
    invalid_code_samples = ("import = 7q",)
    code_page_something = "zip?"
    code_generate_error = "raise ValueError('no')"
    code_execute_result = (
        {"code": "1+2+3", "result": "6"},
        {"code": "[n*n for n in range(1, 4)]", "result": "[1, 4, 9]"},
    )
    code_display_data = (
        {
            "code": "from IPython.display import HTML, display; display(HTML('<b>test</b>'))",
            "mime": "text/html",
        },
        {
            "code": "from IPython.display import Math, display; display(Math('\\\\frac{1}{2}'))",
            "mime": "text/latex",
        },
    )
    code_inspect_sample = "zip"
    code_clear_output = "from IPython.display import clear_output; clear_output()"


class TestSandboxKernel(Conformance):
    @classmethod
    def setUpClass(cls) -> None:
        cls.sandboxed = SandboxedKernel()
        cls.kc = cls.sandboxed.client()
        cls.kc.start_channels()
        cls.kc.wait_for_ready(timeout=30)

    @classmethod
    def tearDownClass(cls) -> None:
        cls.kc.stop_channels()
        cls.sandboxed.close()


class TestPlainIpykernel(Conformance):
    @classmethod
    def setUpClass(cls) -> None:
        cls.km, cls.kc = start_new_kernel(kernel_name="python3")


class TestIopubWelcome(jupyter_kernel_test.IopubWelcomeTests):
    support_iopub_welcome = True

    @classmethod
    def setUpClass(cls) -> None:
        cls.sandboxed = SandboxedKernel()
        cls.kc = cls.sandboxed.client()

    @classmethod
    def tearDownClass(cls) -> None:
        cls.kc.stop_channels()
        cls.sandboxed.close()

    def test_recv_iopub_welcome_msg(self) -> None:
        """As upstream's, but a kernel that has just started may speak while it greets."""
        self.kc.start_channels()
        for _ in range(10):
            message = self.kc.get_iopub_msg(timeout=30)
            if message["header"]["msg_type"] == "iopub_welcome":
                break
            assert message["header"]["msg_type"] == "status"
        assert message["header"]["msg_type"] == "iopub_welcome"


class TestHeartbeat(TestCase):
    def test_the_heartbeat_beats_through_the_relay(self) -> None:
        sandboxed = SandboxedKernel()
        client = sandboxed.client()
        client.start_channels()
        try:
            client.wait_for_ready(timeout=30)
            client.hb_channel.unpause()
            assert client.is_alive()
        finally:
            client.stop_channels()
            sandboxed.close()


del Conformance
