"""The bytes of a day, of each conversation and of all, in memory that outlives the egress process.

The Jupyter server holds the memory and gives it to each egress process that it starts: one that is
killed forgets nothing, and a sandbox that brings it down has no new day. A table of words of 64
bits: per row the name (two words of its digest), since when, up, down. The rule: what does not fit
is counted all the same, for as long as the process lives.
"""

from __future__ import annotations

import hashlib
import mmap
import os

_ROWS = 32_768
_WORDS = 5
_WORD_BYTES = 8
_SIZE_BYTES = _ROWS * _WORDS * _WORD_BYTES


def make_memory() -> int:
    """Give a descriptor of memory for one server; the caller closes it."""
    memory = os.memfd_create("jsbx-egress-bytes")
    os.ftruncate(memory, _SIZE_BYTES)
    return memory


class KeptBytes:
    """The table, as one egress process has it.

    Parameters
    ----------
    memory : int
        Of ``make_memory``; -1: memory that ends with this process.
    """

    def __init__(self, memory: int = -1) -> None:
        self._words = memoryview(mmap.mmap(memory, _SIZE_BYTES)).cast("Q")
        self._rows: dict[tuple[int, int], int] = {}
        free = []
        for row in range(_ROWS):
            name = self._name(row)
            if name == (0, 0):
                free.append(row)
            else:
                self._rows[name] = row
        self._free = free[::-1]

    def __repr__(self) -> str:
        return f"<KeptBytes {len(self._rows)} rows>"

    def of(self, name: str) -> memoryview[int]:
        """Give the three words of a name: since (0: nothing yet), up, down."""
        digest = _digest(name)
        row = self._rows.get(digest)
        if row is None:
            if not self._free:
                return memoryview(bytearray(3 * _WORD_BYTES)).cast("Q")
            row = self._rows[digest] = self._free.pop()
            start = row * _WORDS
            for offset, word in enumerate((0, 0, 0, *digest)):  # the name last: then it is whole
                self._words[start + (offset + 2) % _WORDS] = word
        start = row * _WORDS + 2
        return self._words[start : start + 3]

    def forget(self, name: str) -> None:
        """Give back the row of a name."""
        row = self._rows.pop(_digest(name), None)
        if row is not None:
            self._words[row * _WORDS] = self._words[row * _WORDS + 1] = 0
            self._free.append(row)

    def _name(self, row: int) -> tuple[int, int]:
        return self._words[row * _WORDS], self._words[row * _WORDS + 1]


def _digest(name: str) -> tuple[int, int]:
    digest = hashlib.blake2s(name.encode(), digest_size=16).digest()
    return int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little")
