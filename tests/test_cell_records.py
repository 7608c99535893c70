"""What the Python kernel keeps of its cells for a server that was away, and how the host reads it."""

from __future__ import annotations

import asyncio
import json
import signal
import threading
import time
from typing import Any

import pytest
from sandbox_python.deadline import Deadline
from sandbox_python.records import KEPT_RECORDS, PIECE_BYTES, Records

from jupyter_sandbox.errors import Unavailable
from jupyter_sandbox.sandbox.cell_reader import CellReader, UnknownCell
from jupyter_sandbox.sandbox.cell_result import CellResult
from jupyter_sandbox.sandbox.dispatcher import Execution

MIB = 1024 * 1024


def message(msg_type: str, content: dict[str, Any], parent: str = "a") -> dict[str, Any]:
    return {
        "msg_type": msg_type,
        "content": content,
        "metadata": {"sandbox": {"truncated": False}},
        "parent_header": {"msg_id": parent},
    }


def stream(text: str) -> dict[str, Any]:
    return message("stream", {"name": "stdout", "text": text})


REPLY = message("execute_reply", {"status": "ok", "execution_count": 1})


class Kernel:
    """The part of a dispatcher that a reader asks; records answer, or whatever is put in place."""

    def __init__(self, records: Records) -> None:
        self.records = records
        self.answer = lambda content: records.read(content["execution_id"], content["position"])
        self.knows_request = True
        self.asked = 0

    async def ask(self, channel: str, msg_type: str, content: dict[str, Any]) -> dict[str, Any]:
        await asyncio.sleep(0)
        if msg_type == "kernel_info_request":
            return {}
        self.asked += 1
        if not self.knows_request:
            await asyncio.Event().wait()
        reply = self.answer(content)
        assert len(json.dumps(reply)) < MIB  # what the relay lets through
        return reply


async def read(kernel: Kernel, limit: int = MIB) -> Execution:
    execution = Execution("a", CellResult(limit, lambda text: None))
    async with asyncio.timeout(30):
        await CellReader(kernel, execution, limit).read()  # type: ignore[arg-type]
    return execution


async def test_all_output_and_the_reply_come_back_in_pieces():
    records = Records()
    records.begin("a", MIB)
    records.note(message("execute_input", {"code": "secret " * 1000}))
    text = "é\x00\n" * 200_000  # longer as JSON than a piece
    records.note(stream(text))
    records.note(stream("another cell's") | {"parent_header": {"msg_id": "b"}})
    records.note(message("status", {"execution_state": "busy"}))
    records.note(REPLY)
    assert len(records._table["a"].data) > 2 * PIECE_BYTES
    execution = await read(Kernel(records))
    assert await execution.done == REPLY["content"]
    assert execution.metadata == REPLY["metadata"]
    assert execution.result.text == text
    assert execution.started.is_set()
    assert execution.ran_seconds is not None


async def test_a_cell_that_runs_is_followed_to_its_end():
    records = Records()
    records.begin("a", MIB)
    records.note(stream("first\n"))
    reading = asyncio.ensure_future(read(Kernel(records)))
    await asyncio.sleep(0.05)
    records.note(stream("last\n"))
    records.note(REPLY)
    execution = await reading
    assert execution.result.text == "first\nlast\n"
    assert execution.ran_seconds is None
    assert execution.earlier_seconds >= 0


def test_what_is_kept_is_bounded_and_says_so():
    records = Records()
    for number in range(3 * KEPT_RECORDS):
        records.begin(str(number), 1024)
        for _ in range(40):
            records.note(stream("x" * MIB) | {"parent_header": {"msg_id": str(number)}})
        records.note(REPLY | {"parent_header": {"msg_id": str(number)}})
    assert len(records._table) <= KEPT_RECORDS
    assert sum(len(record.data) for record in records._table.values()) < 40 * MIB
    last = records.read(str(3 * KEPT_RECORDS - 1), 0)
    assert last["known"]
    assert last["ended"]
    assert last["cut"]
    assert records.read("0", 0) == {"status": "ok", "known": False}


def test_a_cell_that_runs_is_never_forgotten():
    records = Records()
    records.begin("a", 1024)
    for number in range(3 * KEPT_RECORDS):
        records.begin(str(number), 1024)
        records.note(REPLY | {"parent_header": {"msg_id": str(number)}})
    assert records.read("a", 0)["known"]


@pytest.mark.parametrize("position", [-1, "0", None, 10**30, True])
def test_any_position_is_answered(position):
    records = Records()
    records.begin("a", 1024)
    records.note(stream("text"))
    assert records.read("a", position)["known"]


async def test_a_kernel_of_an_older_package_is_found_out():
    kernel = Kernel(Records())
    kernel.knows_request = False
    execution = await read(kernel)
    with pytest.raises(UnknownCell):
        await execution.done


async def test_a_kernel_that_never_had_the_cell_is_found_out():
    execution = await read(Kernel(Records()))
    with pytest.raises(UnknownCell):
        await execution.done


@pytest.mark.parametrize(
    "answer",
    [
        {"known": True, "data": 5},
        {"known": True, "data": "x" * (2 * MIB)},
        {"known": True, "data": "é\n"},
        {"known": True, "data": "no json\n"},
        {"known": True, "data": '{"an": "object"}\n'},
        {"known": True, "data": '["stream"]\n'},
        {"known": True, "data": '["stream", "no object"]\n'},
        {"known": True, "data": "[" * 100_000 + "\n"},
        {"known": True, "data": "x" * 500_000},
        {"known": True, "data": '["stream", {"text": "%s"}]\n' % ("y" * 400_000)},
        {"known": True, "data": "", "over": True},
        {"known": True, "data": "1" * 5000 + "\n"},
    ],
    ids=[
        "a number",
        "too long",
        "not ascii",
        "no json",
        "an object",
        "too short",
        "no content",
        "deep",
        "a line without end",
        "output without end",
        "an end without a reply",
        "a long number",
    ],
)
async def test_a_hostile_kernel_ends_its_own_result_and_costs_little(answer, monkeypatch):
    kernel = Kernel(Records())
    monkeypatch.setattr(kernel, "ask", _hostile(answer))
    execution = await read(kernel)
    with pytest.raises(Unavailable):
        await execution.done
    assert len(execution.result.text) < 1.2 * MIB


def _hostile(answer: dict[str, Any]):
    async def ask(channel: str, msg_type: str, content: dict[str, Any]) -> dict[str, Any]:
        await asyncio.sleep(0)
        return answer

    return ask


@pytest.fixture
def interrupts():
    came: list[float] = []
    before = signal.signal(signal.SIGINT, lambda *_: came.append(time.monotonic()))
    yield came
    signal.signal(signal.SIGINT, before)


def test_a_deadline_interrupts_when_nobody_else_has(interrupts):
    deadline = Deadline(later_seconds=0.0)
    deadline.begin(1000.0)  # the thread sleeps for long; the next cell has less time
    assert not deadline.end()
    deadline.begin(0.05)
    until = time.monotonic() + 10
    while not interrupts and time.monotonic() < until:
        time.sleep(0.01)
    assert len(interrupts) == 1
    assert deadline.end()
    assert not deadline.end()
    deadline.begin(0.0)
    deadline.begin(1000.0)
    assert sum(thread.name == "deadline" for thread in threading.enumerate()) == 1
    assert not deadline.end()  # else this process is interrupted in 1000 seconds


def test_a_cell_that_ended_in_time_is_not_interrupted(interrupts):
    deadline = Deadline(later_seconds=0.1)
    deadline.begin(0.0)
    assert not deadline.end()
    time.sleep(0.3)
    assert not interrupts
