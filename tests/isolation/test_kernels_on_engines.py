"""What a hostile kernel says, from a real sandbox of each engine: the cases of ``test_hostile_kernel``.

One sandbox for all cases: each must leave it, the server and a neighbour as they were.
"""

from __future__ import annotations

import pytest

from tests.attacks import attack
from tests.conftest import text_of

from .hostile_guest import MIB, Watch
from .test_hostile_kernel import BELOW, FORGE, FORGED, TAKE_OVER

pytestmark = pytest.mark.alone

LONGEST_SECONDS = 0.3
MOST_GROWN = 150 * MIB
MOST_SHOWN = 2 * MIB
_AT_ONCE = 5


def batches(cases: list[str]) -> list[tuple[str, ...]]:
    """Several a cell, to spare time; the last, which ends the kernel, alone."""
    *others, last = cases
    return [*(tuple(others[at : at + _AT_ONCE]) for at in range(0, len(others), _AT_ONCE)), (last,)]


@attack("T19")
async def test_forged_messages_harm_neither_the_server_nor_the_next_cell(api):
    hostile, neighbour = await api.conversation(), await api.conversation()
    await api.text(hostile, "python", code=FORGE)
    await api.bash(neighbour, "true")
    wrong = {}
    for cases in batches(list(FORGED)):
        code = "\n".join(FORGED[case] for case in cases)
        code = f"parent = kernel.get_parent()\n{code}\ntime.sleep(.1)\nprint('the end')"
        async with Watch() as watch:
            result = await api.call(hostile, "python", code=code)
            assert "hello" in await api.bash(neighbour, "echo hello")
        text = text_of(result)
        after = await api.text(hostile, "python", code="print('the next cell')")
        if "cut off" in after:  # malformed messages add up: the kernel may end in this cell
            after = await api.text(hostile, "python", code="print('the next cell')")
        if (
            result["code"] not in ("ok", "kernel_died", "error")
            or len(text) > MOST_SHOWN
            or "<script" in text
            or "the next cell\n" not in after
            or watch.slowest_seconds > LONGEST_SECONDS
            or watch.grown_bytes > MOST_GROWN
        ):
            wrong[cases] = (result["code"], text[:200], after[:200], vars(watch))
        if "restarted" in after:
            await api.text(hostile, "python", code=FORGE)
    assert wrong == {}


@attack("T02", "T18", "T19")
async def test_a_kernel_that_breaks_its_stream_is_ended_and_the_next_one_works(api):
    hostile, neighbour = await api.conversation(), await api.conversation()
    await api.bash(neighbour, "true")
    wrong = {}
    for case, code in BELOW.items():
        await api.text(hostile, "python", code=TAKE_OVER)
        async with Watch() as watch:
            result = await api.call(
                hostile, "python", code=f"serve({code})\ntime.sleep(60)", timeout_seconds=30
            )
            assert "hello" in await api.bash(neighbour, "echo hello")
        after = await api.text(hostile, "python", code="print('the next kernel')")
        if (
            result["code"] != "kernel_died"
            or "cut off" not in text_of(result)
            or "the next kernel\n" not in after
            or watch.slowest_seconds > LONGEST_SECONDS
            or watch.grown_bytes > MOST_GROWN
        ):
            wrong[case] = (result["code"], text_of(result)[:200], after[:200], vars(watch))
    assert wrong == {}
