"""A bubblewrap engine that another process drives: one JSON request a line on stdin.

Run as an ordinary user by ``other_user_engine.py``.
"""

import asyncio
import dataclasses
import json
import sys
import traceback
from pathlib import Path

from jupyter_sandbox.engines.base import Mount, Resources, SandboxSpec
from jupyter_sandbox.engines.bubblewrap import BubblewrapEngine
from jupyter_sandbox.errors import SandboxError


def to_spec(shape):
    shape["dial_dir"] = Path(shape["dial_dir"])
    shape["mounts"] = [Mount(Path(m["source"]), m["target"]) for m in shape["mounts"]]
    shape["resources"] = Resources(**shape["resources"])
    return SandboxSpec(**shape)


def to_json(value):
    if isinstance(value, (list, tuple)):
        return [to_json(each) for each in value]
    return dataclasses.asdict(value) if dataclasses.is_dataclass(value) else value


async def serve(engine, request):
    arguments = request["arguments"]
    if request["verb"] == "start":
        arguments = [to_spec(*arguments)]
    named = arguments.pop() if request["verb"] == "usage" else {}
    try:
        answer = {"result": to_json(await getattr(engine, request["verb"])(*arguments, **named))}
    except SandboxError as exc:
        answer = {"unavailable": [exc.message, exc.detail]}
    except Exception as exc:  # a bug: the test shall see it, not wait for an answer
        answer = {"unavailable": ["bug", "".join(traceback.format_exception(exc))]}
    print(json.dumps({"id": request["id"], **answer}, default=str), flush=True)


async def main():
    engine = BubblewrapEngine(state_dir=sys.argv[1])
    reader = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(reader)
    await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, sys.stdin)
    tasks = set()
    while line := await reader.readline():
        tasks.add(asyncio.ensure_future(serve(engine, json.loads(line))))
    await engine.close()


asyncio.run(main())
