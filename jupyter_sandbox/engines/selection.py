"""Which engine to use: the one that was asked for, or the best that works here.

Asks the engines it is given, in order; knows nothing of how they work. The rule: there is always a
sentence that says which and why, also when none works.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from .base import Engine, EngineHealth

AUTO = "auto"
_CHECK_SECONDS = 15.0


@dataclass(frozen=True)
class Choice:
    """The engine to use.

    Attributes
    ----------
    engine : Engine
        When nothing works here, the best one all the same: its ``start`` says why not, and works
        once the cause is gone.
    available : bool
        Whether it works now.
    reason : str
        One sentence, safe to show: ``"docker: Docker 20.10.24 answers at /var/run/docker.sock"``.
    warnings : tuple of str
        What is weaker than it should be with this engine.
    """

    engine: Engine
    available: bool
    reason: str
    warnings: tuple[str, ...] = ()


async def choose(wanted: str, *engines: Engine, timeout_seconds: float = _CHECK_SECONDS) -> Choice:
    """Give the first engine that works; the others are closed.

    Parameters
    ----------
    wanted : str
        ``"auto"``, or the name of the only engine to consider: no other is used in its place.
    engines : Engine
        Best first: docker, bubblewrap.
    timeout_seconds : float
        Of one engine's check; longer is "no answer".

    Raises
    ------
    ValueError
        No engine has the name that is wanted.
    """
    considered = [engine for engine in engines if wanted in (AUTO, engine.name)]
    if not considered:
        names = ", ".join([AUTO, *(engine.name for engine in engines)])
        raise ValueError(f"there is no engine {wanted!r}: use one of {names}")
    choice = await _first_that_works(considered, timeout_seconds)
    for engine in engines:
        if engine is not choice.engine:
            await engine.close()
    return choice


async def _first_that_works(engines: list[Engine], timeout_seconds: float) -> Choice:
    passed: list[str] = []
    for engine in engines:
        health = await _check(engine, timeout_seconds)
        reason = f"{engine.name}: {health.reason}"
        if health.available:
            aside = f" ({'; '.join(passed)})" if passed else ""
            return Choice(engine, True, reason + aside, health.warnings)
        passed.append(reason)
    return Choice(engines[0], False, "; ".join(passed))


async def _check(engine: Engine, timeout_seconds: float) -> EngineHealth:
    try:
        async with asyncio.timeout(timeout_seconds):
            return await engine.check()
    except TimeoutError:
        return EngineHealth(False, f"no answer within {timeout_seconds:g} s")
