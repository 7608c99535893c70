"""The application: ipykernel's, without history, debugger, parent poller and greeting."""

# mypy: disallow-untyped-calls=False
# (ipykernel's own functions have no annotations)

from __future__ import annotations

import os
import sys
import traceback
from typing import Any

from . import imports

imports.without_debugger()

from ipykernel.kernelapp import IPKernelApp  # noqa: E402
from jupyter_client.session import Session  # noqa: E402
from sandbox_guest.output import DEFAULT_LIMIT_BYTES, SPOOL_DIR, spool_namer  # noqa: E402
from traitlets import Type, default  # noqa: E402
from traitlets.config import Config  # noqa: E402

from .cell_output import Header, Outputs  # noqa: E402
from .kernel import SandboxKernel  # noqa: E402
from .records import Records  # noqa: E402
from .streams import CellStream  # noqa: E402


class RecordingSession(Session):
    """Writes down what executions give: all messages of the kernel go through here."""

    records = Records()

    def send(self, *args: Any, **kwargs: Any) -> Any:
        """Send a message; see jupyter_client."""
        message = super().send(*args, **kwargs)
        self.records.note(message)
        return message


class SandboxKernelApp(IPKernelApp):
    """Starts a `SandboxKernel`.

    In the environment ``SANDBOX_OUTPUT_BYTES`` bounds the text of a cell and ``SANDBOX_SPOOL_DIR``
    says where the whole of a longer one goes.
    """

    name = "sandbox-python"
    kernel_class: Any = Type(SandboxKernel, klass="ipykernel.kernelbase.Kernel").tag(config=True)
    # Its default names a client, which would import all that `imports.defer` puts off.
    blocking_class: Any = Type(klass=object, default_value=object)

    @default("outstream_class")
    def _default_outstream_class(self) -> str:
        return "sandbox_python.streams.CellStream"

    @default("session")
    def _default_session(self) -> Session:
        return RecordingSession(parent=self, username="kernel")

    @default("parent_handle")
    def _default_parent_handle(self) -> int:
        return 0

    def load_config_file(self, *args: Any, **kwargs: Any) -> None:
        """Read the user's configuration; there is no history database whatever it says."""
        super().load_config_file(*args, **kwargs)
        self.update_config(Config({"HistoryManager": {"enabled": False}}))

    def init_poller(self) -> None:
        """Make none: the guest ends the kernel; a parent that died is no reason to."""

    def log_connection_info(self) -> None:
        """Keep the ports for connect_request; there is no terminal to print to."""
        self._ports = {
            name: getattr(self, name + "_port")
            for name in ("shell", "iopub", "stdin", "hb", "control")
        }

    def init_io(self) -> None:
        """Make the streams, with one bounded output for each execution behind them."""
        CellStream.outputs = Outputs(self._send_text, _limit_bytes(), spool_namer(_spool_dir()))
        super().init_io()

    def excepthook(self, etype: Any, evalue: Any, tb: Any) -> None:
        """Tell of a failure of the kernel itself where the guest can see it, not in a cell."""
        fd = getattr(sys.stderr, "_original_stdstream_copy", None)
        file = sys.__stderr__ if fd is None else os.fdopen(os.dup(fd), "w")
        traceback.print_exception(etype, evalue, tb, file=file)

    def init_kernel(self) -> None:
        """Make the kernel."""
        SandboxKernel.outputs = CellStream.outputs
        SandboxKernel.records = RecordingSession.records
        super().init_kernel()

    def _send_text(self, header: Header, name: str, text: str) -> None:
        self.session.send(
            self.iopub_thread,
            self.session.msg("stream", {"name": name, "text": text}, parent=header),
            ident=b"stream." + name.encode(),
        )


def _limit_bytes() -> int:
    try:
        limit = int(os.environ.get("SANDBOX_OUTPUT_BYTES", ""))
    except ValueError:
        return DEFAULT_LIMIT_BYTES
    return limit if limit > 0 else DEFAULT_LIMIT_BYTES


def _spool_dir() -> str:
    return os.environ.get("SANDBOX_SPOOL_DIR") or SPOOL_DIR


if sys.platform == "win32":  # pragma: no cover
    raise ImportError("sandbox_python runs on POSIX systems only")
