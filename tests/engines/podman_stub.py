"""A service that answers as Podman's Docker API does, as far as connecting to it needs."""

import json
import socketserver
import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path

ANSWERS = {
    "/version": {
        "ApiVersion": "1.41",
        "Version": "4.3.1",
        "Components": [{"Name": "Podman Engine"}],
    },
    "/info": {"BuildahVersion": "1.28", "DefaultRuntime": "crun", "SwapLimit": True},
}


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps(ANSWERS["/" + self.path.rpartition("/")[2]]).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def address_string(self):
        return "unix"

    def log_message(self, *args):
        pass


class PodmanStub:
    """Listens on a socket while the block runs."""

    def __init__(self, path: Path) -> None:
        self.url = f"unix://{path}"
        self._server = socketserver.ThreadingUnixStreamServer(str(path), _Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    def __enter__(self) -> "PodmanStub":
        self._thread.start()
        return self

    def __exit__(self, *failure: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
