"""What the kernel of this host says of its memory."""

from __future__ import annotations

import contextlib
from pathlib import Path

from ..policy.memory import Memory

_PROC = Path("/proc")


def read_memory(proc: Path = _PROC) -> Memory | None:
    """Give the memory as it is now; None where the kernel does not tell.

    Source: https://www.kernel.org/doc/html/latest/filesystems/proc.html#meminfo and
    https://www.kernel.org/doc/html/latest/accounting/psi.html
    """
    numbers: dict[str, int] = {}
    try:
        for line in (proc / "meminfo").read_text().splitlines():
            name, _, rest = line.partition(":")
            value = rest.split()
            if value and value[0].isdigit():
                numbers[name] = int(value[0]) * 1024
    except OSError:
        return None
    if "MemAvailable" not in numbers or "MemTotal" not in numbers:
        return None
    return Memory(numbers["MemTotal"], numbers["MemAvailable"], _stalled(proc))


def _stalled(proc: Path) -> float | None:
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = (proc / "pressure" / "memory").read_text().splitlines()
        full = next(line for line in lines if line.startswith("full "))
        words = dict(word.split("=", 1) for word in full.split()[1:])
        return float(words.get("avg10", "nan"))
    return None
