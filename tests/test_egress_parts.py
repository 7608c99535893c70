"""The parts of the egress process by themselves, on a clock that the tests turn."""

from __future__ import annotations

import asyncio
import socket

import psutil
import pytest

from jupyter_sandbox.policy.decision import ALLOWED, Decision
from jupyter_sandbox.policy.egress_addresses import AddressPolicy
from jupyter_sandbox.policy.egress_rules import EgressCaps
from jupyter_sandbox.proxies.forward.budgets import REFUSAL_COST, Budgets, CapReached
from jupyter_sandbox.proxies.forward.control import Reports, from_line
from jupyter_sandbox.proxies.forward.dialer import AddressRefused, dial_vetted, is_own
from jupyter_sandbox.proxies.forward.floods import FloodGate
from jupyter_sandbox.proxies.forward.resolver import CachingResolver


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Names:
    """A resolver whose answers come one after the other."""

    def __init__(self, *answers: list[str] | OSError) -> None:
        self.answers = list(answers)
        self.asked = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self, host: str) -> list[str]:
        self.asked += 1
        await self.gate.wait()
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, OSError):
            raise answer
        return answer


class Everything(AddressPolicy):
    """Holds every address for public."""

    def decide_address(self, text: str) -> Decision:
        return ALLOWED


# Names


async def test_many_askers_cost_one_look_up_and_its_answer_is_kept_for_a_minute():
    clock, names = Clock(), Names(["1.1.1.1"], ["2.2.2.2"])
    resolve = CachingResolver(names, clock)
    names.gate.clear()
    asking = [asyncio.ensure_future(resolve("a.example")) for _ in range(50)]
    await asyncio.sleep(0)
    asking[0].cancel()  # who goes away takes the answer from nobody
    names.gate.set()
    answers = await asyncio.gather(*asking[1:])
    assert answers == [["1.1.1.1"]] * 49
    clock.now += 59
    assert await resolve("a.example") == ["1.1.1.1"]
    assert names.asked == 1
    clock.now += 2
    assert await resolve("a.example") == ["2.2.2.2"]


async def test_a_failed_look_up_is_kept_for_a_moment_only():
    clock, names = Clock(), Names(OSError("no such name"), ["1.1.1.1"])
    resolve = CachingResolver(names, clock)
    for _ in range(3):
        with pytest.raises(OSError, match="no such name"):
            await resolve("a.example")
    assert names.asked == 1
    clock.now += 6
    assert await resolve("a.example") == ["1.1.1.1"]


# Addresses


async def test_a_name_that_turns_to_the_inside_is_refused_before_a_connection():
    clock = Clock()
    resolve = CachingResolver(Names(["1.1.1.1"], ["127.0.0.1"]), clock)
    dialled: list[str] = []

    async def dial(address: str, port: int) -> socket.socket:
        dialled.append(address)
        raise OSError("recorded")

    with pytest.raises(OSError, match="recorded"):
        await dial_vetted(dial, AddressPolicy(), await resolve("a.example"), 443, 1.0)
    clock.now += 61
    with pytest.raises(AddressRefused, match="loopback"):
        await dial_vetted(dial, AddressPolicy(), await resolve("a.example"), 443, 1.0)
    assert dialled == ["1.1.1.1"]


def test_an_address_of_this_host_is_known_as_its_own():
    addresses = [a for found in psutil.net_if_addrs().values() for a in found]
    own = [a.address for a in addresses if a.family == socket.AF_INET]
    assert own
    assert all(is_own(address) for address in own)
    assert not is_own("1.1.1.1")
    assert not is_own("2606:4700::1111")


async def test_an_address_of_this_host_is_refused_even_if_it_is_public():
    async def dial(address: str, port: int) -> socket.socket:
        raise AssertionError("connected")

    with pytest.raises(AddressRefused, match="address of this server"):
        await dial_vetted(dial, Everything(), ["1.1.1.1", "127.0.0.1"], 443, 1.0)


async def test_the_peer_that_was_reached_is_judged_again():
    listening = socket.create_server(("127.0.0.1", 0))
    made: list[socket.socket] = []

    async def dial_another(address: str, port: int) -> socket.socket:
        made.append(socket.create_connection(listening.getsockname()))
        return made[-1]

    for policy in (AddressPolicy(), Everything()):
        with pytest.raises(AddressRefused):
            await dial_vetted(dial_another, policy, ["1.1.1.1"], 443, 1.0)
    assert [sock.fileno() for sock in made] == [-1, -1]
    listening.close()


async def test_an_address_that_does_not_answer_leaves_time_for_the_next():
    listening = socket.create_server(("127.0.0.1", 0))
    policy = AddressPolicy(["127.0.0.0/8"])

    async def dial(address: str, port: int) -> socket.socket:
        if address == "127.0.0.2":
            await asyncio.Event().wait()
        return socket.create_connection(listening.getsockname())

    sock = await dial_vetted(dial, policy, ["127.0.0.2", "127.0.0.1"], 443, 0.4)
    assert sock.getpeername()[0] == "127.0.0.1"
    sock.close()
    listening.close()


# Budgets


def test_a_meter_counts_up_to_each_cap_and_not_beyond():
    clock = Clock()
    caps = EgressCaps(
        up_bytes=10, up_bytes_per_day=15, down_bytes_per_day=20, up_bytes_per_day_total=25
    )
    budgets = Budgets(caps, clock)
    first = budgets.meter("c1")
    first.count(0, 10)
    with pytest.raises(CapReached, match="over one connection"):
        first.count(0, 1)
    second = budgets.meter("c1")
    second.count(0, 5)
    with pytest.raises(CapReached, match="conversation has sent all"):
        second.count(0, 1)
    with pytest.raises(CapReached, match="conversation has sent all"):
        budgets.meter("c1").require_some()
    second.count(1, 20)
    with pytest.raises(CapReached, match="conversation has received all"):
        second.count(1, 1)
    assert (first.used, second.used) == ([10, 0], [5, 20])
    other = budgets.meter("c2")
    other.count(0, 10)
    with pytest.raises(CapReached, match="all conversations together"):
        budgets.meter("c2").count(0, 1)
    clock.now += 86_401
    budgets.meter("c1").count(0, 10)


def test_a_rate_admits_a_burst_then_so_many_in_a_second():
    clock = Clock()
    budget = Budgets(EgressCaps(requests_per_second=10), clock).of("c1")
    assert [budget.wait_seconds() for _ in range(20)] == [0.0] * 20
    assert budget.wait_seconds() == pytest.approx(0.1)
    clock.now += 100
    assert [budget.wait_seconds() for _ in range(20)] == [0.0] * 20


def test_a_refusal_counts_as_several_requests():
    clock = Clock()
    budget = Budgets(EgressCaps(requests_per_second=10), clock).of("c1")
    for _ in range(20 // REFUSAL_COST):
        assert budget.wait_seconds() == 0.0
        budget.count_refusal()
    assert budget.wait_seconds() == pytest.approx(0.1)
    budget.count_refusal()
    assert budget.wait_seconds() == pytest.approx((REFUSAL_COST + 1) / 10)


def test_budgets_forget_conversations_whose_day_is_over_when_there_are_too_many(monkeypatch):
    monkeypatch.setattr("jupyter_sandbox.proxies.forward.budgets._MAX_REMEMBERED", 3)
    clock = Clock()
    budgets = Budgets(EgressCaps(), clock)
    for name in ("a", "b"):
        budgets.of(name)
    budgets.of("a").connections = 1
    clock.now += 86_401
    fresh = budgets.of("c")
    budgets.of("d")
    assert set(budgets._conversations) == {"a", "c", "d"}
    assert budgets.of("c") is fresh


# Floods


def test_a_flood_gate_holds_back_and_says_how_many():
    clock = Clock()
    gate = FloodGate(3, 10.0, clock)
    assert [gate.passes("c1") for _ in range(5)] == [True] * 3 + [False] * 2
    assert gate.passes("c2")
    clock.now += 10
    assert gate.admit("c1") == (True, 2)
    assert gate.admit("c1") == (True, 0)


class Pipe:
    """A transport whose reader is slow."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.waiting = 0

    def write(self, data: bytes) -> None:
        self.lines.append(data)

    def get_write_buffer_size(self) -> int:
        return self.waiting


def test_reports_to_a_server_that_does_not_read_are_dropped_and_counted():
    pipe = Pipe()
    reports = Reports(pipe)
    pipe.waiting = 10**9
    for _ in range(1000):
        reports.may_say({"is": "log"})
    reports.must_say({"is": "done"})
    pipe.waiting = 0
    reports.may_say({"is": "log", "line": 1})
    said = [from_line(line) for line in pipe.lines]
    assert said == [
        {"is": "done"},
        {"is": "log", "line": {"dropped": 1000}},
        {"is": "log", "line": 1},
    ]


@pytest.mark.parametrize("line", [b"", b"no json\n", b"[1]\n", b"1\n", b"\xff\n", b"null\n"])
def test_a_line_that_is_no_message_is_an_empty_one(line):
    assert from_line(line) == {}
