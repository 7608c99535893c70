"""The words on the wire between guest and host. No code: docs/guest-protocol.md explains them.

Every limit here holds on both sides; whoever reads enforces it.
"""

from __future__ import annotations

NAME = "jupyter-sandbox-guest"
VERSION = 1

# Where things are inside; the engine mounts them there.
DIAL_DIR = "/run/jupyter-sandbox/dial"
GUEST_DIR = "/opt/jupyter-sandbox"
EGRESS_DIR = "/run/jupyter-sandbox/egress"

# The way out: clients inside use this port of 127.0.0.1 as their HTTP proxy.
EGRESS_PORT = 3128
EGRESS_OFF = "off"  # file in EGRESS_DIR: there is no way out, and why

# Targets of a stream, named by the host in its first frame.
CONTROL = "control"
FILES = "files"
BASH = "bash"
UNIX = "unix:"  # + absolute path inside; after the answer the stream is raw bytes
TCP = "tcp:"  # + 127.0.0.1:PORT or [::1]:PORT; likewise

# Bounds. One frame is a JSON object of at most MAX_JSON_BYTES and a payload of at most
# MAX_PAYLOAD_BYTES; longer contents travel as several frames (CHUNK_BYTES each).
MAX_JSON_BYTES = 4 * 1024 * 1024
MAX_PAYLOAD_BYTES = 4 * 1024 * 1024
CHUNK_BYTES = 256 * 1024
MAX_STREAMS = 256
IDLE_STREAMS = 4
