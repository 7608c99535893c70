"""The canonical log line: one per connection, everything that was decided and moved, nothing else.

Pure. The rule: never a path, a query, a header or a byte of content; hosts are printable already.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Account:
    """What is known of one connection so far.

    Attributes
    ----------
    verdict : str
        ``allow``, ``deny`` (by the rules), ``cut`` (allowed, then ended by a cap or a rule) or
        ``fail`` (allowed, the host did not answer).
    """

    sandbox: str
    conversation: str
    method: str = ""
    named: str = ""
    address: str = ""
    verdict: str = ""
    reason: str = ""

    def to_line(self, up_bytes: int, down_bytes: int, milliseconds: int) -> dict[str, object]:
        """Give the line's members."""
        return {
            "conversation": self.conversation,
            "sandbox": self.sandbox,
            "verdict": self.verdict,
            "method": self.method,
            "host": self.named,
            "address": self.address,
            "reason": self.reason,
            "up_bytes": up_bytes,
            "down_bytes": down_bytes,
            "ms": milliseconds,
        }
