"""``python -m sandbox_guest``: be PID 1 of a sandbox.

``--egress-dir`` makes it listen for programs that look for the way out. ``--no-init`` says that
this is an ordinary process of a host (tests, the fake engine): it keeps its runtime files in a
temporary directory, ends all that it started when it gets SIGTERM, and opens no port.
"""

from __future__ import annotations

import os
import sys

from .call_filter import refuse_allocation
from .init import Init, listen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from socket import socket
    from typing import List, Optional

_USAGE = "usage: python -m sandbox_guest [--dial-dir DIR] [--egress-dir DIR] [--no-init]"


def main(argv: Optional[List[str]] = None) -> int:
    """Run until the end of the sandbox; give the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    fields = {"boot_id": os.urandom(8).hex()}
    temporary = egress_dir = ""
    while arguments:
        word = arguments.pop(0)
        if word == "--dial-dir" and arguments:
            fields["dial_dir"] = arguments.pop(0)
        elif word == "--egress-dir" and arguments:
            egress_dir = arguments.pop(0)
        elif word == "--no-init":
            import tempfile

            temporary = tempfile.mkdtemp(prefix="jsbx-guest-")
            fields["runtime_dir"] = temporary
            fields["spool_dir"] = os.path.join(temporary, "output")
        else:
            print(_USAGE, file=sys.stderr)
            return 2

    def serve(sock: socket) -> None:
        from . import server  # in the child: PID 1 stays small

        server.serve(sock, server.Settings(**fields))

    def forward(listener: socket) -> None:
        from .forwarder import Forwarder

        Forwarder(listener, egress_dir).run()

    if not temporary:
        refuse_allocation()
    listener = listen() if egress_dir and not temporary else None
    try:
        Init(serve, listener, forward).run()
    finally:
        if temporary:
            import shutil

            shutil.rmtree(temporary, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
