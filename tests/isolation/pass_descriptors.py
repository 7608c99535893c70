"""Run inside a sandbox: pass descriptors whose last close waits over a unix socket of the host's.

Arguments: the socket (a pattern), how many, the seconds that each close is to wait, and whether to
read the socket's end first ("read": what is sent is left in the queue of a connection that ends).
Prints one line of JSON: the errno of each attempt, 0 where it was sent, and what SO_LINGER says.
"""

import array
import glob
import json
import socket
import struct
import sys
import time

PATTERN, COUNT, SECONDS = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])


def waiting():
    """Give a TCP socket with data that nobody reads, and what must live on for it to wait."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(1)
    sender = socket.create_connection(listener.getsockname())
    peer, _ = listener.accept()
    sender.setblocking(False)
    try:
        while True:
            sender.send(b"x" * 65536)
    except BlockingIOError:
        pass
    sender.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, SECONDS))
    return sender, (listener, peer)


held, found, linger = [], [], (0, 0)
deadline = time.monotonic() + 20
while not glob.glob(PATTERN) and time.monotonic() < deadline:
    time.sleep(0.05)
for _ in range(COUNT):
    sender, rest = waiting()
    held.append(rest)
    linger = struct.unpack("ii", sender.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8))
    door = socket.socket(socket.AF_UNIX)
    try:
        door.connect(sorted(glob.glob(PATTERN))[-1])
        passed = array.array("i", [sender.fileno()])
        door.sendmsg([b"CONNECT "], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, passed)])
        found.append(0)
    except OSError as exc:
        found.append(exc.errno)
    sender.close()
    held.append(door)
print(json.dumps({"sent": found, "linger": linger}), flush=True)
time.sleep(SECONDS)
