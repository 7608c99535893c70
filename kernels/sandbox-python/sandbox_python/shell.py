"""The interactive shell whose displays and errors are bounded before they are sent.

IPython keeps whatever a cell prints and displays for ``%notebook``, for ever: 100 MiB printed are
300 MiB kept, and each ``write`` costs ten times as much. Here it keeps the text of values only.
"""

# mypy: disallow-untyped-calls=False
# (ipykernel's own functions have no annotations)

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any, Optional

from ipykernel import zmqshell
from ipykernel.displayhook import ZMQShellDisplayHook
from traitlets import Type

from . import bounds
from .streams import CellStream

_KEPT_BYTES = 64 * 1024


def _send_text_first() -> None:
    stream = sys.stdout
    if isinstance(stream, CellStream):
        stream.flush_before_display()


def _limit(header: dict[str, Any]) -> int:
    return CellStream.outputs.limit_of(header)


class BoundedPublisher(zmqshell.ZMQDisplayPublisher):
    """``display()``: bundles within bounds, after the text that was written before them."""

    def _flush_streams(self) -> None:
        _send_text_first()
        super()._flush_streams()

    def publish(
        self,
        data: dict[str, Any],
        metadata: Optional[dict[str, Any]] = None,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        """Publish a bundle; see `bounds.bound_bundle`."""
        if isinstance(data, dict):
            data = bounds.bound_bundle(data, _limit(self.parent_header))
            metadata = bounds.bound_metadata(metadata)
        super().publish(data, metadata, *args, **kwargs)


class BoundedDisplayHook(ZMQShellDisplayHook):
    """The value of a cell's last expression, within bounds."""

    def write_format_data(
        self, format_dict: dict[str, Any], md_dict: Optional[dict[str, Any]] = None
    ) -> None:
        """Put the bundle into the message; see `bounds.bound_bundle`."""
        bundle = bounds.bound_bundle(format_dict, _limit(self.parent_header))
        super().write_format_data(bundle, bounds.bound_metadata(md_dict))

    def log_output(self, format_dict: dict[str, Any]) -> None:
        """Remember the value's text, not its pictures."""
        text = format_dict.get("text/plain")
        kept = bounds.bound_text(text, _KEPT_BYTES) if isinstance(text, str) else ""
        super().log_output({"text/plain": kept})

    def finish_displayhook(self) -> None:
        """Send the message after the text that was written before it."""
        _send_text_first()
        super().finish_displayhook()


class ZMQInteractiveShell(zmqshell.ZMQInteractiveShell):
    """The shell. Libraries look at the name of its class to know that they run in Jupyter."""

    display_pub_class = Type(BoundedPublisher)
    displayhook_class = Type(BoundedDisplayHook)

    @contextlib.contextmanager
    def _tee(self, channel: str) -> Iterator[None]:
        yield  # IPython's own keeps all output of all cells

    def _showtraceback(self, etype: Any, evalue: Any, stb: list[str]) -> None:
        content = bounds.bound_error({"ename": "", "evalue": evalue, "traceback": stb})
        _send_text_first()
        super()._showtraceback(etype, content["evalue"], content["traceback"])
