"""A guest for the engines' tests: dials ``probe.sock`` and runs the Python it is sent.

Standard library only, Python 3.9. One request a line, ``{"code": "..."}``; the answer is what the
code bound to ``result``, or the error. Dials again when the host goes away.
"""

import json
import os
import signal
import socket
import sys
import threading
import time
import traceback


def main():
    path = os.path.join(sys.argv[sys.argv.index("--dial-dir") + 1], "probe.sock")
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    while True:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.connect(path)
        except OSError:
            time.sleep(0.02)
            continue
        threading.Thread(target=serve, args=(sock,), daemon=True).start()
        # One stream at a time and another at once, so that a new host finds one.
        while any(t.name.startswith("Thread") for t in threading.enumerate()):
            time.sleep(0.02)


def serve(sock):
    with sock, sock.makefile("rwb") as stream:
        for line in stream:
            scope = {}
            try:
                exec(json.loads(line)["code"], scope)
                answer = {"result": scope.get("result")}
            except BaseException:
                answer = {"error": traceback.format_exc()}
            stream.write(json.dumps(answer).encode() + b"\n")
            stream.flush()


main()
