"""A Jupyter server whose sandboxes can make its loop stand still, as any could on an older version.

``python -m tests.unprotected_server`` takes the arguments of ``jupyter server``. The watch over the
loop is that of the product, with shorter times.
"""

from __future__ import annotations

import socket

from jupyter_server.serverapp import ServerApp

from jupyter_sandbox.app import standstill
from jupyter_sandbox.proxies import guest_sockets

if __name__ == "__main__":
    guest_sockets.SO_PASSRIGHTS = socket.SO_PASSCRED  # setting it to 0 changes nothing
    guest_sockets.refuses_descriptors = lambda: True
    standstill._STANDS_SECONDS = 1.0
    standstill._END_SECONDS = 2.0
    ServerApp.launch_instance()
