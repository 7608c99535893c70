"""Rows as a table for people and as JSON for machines."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .cases import AnyRow, DensityRow, MemoryRow

_WIDTHS = "{:<10} {:<24} {:>9} {:>9} {:>9} {:>9}  {:<21} {:>7} {:>7}  {}"
_HEAD = ("engine", "case", "ours", "p90", "floor", "p90", "floor is", "ratio", "aim", "")
_MIB = 1024 * 1024


def heading() -> str:
    """Give the two lines above the rows."""
    line = _WIDTHS.format(*_HEAD)
    return f"{line}\n{'-' * len(line)}"


def line_of(row: AnyRow) -> str:
    """Give a row as one line; times are in milliseconds."""
    if isinstance(row, DensityRow):
        words = [row.engine, row.case, _mib(row.bytes_each), "", "", ""]
        words += [f"median of {row.sandboxes}", f"{row.per_gib:.0f}/GiB", "–"]
    elif isinstance(row, MemoryRow):
        words = [row.engine, row.case, _mib(row.flood_bytes), "", _mib(row.small_bytes), ""]
        words += ["after 1 MiB of output", _mib(row.growth_bytes), _mib(row.aim_bytes)]
    else:
        times = (row.ours.median, row.ours.p90, row.floor.median, row.floor.p90)
        words = [row.engine, row.case, *(f"{1000 * t:.2f} ms" for t in times), row.against]
        words += [f"{row.ratio:.2f}", "–" if row.aim is None else f"{row.aim:g}"]
    return _WIDTHS.format(*words, verdict(row))


def verdict(row: AnyRow) -> str:
    """Give ``ok``, ``over`` or nothing where there is no aim."""
    if isinstance(row, DensityRow):
        return ""
    if isinstance(row, MemoryRow):
        return "ok" if row.growth_bytes <= row.aim_bytes else "over"
    if row.aim is None:
        return ""
    return "ok" if row.ratio <= row.aim else "over"


def to_json(rows: Sequence[AnyRow]) -> str:
    """Give all figures, in seconds and bytes, with the machine they are of."""
    return json.dumps({"machine": machine(), "rows": [_figures(row) for row in rows]}, indent=1)


def machine() -> dict[str, Any]:
    """Give what the figures depend on."""
    return {
        "cpus": os.cpu_count(),
        "cpu": _cpu_name(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load": os.getloadavg()[0],
    }


def _figures(row: AnyRow) -> dict[str, Any]:
    if isinstance(row, DensityRow):
        return {**asdict(row), "per_gib": row.per_gib}
    if isinstance(row, MemoryRow):
        return {**asdict(row), "growth_bytes": row.growth_bytes, "verdict": verdict(row)}
    arms = {
        name: {"median": s.median, "p90": s.p90, "minimum": s.minimum, "rounds": len(s.values)}
        for name, s in (("ours", row.ours), ("floor", row.floor))
    }
    facts = {"engine": row.engine, "case": row.case, "against": row.against, "aim": row.aim}
    return {**facts, **arms, "ratio": row.ratio, "verdict": verdict(row)}


def _mib(size: int) -> str:
    return f"{size / _MIB:.1f} MiB"


def _cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
