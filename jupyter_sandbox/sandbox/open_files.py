"""How many files the server may have open, and how many sandboxes that is enough for.

A running sandbox with its Python kernel takes some 25 descriptors of the server
(`benchmarks.scale`), more while calls run. Jupyter Server sets its own soft limit to 4096. The
rule: the limit is raised as far as the system lets us, never lowered.
"""

from __future__ import annotations

import resource

PER_SANDBOX = 32
_REST = 1024  # connections of clients, stored files, the database
_MOST = 65_536


def raise_open_files(sandboxes: int) -> int:
    """Raise this process's limit for so many running sandboxes; give how many it is enough for.

    Parameters
    ----------
    sandboxes : int
        0: as many as can be.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(_REST + sandboxes * PER_SANDBOX if sandboxes else _MOST, _MOST)
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    if soft == resource.RLIM_INFINITY:
        soft = _MOST
    return max(0, (soft - _REST) // PER_SANDBOX)
