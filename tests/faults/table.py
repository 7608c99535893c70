"""Which faults of docs/faults.md a test makes: ``@fault("engine-down")``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

_Test = TypeVar("_Test", bound=Callable[..., object])


def fault(*names: str) -> Callable[[_Test], _Test]:
    """Name the rows of the table that a test is for; ``tests/test_faults.py`` reads it."""
    assert names

    def mark(test: _Test) -> _Test:
        return test

    return mark
