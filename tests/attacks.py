"""The mark of a test that makes an attack of the catalogue: ``@attack("T13")``.

The catalogue is docs/isolation-attacks.md; ``tests/test_attacks.py`` holds it to these marks. A test
whose name begins with ``test_t13_`` is marked by that.
"""

from __future__ import annotations

import pytest


def attack(*numbers: str, on: str | None = None) -> pytest.MarkDecorator:
    """Mark a test as making these attacks.

    ``on``: the tiers that it runs on (``tests/collected_attacks.py``) where its engine does not tell;
    "" where it attacks what no engine changes.
    """
    return pytest.mark.attack(*numbers, **({} if on is None else {"on": on}))
