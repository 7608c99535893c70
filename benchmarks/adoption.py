"""A server that was killed, and the next one that adopts all its sandboxes.

The time is from the new server's first answer until it is attached to every sandbox and its Python
kernel again. The rule: nobody calls meanwhile, so it is the adoption at the start that is measured.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

from .arms import Arm, Sample
from .client import CaseFailed
from .engine_verbs import verbs_of
from .sandbox_memory import sandbox_of
from .server import UNLIMITED, BenchServer, running_server

_ADOPTED = 'jupyter_sandbox_adopted_total{outcome="adopted"}'
_AT_ONCE = 4
_BOUND_SECONDS = 300.0


def adoption_times(engine: str, sandboxes: int, rounds: int) -> tuple[Sample, Sample]:
    """Give the times of adopting so many, and of asking the engine for each, one by one."""
    settings = (*UNLIMITED, "--SandboxEgress.presets=[]")
    with running_server(engine, settings=settings) as server:
        conversations = _crowd(server, sandboxes)
        adoption, asking = _adoption(server, sandboxes), _asking(server, conversations)
        pairs = [(adoption(), asking()) for _ in range(rounds)]
    ours, floor = zip(*pairs, strict=True)
    return Sample(ours), Sample(floor)


def _crowd(server: BenchServer, count: int) -> list[str]:
    """Make conversations with a sandbox and a Python kernel each."""

    def make(_: int) -> str:
        client = server.client()
        try:
            conversation = client.create()
            client.call(conversation, "python", code="kept = 1")
        finally:
            client.close()
        return conversation

    with ThreadPoolExecutor(_AT_ONCE) as threads:
        return list(threads.map(make, range(count)))


def _adoption(server: BenchServer, count: int) -> Arm:
    def arm() -> float:
        server.kill()
        server.start_again()
        started = time.perf_counter()
        client = server.client()
        try:
            while client.metric(_ADOPTED) < count:
                if time.perf_counter() - started > _BOUND_SECONDS:
                    raise CaseFailed("the new server has not adopted all sandboxes")
                time.sleep(0.02)
        finally:
            client.close()
        return time.perf_counter() - started

    return arm


def _asking(server: BenchServer, conversations: list[str]) -> Arm:
    client = server.client()
    sandboxes = [sandbox_of(client, each) for each in conversations]
    client.close()

    def arm() -> float:
        with verbs_of(server) as engine:
            started = time.perf_counter()
            for sandbox_id in sandboxes:
                engine.handle(sandbox_id)
            return time.perf_counter() - started

    return arm
