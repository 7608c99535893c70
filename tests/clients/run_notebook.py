"""Runs a notebook with nbclient on the kernels of a Jupyter server, and prints what came of it.

A program of its own, because jupyter_server's GatewayClient is one for a process.
"""

from __future__ import annotations

import asyncio
import json
import sys

from jupyter_server.gateway.gateway_client import GatewayClient
from jupyter_server.gateway.managers import GatewayKernelManager
from nbclient import NotebookClient
from nbformat import NotebookNode, v4

LONG = "import time\nprint('go', flush=True)\ntime.sleep(600)"
CELLS = [
    "import os, sys\nanswer = 6 * 7\nprint('on stdout'); print('on stderr', file=sys.stderr)\nanswer",
    "open('left-by-the-notebook', 'w').write(os.getcwd())",
    "1 / 0",
    LONG,
    "print(answer + 1)",
    "from IPython.display import HTML\nHTML('<b>bold</b><script>x()</script>')",
]


class Manager(GatewayKernelManager):
    """jupyter_server's, with the method that jupyter_client asks when an answer takes a second.

    Without it that second ends in an assertion, whatever the server (jupyter_server 2.21 overrides
    ``is_alive`` only, jupyter_client 8.10 calls this one).
    """

    async def _async_is_alive(self) -> bool:
        return await self.is_alive()


interrupting: list[asyncio.Task[None]] = []


def begin(cell: NotebookNode, cell_index: int) -> None:
    """Interrupt the cell that takes long, once it has begun."""
    if cell.source == LONG:
        interrupting.append(asyncio.ensure_future(interrupt_when_it_runs(cell)))


async def interrupt_when_it_runs(cell: NotebookNode) -> None:
    while not cell.outputs:
        await asyncio.sleep(0.05)
    await manager.interrupt_kernel()


GatewayClient.instance().url = sys.argv[1]
manager = Manager()
notebook = v4.new_notebook(cells=[v4.new_code_cell(cell) for cell in CELLS])
NotebookClient(
    notebook, km=manager, kernel_name="python3", allow_errors=True, on_cell_execute=begin
).execute(cleanup_kc=True)
json.dump([cell.outputs for cell in notebook.cells], sys.stdout)
