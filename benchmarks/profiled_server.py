"""A Jupyter Server whose loop is profiled: ``python -m benchmarks.profiled_server FILE ARGS…``.

The profile (of the loop's thread) is in FILE when the server has ended; ``python -m pstats FILE``.
It makes every call slower: look at shares, not at times.
"""

from __future__ import annotations

import cProfile
import os
import sys
from pathlib import Path

from jupyter_server.serverapp import main


def run() -> None:
    path = Path(sys.argv.pop(1))
    profile = cProfile.Profile()
    try:
        profile.runcall(main)
    finally:
        profile.dump_stats(path)
        os.chmod(path, 0o644)


if __name__ == "__main__":
    run()
