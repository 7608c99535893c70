"""A kernel without ``SO_PASSRIGHTS``: as a setting of tests, and as the egress process under it.

``python -m tests.old_kernel`` is that process, in place of the product's.
"""

from __future__ import annotations

import sys

import pytest

from jupyter_sandbox.proxies import egress, guest_sockets


def pretend(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process, and egress processes that it starts, take the kernel for an old one."""
    monkeypatch.setattr(guest_sockets, "refuses_descriptors", _no)
    monkeypatch.setattr(egress, "COMMAND", (sys.executable, "-m", "tests.old_kernel"))


def _no() -> bool:
    return False


if __name__ == "__main__":
    from jupyter_sandbox.proxies.forward.process import run

    guest_sockets.refuses_descriptors = _no
    run()
