"""Ten users on one server, one of them hostile: what the nine others wait, with and without it.

Each sandbox has a quarter of a processor. The rule: the same requests of the same nine users are
measured without the attack and beside it, one after the other.
"""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

from .arms import Sample
from .client import CaseFailed, Client, SandboxClient
from .server import UNLIMITED, BenchServer, running_server

SETTINGS = (
    *UNLIMITED,
    "--SandboxResources.cpus=0.25",
    "--ServerApp.identity_provider_class=benchmarks.users.Users",
)
_FRAME = re.compile(rb'src="([^"]*/leased/[^"]*)"')
_CELL = {"cell_type": "markdown", "id": "a", "metadata": {}, "source": "# x"}
_NOTEBOOK = {"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [_CELL]}


class Neighbour:
    """One of the nine, with a conversation whose sandbox runs."""

    def __init__(self, server: BenchServer, name: str) -> None:
        token = f"{server.token}.{name}"
        self._client = SandboxClient(server.port, token)
        fields = f"Authorization: token {token}\r\nSec-Fetch-Dest: iframe\r\n"
        self._frames = Client(server.port, fields)
        self.conversation = self._client.create()
        self._client.call(self.conversation, "bash", command="true")
        self._put("a.md", b"# x\n")
        self._put("a.ipynb", json.dumps(_NOTEBOOK).encode())

    def works(self) -> dict[str, Callable[[], object]]:
        """Give what is measured, by name."""
        return {
            "call": lambda: self._client.call(self.conversation, "bash", command="echo hello"),
            "upload": lambda: self._put("b.txt", b"x" * 1000),
            "preview": self._preview,
            "notebook": self._notebook,
        }

    def close(self) -> None:
        with contextlib.suppress(CaseFailed, OSError):
            self._client.delete(self.conversation)
        self._client.close()
        self._frames.close()

    def _put(self, name: str, data: bytes) -> None:
        self._client.put(f"conversations/{self.conversation}/uploads/{name}", data)

    def _preview(self) -> None:
        status, shell = self._client.get(f"/sandbox/preview/{self.conversation}/uploads/a.md")
        frame = _FRAME.search(shell)
        if status != 200 or frame is None:
            raise CaseFailed(f"preview: {status}")
        status, page = self._frames.request("GET", frame[1].decode().replace("&amp;", "&"))
        if status != 200 or b"<h1" not in page:
            raise CaseFailed(f"preview: {status} {page[:300]!r}")

    def _notebook(self) -> None:
        path = f"/sandbox/c/{self.conversation}/api/contents/uploads/a.ipynb"
        status, answer = self._client.get(path)
        if status != 200 or b'"# x"' not in answer:
            raise CaseFailed(f"notebook: {status} {answer[:300]!r}")


def beside_an_attack(engine: str, owners: int, rounds: int) -> dict[str, tuple[Sample, Sample]]:
    """Give for each kind of request its times beside the attack, and without it."""
    with running_server(engine, settings=SETTINGS) as server, contextlib.ExitStack() as stack:
        names = [f"owner{number}" for number in range(1, owners)]
        with ThreadPoolExecutor(4) as threads:
            nine = list(threads.map(lambda name: Neighbour(server, name), names))
        hostile = Neighbour(server, "hostile")
        for each in (*nine, hostile):
            stack.callback(each.close)
        time.sleep(3.0)  # the Python kernels start a moment later
        _measure(nine, 1)
        quiet = _measure(nine, rounds)
        with _attack(server, hostile):
            beside = _measure(nine, rounds)
    return {kind: (Sample(tuple(beside[kind])), Sample(tuple(quiet[kind]))) for kind in quiet}


def _measure(nine: list[Neighbour], rounds: int) -> dict[str, list[float]]:
    found: dict[str, list[float]] = defaultdict(list)
    for _ in range(rounds):
        for each in nine:
            for kind, work in each.works().items():
                started = time.perf_counter()
                work()
                found[kind].append(time.perf_counter() - started)
    return found


@contextlib.contextmanager
def _attack(server: BenchServer, hostile: Neighbour) -> Iterator[None]:
    words = ("-m", "benchmarks.hostile", server.url, f"{server.token}.hostile")
    attacker = subprocess.Popen(
        [sys.executable, *words, hostile.conversation], stdout=subprocess.PIPE
    )
    try:
        assert attacker.stdout is not None
        if attacker.stdout.readline() != b"attacking\n":
            raise CaseFailed("the attack did not begin")
        time.sleep(1.0)
        yield
        if attacker.poll() is not None:
            raise CaseFailed("the attack ended by itself")
    finally:
        attacker.kill()
        attacker.wait()
