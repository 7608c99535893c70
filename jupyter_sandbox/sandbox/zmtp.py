"""Filter of one ZMTP 3.x stream, kernel to host, sans-io: bytes in, bytes that may pass out.

libzmq bounds the number of messages it queues and the size of a frame, but not the parts of one
message: an endless multipart message grew a host by 3 GB. So whole messages pass, or nothing of
them: a message over a bound is dropped without being held, and one that does not end either breaks
the stream. The greeting and commands (handshake,
heartbeat, subscriptions) pass at once, since both sides wait for them.

The rule: never more than one message within its bounds is held; after an error nothing passes.
Source: https://rfc.zeromq.org/spec/37/ (greeting, framing, commands, NULL mechanism).
"""

from __future__ import annotations

GREETING_BYTES = 64
MAX_COMMAND_BYTES = 64 * 1024
MAX_MESSAGE_BYTES = 16 * 1024 * 1024
MAX_PARTS = 64
# A figure can be too large; a message beyond these no Jupyter kernel makes.
ENDLESS_BYTES = 1024 * 1024 * 1024
ENDLESS_PARTS = 10_000

_MORE, _LONG, _COMMAND = 1, 2, 4
_MECHANISM = b"NULL".ljust(20, b"\0")


class ZmtpError(ValueError):
    """The stream is no ZMTP 3.x with the NULL mechanism; it must be closed."""


class ZmtpFilter:
    """Let whole, bounded messages pass.

    Parameters
    ----------
    max_message_bytes : int
        Of all bodies of a message together.
    max_parts : int
        Frames of a message.

    Attributes
    ----------
    dropped : int
        Messages that were over a bound.
    """

    def __init__(
        self, max_message_bytes: int = MAX_MESSAGE_BYTES, max_parts: int = MAX_PARTS
    ) -> None:
        self._max_message_bytes = max_message_bytes
        self._max_parts = max_parts
        self._greeting_left = GREETING_BYTES
        self._header = bytearray()  # of the current frame, until it is whole
        self._body_left = 0
        self._flags = 0
        self._command = bytearray()  # header and body so far
        self._message = bytearray()  # headers and bodies so far
        self._message_bytes = 0
        self._parts = 0
        self._is_dropping = False
        self._is_broken = False
        self.dropped = 0

    def __repr__(self) -> str:
        state = "broken" if self._is_broken else f"{self.held_bytes} bytes held"
        return f"<ZmtpFilter {state}, {self.dropped} dropped>"

    @property
    def held_bytes(self) -> int:
        """How many bytes wait for the rest of their message."""
        return len(self._message) + len(self._command) + len(self._header)

    def feed(self, data: bytes) -> bytes:
        """Take bytes of the kernel; give those that go on to the host.

        Raises
        ------
        ZmtpError
            A malformed greeting or frame, or bytes after an earlier error.
        """
        if self._is_broken:
            raise ZmtpError("the stream is broken")
        try:
            return self._pass(data)
        except ZmtpError:
            self._is_broken = True
            self._message.clear()
            self._command.clear()
            raise

    def _pass(self, data: bytes) -> bytes:
        passed = bytearray()
        view = memoryview(data)
        at = 0
        while at < len(view):
            if self._greeting_left:
                part = view[at : at + self._greeting_left]
                _check_greeting(GREETING_BYTES - self._greeting_left, part)
                passed += part
                self._greeting_left -= len(part)
                at += len(part)
            elif self._body_left:
                part = view[at : at + self._body_left]
                self._keep(part)
                self._body_left -= len(part)
                at += len(part)
                if not self._body_left:
                    passed += self._end_frame()
            else:
                self._header.append(view[at])
                at += 1
                if self._begin_frame() and not self._body_left:
                    passed += self._end_frame()
        return bytes(passed)

    def _begin_frame(self) -> bool:
        """Read the header if it is whole; say whether it is."""
        header = self._header
        flags = header[0]
        if flags & ~(_MORE | _LONG | _COMMAND) or (flags & _COMMAND and flags & _MORE):
            raise ZmtpError(f"reserved flags: {flags:#x}")
        if len(header) < (9 if flags & _LONG else 2):
            return False
        size = int.from_bytes(header[1:], "big")
        if size >> 63:
            raise ZmtpError("a frame's size has its highest bit set")
        self._flags, self._body_left = flags, size
        if flags & _COMMAND:
            if size > MAX_COMMAND_BYTES:
                raise ZmtpError(f"a command of {size} bytes")
        else:
            self._parts += 1
            self._message_bytes += size
            if self._parts > ENDLESS_PARTS or self._message_bytes > ENDLESS_BYTES:
                raise ZmtpError("a message without end")
            if self._parts > self._max_parts or self._message_bytes > self._max_message_bytes:
                self._is_dropping = True
                self._message.clear()
        self._keep(memoryview(header))
        self._header = bytearray()
        return True

    def _keep(self, part: memoryview) -> None:
        if self._flags & _COMMAND:
            self._command += part
        elif not self._is_dropping:
            self._message += part

    def _end_frame(self) -> bytes:
        """Give what passes now that the current frame is whole."""
        if self._flags & _COMMAND:  # may stand between the frames of a message (heartbeat)
            command, self._command = bytes(self._command), bytearray()
            return command
        if self._flags & _MORE:
            return b""
        message, self._message = self._message, bytearray()
        self.dropped += self._is_dropping
        self._is_dropping = False
        self._message_bytes = self._parts = 0
        return bytes(message)


def _check_greeting(offset: int, part: memoryview) -> None:
    """Check the bytes of a greeting that begin at ``offset``."""
    for position, byte in enumerate(part, offset):
        if position == 0:
            valid = byte == 0xFF
        elif position == 9:
            valid = byte == 0x7F
        elif position == 10:
            valid = byte == 3
        elif 12 <= position < 32:
            valid = byte == _MECHANISM[position - 12]
        else:  # padding, minor version, as-server, filler
            valid = True
        if not valid:
            raise ZmtpError(f"not the greeting of ZMTP 3 with NULL (byte {position})")
