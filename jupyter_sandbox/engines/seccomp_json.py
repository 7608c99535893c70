"""The list of system calls as Docker and Podman want it. Pure: looks at nothing.

Source: https://docs.docker.com/engine/security/seccomp/. Names that a service's libseccomp does not
know are passed over by it, and so refused. No architecture is named: the machine's own holds.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..models import JsonValue
from .seccomp_rules import (
    ABSENT,
    ABSENT_ERRNO,
    ALLOWED,
    CONDITIONAL,
    UNSUPPORTED_ERRNO,
    AllBut,
    AnyOf,
    Condition,
    DoneNothing,
)

_BITS = 32


@functools.cache
def profile_text(unsupported: frozenset[str] = frozenset()) -> str:
    """Give the profile as the text that stands after ``seccomp=`` in a security option."""
    return json.dumps(profile(unsupported), separators=(",", ":"))


PROFILE_FILE = Path(__file__).with_name("seccomp.json")
"""The profile of a watched disk as a file, for services that read one (Podman, whose disks are all
watched): a test holds the two together."""


def profile(unsupported: frozenset[str] = frozenset()) -> dict[str, JsonValue]:
    """Give the profile as data; calls that are ``unsupported`` say so."""
    rules: list[JsonValue] = [
        {"names": [*sorted(ALLOWED - unsupported)], "action": "SCMP_ACT_ALLOW"},
        {"names": [*sorted(ABSENT)], "action": "SCMP_ACT_ERRNO", "errnoRet": ABSENT_ERRNO},
    ]
    if unsupported:
        names: list[JsonValue] = [*sorted(unsupported)]
        rules.append({"names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": UNSUPPORTED_ERRNO})
    for name, rule in CONDITIONAL.items():
        if isinstance(rule, DoneNothing):
            args = _arguments(rule.conditions)
            rules.append({"names": [name], "action": "SCMP_ACT_ERRNO", "errnoRet": 0, "args": args})
        for conditions in _alternatives(rule):
            args = _arguments(conditions)
            rules.append({"names": [name], "action": "SCMP_ACT_ALLOW", "args": args})
    return {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": rules}


def _alternatives(rule: AnyOf | AllBut | DoneNothing) -> Iterator[tuple[Condition, ...]]:
    """Give what allows a call: all conditions of one alternative."""
    if isinstance(rule, AnyOf):
        yield from rule.alternatives
    elif isinstance(rule, AllBut):
        yield from ((each,) for each in complement(rule))
    else:  # those before hold, and this one does not
        for number, condition in enumerate(rule.conditions):
            for each in complement(AllBut(condition.argument, (condition.value,))):
                yield (*rule.conditions[:number], each)


def complement(rule: AllBut) -> Iterator[Condition]:
    """Give conditions of which one holds for each 32-bit number that is none of the values.

    libseccomp can say "is", under a mask, but not "is not" under one. So this walks the values'
    bits from the highest: where none of them goes on with a bit, all numbers that do are allowed.
    """
    pending = [(0, 0, frozenset(rule.values))]  # bits that are fixed, their values, who has them
    while pending:
        depth, prefix, values = pending.pop()
        if depth == _BITS:
            continue
        bit = 1 << (_BITS - 1 - depth)
        mask = (((1 << (depth + 1)) - 1) << (_BITS - 1 - depth)) & ((1 << _BITS) - 1)
        for branch in (prefix, prefix | bit):
            inside = frozenset(value for value in values if value & mask == branch)
            if inside:
                pending.append((depth + 1, branch, inside))
            else:
                yield Condition(rule.argument, branch, mask)


def _arguments(conditions: Sequence[Condition]) -> list[JsonValue]:
    return [_argument(condition) for condition in conditions]


def _argument(condition: Condition) -> dict[str, JsonValue]:
    return {
        "index": condition.argument,
        "value": condition.mask,
        "valueTwo": condition.value,
        "op": "SCMP_CMP_MASKED_EQ",
    }
