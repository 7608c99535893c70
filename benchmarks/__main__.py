"""``python -m benchmarks [--short] [--engine docker|bubblewrap|all] [--case NAME] [--json FILE]``.

The exit code is 0 whatever the ratios are; it is 1 when a case fails to run or something was left
behind, 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from pathlib import Path
from typing import Any

from .cases import CASES, FULL, SHORT, AnyRow, Plan
from .client import CaseFailed
from .report import heading, line_of, machine, to_json
from .server import BenchServer, running_server

_ENGINES = ("docker", "bubblewrap")


def main() -> int:
    """Measure and print; give the exit code."""
    options = _parse()
    for number in (signal.SIGINT, signal.SIGTERM):  # SIGINT may come ignored
        signal.signal(number, _interrupt)
    started = time.monotonic()
    about = machine()
    print(f"{about['cpus']} × {about['cpu']}, Linux {about['kernel']}, Python {about['python']}")
    print(f"load at the start {about['load']:.1f}\n\n{heading()}", flush=True)
    rows: list[AnyRow] = []
    failed = False
    try:
        for engine in _ENGINES if options.engine == "all" else (options.engine,):
            try:
                with running_server(engine) as server:
                    failed |= _run(server, SHORT if options.short else FULL, options.case, rows)
            except CaseFailed as exc:
                print(f"{engine}: failed: {exc}", file=sys.stderr)
                failed = True
    except KeyboardInterrupt:
        print("interrupted; everything is cleared up", file=sys.stderr)
        return 130
    print(f"\n{len(rows)} figures in {time.monotonic() - started:.0f} s")
    if options.json:
        options.json.write_text(to_json(rows) + "\n")
    return 1 if failed else 0


def _run(server: BenchServer, plan: Plan, wanted: str, rows: list[AnyRow]) -> bool:
    """Run the cases on one server; say whether one failed."""
    failed = False
    for case in CASES:
        if wanted not in ("all", case.__name__):
            continue
        try:
            found = case(server, plan)
        except (CaseFailed, OSError) as exc:
            failed = True
            print(f"{server.engine}: {case.__name__} failed: {exc}", file=sys.stderr)
            print(server.last_words(), file=sys.stderr, flush=True)
            continue
        for row in found:
            print(line_of(row), flush=True)
        rows += found
    return failed


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--short", action="store_true", help="few rounds: under a minute")
    parser.add_argument("--engine", choices=[*_ENGINES, "all"], default="all")
    parser.add_argument("--case", choices=["all", *(c.__name__ for c in CASES)], default="all")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to FILE")
    return parser.parse_args()


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
