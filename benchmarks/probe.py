"""An extension of the measured server that tells what its process holds.

Only benchmarks and tests load it. Each answer is after a full collection of garbage, and after the
chores that let go of what is idle, so that two answers differ by what stays.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import json
import os
import re
import threading
from collections import Counter
from pathlib import Path
from typing import Any

from jupyter_server.base.handlers import JupyterHandler
from jupyter_server.utils import url_path_join
from tornado import web

_CHORES = ("forget", "forget kernels")


class ProbeHandler(JupyterHandler):
    """``/probe``."""

    @web.authenticated
    async def get(self) -> None:
        services = await self.settings["jupyter_sandbox"].ready()
        for _ in range(2):  # what was idle at both times is forgotten
            for chore in _CHORES:
                await services.housekeeping.run_now(chore)
        self.finish(json.dumps(held()))


def held() -> dict[str, Any]:
    """Give what this process holds."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # else freed memory may count, or may not
    status = Path("/proc/self/status").read_text()
    resident = re.search(r"VmRSS:\s*(\d+) kB", status)
    assert resident is not None
    ours = Counter(
        type(thing).__name__
        for thing in gc.get_objects()
        if str(type(thing).__module__).startswith("jupyter_sandbox.")
    )
    return {
        "resident_bytes": int(resident[1]) * 1024,
        "descriptors": len(os.listdir("/proc/self/fd")),
        "threads": threading.active_count(),
        "tasks": len(asyncio.all_tasks()),
        "objects": len(gc.get_objects()),
        "ours": ours,
    }


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    return [{"module": "benchmarks.probe"}]


def _load_jupyter_server_extension(app: Any) -> None:
    url = url_path_join(app.web_app.settings["base_url"], "probe")
    app.web_app.add_handlers(".*$", [(url, ProbeHandler)])
