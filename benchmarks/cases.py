"""What is measured: each case an arm of ours, its floor and the aim of the project.

A case gets a running server and a `Plan` and gives rows. The rule: no case depends on another; each
makes its conversation and deletes it.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import re
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from jupyter_sandbox.policy.egress_rules import EgressCaps
from jupyter_sandbox.proxies.forward.budgets import REFUSAL_COST

from .adoption import adoption_times
from .arms import Arm, Sample, alternate, timed
from .client import CaseFailed, SandboxClient
from .egress import egress_arms
from .engine_verbs import verbs_of
from .floors import (
    BareKernel,
    engine_start,
    host_command,
    host_command_to_file,
    tornado_echo,
    tornado_file,
)
from .neighbours import beside_an_attack
from .refusals import flood
from .sandbox_memory import memory_of, sandbox_of
from .server import BenchServer
from .warm_pool import first_result, first_results_at_once, pooled

_ECHO = "echo hello"
_MIB_COMMAND = "head -c 1048576 /dev/zero | tr '\\0' x"
_FLOOD_COMMAND = "yes | head -c 104857600"
_LINE = "the quick brown fox jumps over the lazy dog {n:04}\n"
_TEXT = "".join(_LINE.format(n=n) for n in range(105))[:5120]  # 5 kB in ordinary lines
_DOWNLOAD_MIB = 64
_FILE_BYTES = 25_000_000  # the largest upload
_PAUSE_SECONDS = 0.02
_SETTLE_SECONDS = 1.5  # a new sandbox starts its Python kernel in the background a second later


@dataclass(frozen=True)
class Row:
    """One line of the report.

    Attributes
    ----------
    aim : float or None
        Largest ratio of the medians that is fine; None where there is none.
    """

    engine: str
    case: str
    ours: Sample
    floor: Sample
    against: str
    aim: float | None = None

    @property
    def ratio(self) -> float:
        return self.ours.median / self.floor.median


@dataclass(frozen=True)
class MemoryRow:
    """Growth of the server by a flood beyond that by 1 MiB of output, in bytes."""

    engine: str
    case: str
    small_bytes: int
    flood_bytes: int
    aim_bytes: int

    @property
    def growth_bytes(self) -> int:
        return self.flood_bytes - self.small_bytes


@dataclass(frozen=True)
class DensityRow:
    """What one sandbox takes of the host's memory (the median), and how many fit in 1 GiB."""

    engine: str
    case: str
    sandboxes: int
    bytes_each: int

    @property
    def per_gib(self) -> float:
        return 1024**3 / self.bytes_each


@dataclass(frozen=True)
class Plan:
    """How many rounds of each kind."""

    warm: int
    files: int
    cells: int
    colds: int
    cold_cells: int
    megabytes: int
    floods: int
    refusals: int
    transfers: int
    wakes: int
    crowd: int
    firsts: int
    at_once: int
    adopted: int
    adoptions: int
    neighbours: int


FULL = Plan(
    warm=400,
    files=300,
    cells=100,
    colds=12,
    cold_cells=6,
    megabytes=20,
    floods=5,
    refusals=1_000,
    transfers=20,
    wakes=40,
    crowd=8,
    firsts=12,
    at_once=20,
    adopted=50,
    adoptions=3,
    neighbours=20,
)
SHORT = Plan(
    warm=60,
    files=50,
    cells=20,
    colds=3,
    cold_cells=1,
    megabytes=4,
    floods=1,
    refusals=100,
    transfers=3,
    wakes=5,
    crowd=2,
    firsts=3,
    at_once=3,
    adopted=5,
    adoptions=1,
    neighbours=2,
)

AnyRow = Row | MemoryRow | DensityRow
Case = Callable[[BenchServer, Plan], "list[AnyRow]"]


def warm_bash(server: BenchServer, plan: Plan) -> list[AnyRow]:
    """Measure ``echo hello`` in a sandbox that runs: back to back, and with pauses."""
    rows: list[AnyRow] = []
    with _warm_conversation(server) as (client, conversation):
        ours = timed(lambda: client.call(conversation, "bash", command=_ECHO))
        floor = host_command(_ECHO)
        for case, block, pause in (
            ("bash echo, back to back", 20, 0.0),
            ("bash echo, every 20 ms", 1, _PAUSE_SECONDS),
        ):
            samples = alternate(ours, floor, plan.warm, block=block, pause_seconds=pause)
            rows.append(Row(server.engine, case, *samples, "bash -c on the host", 1.5))
    return rows


def file_tools(server: BenchServer, plan: Plan) -> list[AnyRow]:
    """Measure the file tools on 5 kB against an echo of 5 kB."""
    numbers = itertools.count()
    with (
        _warm_conversation(server) as (client, conversation),
        tornado_echo(_TEXT.encode()) as floor,
    ):
        client.call(conversation, "create_file", path="/workspace/viewed.txt", file_text=_TEXT)
        client.call(
            conversation,
            "create_file",
            path="/workspace/edited.txt",
            file_text=_TEXT + "marker 0\n",
        )

        def view() -> None:
            client.call(conversation, "view", path="/workspace/viewed.txt")

        def create() -> None:
            path = f"/workspace/new/{next(numbers)}.txt"
            client.call(conversation, "create_file", path=path, file_text=_TEXT)

        edits = itertools.count()

        def replace() -> None:
            n = next(edits)
            old, new = f"marker {n}\n", f"marker {n + 1}\n"
            client.call(
                conversation, "str_replace", path="/workspace/edited.txt", old_str=old, new_str=new
            )

        return [
            Row(
                server.engine,
                f"{name} of 5 kB",
                *alternate(timed(work), floor, plan.files, block=5),
                "tornado echo",
                3.0,
            )
            for name, work in (("view", view), ("create_file", create), ("str_replace", replace))
        ]


def cold_bash(server: BenchServer, plan: Plan) -> list[AnyRow]:
    """Measure a new conversation's first command against the bare start of an environment."""
    docker = server.engine == "docker"
    with _client(server) as client, engine_start(server.engine, server.directory) as floor:
        ours = _cold(client, lambda c: client.call(c, "bash", command=_ECHO))
        return [
            Row(
                server.engine,
                "first bash, cold",
                *alternate(ours, floor, plan.colds),
                "docker create+start" if docker else "bwrap python -c pass",
                1.25 if docker else 3.0,
            )
        ]


def cold_python(server: BenchServer, plan: Plan) -> list[AnyRow]:
    """Measure a new conversation's first cell against an environment plus a bare ipykernel."""
    kernel = BareKernel()
    with _client(server) as client, engine_start(server.engine, server.directory) as start:
        ours = _cold(client, lambda c: client.call(c, "python", code="print('hello')"))

        def floor() -> float:
            seconds = start()
            try:
                return seconds + kernel.start()
            finally:
                kernel.close()

        samples = alternate(ours, floor, plan.cold_cells)
    return [Row(server.engine, "first python, cold", *samples, "engine + bare ipykernel", 1.5)]


def warm_python(server: BenchServer, plan: Plan) -> list[AnyRow]:
    """Measure ``pass`` in the conversation's kernel against a bare kernel on the host."""
    kernel = BareKernel()
    try:
        kernel.start()
        with _warm_conversation(server) as (client, conversation):
            client.call(conversation, "python", code="pass")
            ours = timed(lambda: client.call(conversation, "python", code="pass"))
            samples = alternate(ours, kernel.execute, plan.cells, block=5)
    finally:
        kernel.close()
    return [Row(server.engine, "python pass, warm", *samples, "bare ipykernel")]


def outputs(server: BenchServer, plan: Plan) -> list[AnyRow]:
    """Measure 1 MiB and 100 MiB of output, in time and in the server's memory."""
    with _warm_conversation(server) as (client, conversation):

        def arms(command: str) -> tuple[Arm, Arm]:
            ours = timed(lambda: client.call(conversation, "bash", command=command))
            return ours, host_command_to_file(command, server.directory)

        small = alternate(*arms(_MIB_COMMAND), plan.megabytes)
        small_peak = _peak_of(server.pid, lambda: arms(_MIB_COMMAND)[0]())
        flood = alternate(*arms(_FLOOD_COMMAND), plan.floods)
        flood_peak = _peak_of(server.pid, lambda: arms(_FLOOD_COMMAND)[0]())
    to_file = "the same to a file"
    return [
        Row(server.engine, "1 MiB of output", *small, to_file),
        Row(server.engine, "100 MiB of output", *flood, to_file, 4.0),
        MemoryRow(server.engine, "server memory, flood", small_peak, flood_peak, 4 * 1024 * 1024),
    ]


def transfers(server: BenchServer, plan: Plan) -> list[AnyRow]:
    """Measure a file of 25 MB up and down, sealed and checked, against one that only streams."""
    body = os.urandom(_FILE_BYTES)
    with _client(server) as client, tornado_file(server.directory, body) as (put, get):
        conversation = client.create()
        path = f"conversations/{conversation}/uploads/file.bin"

        def download() -> None:
            if client.download(path) != len(body):
                raise CaseFailed("the download is not the file")

        up = alternate(timed(lambda: client.put(path, body)), put, plan.transfers)
        down = alternate(timed(download), get, plan.transfers)
        client.delete(conversation)
    streaming = "bare tornado"
    return [
        Row(server.engine, "upload of 25 MB", *up, streaming, 1 / 0.6),
        Row(server.engine, "download of 25 MB", *down, streaming, 1 / 0.6),
    ]


def egress(server: BenchServer, plan: Plan) -> list[AnyRow]:
    """Measure the egress process by itself: a download, a refusal, a refusal beside a flood."""
    with egress_arms(_DOWNLOAD_MIB) as arms, tornado_echo(_TEXT.encode()) as echo:
        download = alternate(arms.download, arms.direct, plan.megabytes)
        refusal = alternate(arms.refusal, echo, plan.files, block=5)
        beside = alternate(arms.beside_flood, arms.alone, plan.cells)
    return [
        Row(server.engine, "egress, 64 MiB down", *download, "loopback TCP", 3.0),
        Row(server.engine, "egress, a refusal", *refusal, "tornado echo", 3.0),
        Row(server.engine, "the same beside a flood", *beside, "without the flood", 1.1),
    ]


def bash_beside_refusals(server: BenchServer, plan: Plan) -> list[AnyRow]:
    """Measure a command while another sandbox is refused hosts, as often as the proxy answers."""
    per_second = EgressCaps().requests_per_second / REFUSAL_COST
    rounds = math.ceil(plan.refusals / per_second / _PAUSE_SECONDS)
    with _warm_conversation(server) as (client, conversation):
        with flood(client) as other:

            def echo() -> None:
                client.call(conversation, "bash", command=_ECHO)

            samples = alternate(
                other.beside(echo, on=True),
                other.beside(echo, on=False),
                rounds,
                block=25,
                pause_seconds=_PAUSE_SECONDS,
            )
        if other.refused < plan.refusals / 2:
            raise CaseFailed(f"only {other.refused} requests were refused")
    case = f"bash beside {other.refused:,} refusals"
    return [Row(server.engine, case, *samples, "without them", 1.1)]


def wake(server: BenchServer, plan: Plan) -> list[AnyRow]:
    """Measure the call that wakes a sandbox against the engine's own verb and a warm call."""
    with _warm_conversation(server) as (client, conversation), verbs_of(server) as engine:
        other = client.create()
        client.call(other, "bash", command="true")
        time.sleep(_SETTLE_SECONDS)
        client.call(other, "python", code="pass")
        sandbox = sandbox_of(client, other)

        def ours() -> float:
            suspend(client, conversation)
            return timed(lambda: client.call(conversation, "bash", command=_ECHO))()

        def floor() -> float:
            engine.pause(sandbox)

            def go_on() -> None:
                engine.resume(sandbox)
                client.call(other, "bash", command=_ECHO)

            return timed(go_on)()

        samples = alternate(ours, floor, plan.wakes)
        client.delete(other)
    return [Row(server.engine, "wake, first bash", *samples, "unpause + warm echo", 1.5)]


def density(server: BenchServer, plan: Plan) -> list[AnyRow]:
    """Measure what sandboxes take that run idle, with their Python kernel, and suspended ones."""
    rows: list[AnyRow] = []
    with _client(server) as client, verbs_of(server) as engine:
        crowd = [client.create() for _ in range(plan.crowd)]
        for conversation in crowd:
            client.call(conversation, "bash", command=_ECHO)
            client.call(conversation, "python", code="x = 1")
        time.sleep(_SETTLE_SECONDS)

        def measure(case: str) -> DensityRow:
            taken = statistics.median(memory_of(engine, client, each) for each in crowd)
            return DensityRow(server.engine, case, len(crowd), int(taken))

        rows.append(measure("idle sandbox"))
        for conversation in crowd:
            suspend(client, conversation)
        rows.append(measure("suspended sandbox"))
        for conversation in crowd:
            client.delete(conversation)
    return rows


def from_the_pool(server: BenchServer, plan: Plan) -> list[Row | MemoryRow]:
    """Measure first calls with a warm pool, and first results with and without one."""
    rows: list[Row | MemoryRow] = []
    with pooled(server.engine, 2) as pool, _client(server) as client:
        for tool in ("bash", "python"):
            samples = alternate(pool.first_call(tool), pool.warm_call(tool), plan.firsts)
            rows.append(Row(server.engine, f"first {tool}, pool", *samples, "the same, warm", 3.0))
        samples = alternate(pool.first_result(), first_result(client), plan.colds)
        rows.append(Row(server.engine, "create to first result", *samples, "without a pool"))
    with pooled(server.engine, plan.at_once) as pool:
        pool.wait_full()
        ours = first_results_at_once(pool.server, plan.at_once)
    floor = first_results_at_once(server, plan.at_once)
    case = f"the same, {plan.at_once} at once"
    return [*rows, Row(server.engine, case, ours, floor, "without a pool")]


def adoption(server: BenchServer, plan: Plan) -> list[Row | MemoryRow]:
    """Measure how soon a server has all sandboxes of one that was killed."""
    ours, floor = adoption_times(server.engine, plan.adopted, plan.adoptions)
    case = f"adoption of {plan.adopted}"
    return [Row(server.engine, case, ours, floor, "engine's inspect of each")]


def hostile_neighbour(server: BenchServer, plan: Plan) -> list[AnyRow]:
    """Measure what nine users wait beside a hostile tenth, against the same without it."""
    if plan is SHORT and server.engine != "bubblewrap":
        return []  # what is shared is the server's: one engine shows it
    rows: list[AnyRow] = []
    for kind, (beside, quiet) in beside_an_attack(server.engine, 10, plan.neighbours).items():
        rows.append(Row(server.engine, f"neighbour's {kind}", beside, quiet, "no attack", 2.0))
        ends = (Sample((beside.p95,)), Sample((quiet.p95,)))
        rows.append(Row(server.engine, f"neighbour's {kind}, p95", *ends, "no attack", 4.0))
    return rows


CASES: tuple[Case, ...] = (
    warm_bash,
    file_tools,
    outputs,
    warm_python,
    transfers,
    egress,
    bash_beside_refusals,
    cold_bash,
    cold_python,
    wake,
    density,
    from_the_pool,
    adoption,
    hostile_neighbour,
)


def suspend(client: SandboxClient, conversation: str) -> None:
    """Suspend; an engine on a busy machine may need more than one try to freeze all processes."""
    for left in reversed(range(10)):
        try:
            client.json("POST", f"conversations/{conversation}/suspend", {})
        except CaseFailed as exc:
            if " 502 " not in str(exc) or not left:
                raise
        else:
            return


@contextlib.contextmanager
def _client(server: BenchServer) -> Iterator[SandboxClient]:
    client = server.client()
    try:
        yield client
    finally:
        client.close()


@contextlib.contextmanager
def _warm_conversation(server: BenchServer) -> Iterator[tuple[SandboxClient, str]]:
    """Give a conversation whose sandbox has finished its start."""
    with _client(server) as client:
        conversation = client.create()
        client.call(conversation, "bash", command="true")
        time.sleep(_SETTLE_SECONDS)
        client.call(conversation, "python", code="pass")
        yield client, conversation
        client.delete(conversation)


def _cold(client: SandboxClient, first_call: Callable[[str], object]) -> Arm:
    """Give the arm from the creation of a conversation to its first result."""

    def arm() -> float:
        started = time.perf_counter()
        conversation = client.create()
        first_call(conversation)
        seconds = time.perf_counter() - started
        client.delete(conversation)
        return seconds

    return arm


def _peak_of(pid: int, work: Callable[[], object]) -> int:
    """Give the peak of a process's resident memory during ``work``, in bytes.

    Source: https://man7.org/linux/man-pages/man5/proc_pid_clear_refs.5.html (5 resets the peak).
    """
    with contextlib.suppress(OSError):  # without it the peak is that since the start
        Path(f"/proc/{pid}/clear_refs").write_text("5")
    work()
    found = re.search(r"VmHWM:\s*(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    if found is None:
        raise CaseFailed("the server's memory cannot be read")
    return int(found[1]) * 1024
