"""The egress process with names that tests choose: started by tests only, as `python -m`.

Takes a JSON object of names to lists of addresses; of a list of lists each look-up takes the next. With ``--record FILE`` nothing is connected to: each
attempt is one line in the file.
"""

from __future__ import annotations

import json
import socket
import sys
from pathlib import Path

from jupyter_sandbox.proxies.forward.dialer import dial_tcp
from jupyter_sandbox.proxies.forward.process import run

ANSWERS = json.loads(sys.argv[1])
RECORD = Path(sys.argv[3]) if len(sys.argv) > 3 else None


async def resolve(host: str) -> list[str]:
    if host not in ANSWERS:
        raise OSError("no such name")
    answer = ANSWERS[host]
    if answer and isinstance(answer[0], list):
        return answer.pop(0) if len(answer) > 1 else answer[0]
    return answer


async def dial(address: str, port: int) -> socket.socket:
    if RECORD is None:
        return await dial_tcp(address, port)
    with RECORD.open("a") as file:
        file.write(f"{address} {port}\n")
    raise OSError("recorded, not connected")


if __name__ == "__main__":
    run(resolve, dial)
