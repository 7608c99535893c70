"""The list of system calls as a program for the kernel (classic BPF). Pure but for one data file.

The number of a call is looked up by bisection over ranges of numbers: eight comparisons, where a
chain would need hundreds on kernels before 5.11. A call of another architecture ends its process; a
number above all that the list's data knows is answered as unknown. No library: libseccomp has no
binding on PyPI that brings the library along.
Sources: https://docs.kernel.org/userspace-api/seccomp_filter.html, linux/filter.h, linux/audit.h;
the numbers in syscall_numbers.json are those of Linux 6.13.
"""

from __future__ import annotations

import functools
import json
import struct
from collections.abc import Sequence
from importlib.resources import files

from .seccomp_rules import (
    ABSENT,
    ABSENT_ERRNO,
    ALLOWED,
    CONDITIONAL,
    LOW_WORD,
    REFUSED_ERRNO,
    UNSUPPORTED_ERRNO,
    AllBut,
    AnyOf,
    Condition,
    DoneNothing,
)

# Of linux/audit.h; both little-endian with 64 bits.
ARCHITECTURES = {"x86_64": 0xC000_003E, "aarch64": 0xC000_00B7}

_NUMBER_AT, _ARCHITECTURE_AT, _ARGUMENTS_AT = 0, 4, 16  # struct seccomp_data
_LOAD, _AND, _RETURN = 0x20, 0x54, 0x06  # LD|W|ABS, ALU|AND|K, RET|K
_JUMP, _JUMP_EQUAL, _JUMP_AT_LEAST = 0x05, 0x15, 0x35  # JMP|JA, JMP|JEQ|K, JMP|JGE|K
_FAR = 255  # a conditional jump goes no further
_KILL_PROCESS, _ERRNO, _ALLOW = 0x8000_0000, 0x0005_0000, 0x7FFF_0000

_Instruction = tuple[int, int, int, int]  # code, jump if true, jump if false, constant
_Code = list[_Instruction]


@functools.cache
def program(machine: str, unsupported: frozenset[str] = frozenset()) -> bytes:
    """Give the program for ``os.uname().machine``, as bubblewrap reads it from a descriptor.

    Calls that are ``unsupported`` say so.

    Raises
    ------
    KeyError
        There is no table of numbers for this machine.
    """
    code = [
        _load(_ARCHITECTURE_AT),
        (_JUMP_EQUAL, 1, 0, ARCHITECTURES[machine]),
        _return(_KILL_PROCESS),
        _load(_NUMBER_AT),
        *_bisect(_ranges(numbers()[machine], unsupported)),
    ]
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in code)


@functools.cache
def numbers() -> dict[str, dict[str, int]]:
    """Give the number of each system call, by machine and name."""
    text = files(__package__).joinpath("syscall_numbers.json").read_text()
    table: dict[str, dict[str, int]] = json.loads(text)
    return table


def _ranges(table: dict[str, int], unsupported: frozenset[str]) -> list[tuple[int, _Code]]:
    """Give (first number, what to do from there on), in order, neighbours being different."""
    by_number = {
        number: [_return(_ERRNO | UNSUPPORTED_ERRNO)] if name in unsupported else _decide(name)
        for name, number in table.items()
    }
    last = max(by_number)
    found: list[tuple[int, _Code]] = []
    for number in range(last + 1):
        code = by_number.get(number, [_return(_ERRNO | REFUSED_ERRNO)])
        if not found or found[-1][1] != code:
            found.append((number, code))
    # Newer than our data, or x86's second convention (x32, from 2**30 on).
    return [*found, (last + 1, [_return(_ERRNO | ABSENT_ERRNO)])]


def _decide(name: str) -> _Code:
    if name in ALLOWED:
        return [_return(_ALLOW)]
    if name in ABSENT:
        return [_return(_ERRNO | ABSENT_ERRNO)]
    rule = CONDITIONAL.get(name)
    if isinstance(rule, AnyOf):
        return _any_of(rule)
    if isinstance(rule, AllBut):
        return _all_but(rule)
    if isinstance(rule, DoneNothing):
        return [*_if_all(rule.conditions, _ERRNO), _return(_ALLOW)]  # errno 0: success
    return [_return(_ERRNO | REFUSED_ERRNO)]


def _any_of(rule: AnyOf) -> _Code:
    code: _Code = []
    for conditions in rule.alternatives:
        code += _if_all(conditions, _ALLOW)
    return [*code, _return(_ERRNO | REFUSED_ERRNO)]


def _if_all(conditions: Sequence[Condition], action: int) -> _Code:
    """Give what answers if all conditions hold; else it goes on behind."""
    code = [_return(action)]
    for condition in reversed(conditions):  # one that fails jumps behind
        jump = (_JUMP_EQUAL, 0, len(code), condition.value)
        code = [*_test(condition), jump, *code]
    return code


def _test(condition: Condition) -> _Code:
    load = _load(_ARGUMENTS_AT + 8 * condition.argument)
    return [load] if condition.mask == LOW_WORD else [load, (_AND, 0, 0, condition.mask)]


def _all_but(rule: AllBut) -> _Code:
    code = [_load(_ARGUMENTS_AT + 8 * rule.argument)]
    for left, value in zip(reversed(range(len(rule.values))), rule.values, strict=True):
        code.append((_JUMP_EQUAL, left + 1, 0, value))
    return [*code, _return(_ALLOW), _return(_ERRNO | REFUSED_ERRNO)]


def _bisect(ranges: Sequence[tuple[int, _Code]]) -> _Code:
    if len(ranges) == 1:
        return ranges[0][1]
    middle = len(ranges) // 2
    below, above = _bisect(ranges[:middle]), _bisect(ranges[middle:])
    first = ranges[middle][0]
    if len(below) <= _FAR:
        return [(_JUMP_AT_LEAST, len(below), 0, first), *below, *above]
    return [(_JUMP_AT_LEAST, 0, 1, first), (_JUMP, 0, 0, len(below)), *below, *above]


def _load(offset: int) -> _Instruction:
    return (_LOAD, 0, 0, offset)


def _return(action: int) -> _Instruction:
    return (_RETURN, 0, 0, action)
