"""Whether the time of a function is linear in its input, and hostile inputs of regular expressions.

``super_linear`` screens a function of a text with short inputs and confirms a suspicion with longer
ones, by processor time, so that a busy machine makes no difference. A run that takes too long is
ended by a signal, which Python's regular expressions heed.
"""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from re import _constants as sre  # type: ignore[attr-defined]
from re import _parser as sre_parse  # type: ignore[attr-defined]
from types import FrameType, ModuleType
from typing import Any

import sandbox_guest
import sandbox_python

import jupyter_sandbox

PACKAGES = (jupyter_sandbox, sandbox_guest, sandbox_python)
_BY_ALEMBIC = "jupyter_sandbox.stores.migrations.env"  # runs when it is imported
METHODS = ("match", "fullmatch", "search", "sub", "subn", "split", "findall", "finditer")

SCREENED = 4_000
"""Characters of the first look."""
_SUSPICIOUS_SECONDS = 0.003
_CONFIRMED = (8_000, 32_000)
_MOST_SECONDS = 0.3
_HIGHEST_GROWTH = 1.5
"""Twice the input may take so many powers of two of the time: 1 is linear, 2 is quadratic."""

Run = Callable[[str], object]


class _TooLongError(BaseException):
    """A run that was ended; no ``except Exception`` of the product takes it."""


@dataclass(frozen=True)
class Use:
    """A regular expression of the product, and how it is applied."""

    where: str
    pattern: re.Pattern[Any]
    method: str

    def run(self, text: str) -> None:
        data: Any = text.encode("utf-8", "surrogatepass") if self.is_bytes else text
        if self.method in ("sub", "subn"):
            getattr(self.pattern, self.method)(b"" if self.is_bytes else "", data)
        elif self.method == "finditer":
            for _ in self.pattern.finditer(data):
                pass
        else:
            getattr(self.pattern, self.method)(data)

    @property
    def is_bytes(self) -> bool:
        return isinstance(self.pattern.pattern, bytes)


def seconds_of(run: Run, text: str, most: float = _MOST_SECONDS) -> float:
    """Give the processor time of a run; ``most`` when it had to be ended."""

    def end(_number: int, _frame: FrameType | None) -> None:
        raise _TooLongError

    before = signal.signal(signal.SIGVTALRM, end)
    started = time.process_time()
    try:
        signal.setitimer(signal.ITIMER_VIRTUAL, most)
        with suppress(_TooLongError):
            run(text)
            return time.process_time() - started
        return most
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def grows_too_fast(
    run: Run, make: Callable[[int], str], suspicious_seconds: float = _SUSPICIOUS_SECONDS
) -> bool:
    """Say whether a run takes more than linear time in ``make(characters)``."""
    if seconds_of(run, make(SCREENED)) < suspicious_seconds:
        return False
    short, long = (seconds_of(run, make(size)) for size in _CONFIRMED)
    if long >= _MOST_SECONDS:
        return True
    growth = _CONFIRMED[1] / _CONFIRMED[0]
    return long > 0.05 and long / max(short, 0.001) > growth**_HIGHEST_GROWTH


def makers(pieces: list[str]) -> Iterator[tuple[str, Callable[[int], str]]]:
    """Give hostile inputs of any length: pieces again and again, behind others, with no end."""
    for piece in pieces:
        for end in ("", "\0", "\n!"):
            yield f"{piece!r} * n + {end!r}", _maker("", piece, end)
    for first in pieces:
        for second in pieces:
            if first != second:
                yield f"{first!r} + {second!r} * n", _maker(first, second, "\0")
                yield f"({first!r} + {second!r}) * n", _maker("", first + second, "\0")


def _maker(start: str, piece: str, end: str) -> Callable[[int], str]:
    return lambda size: start + piece * max(1, size // len(piece)) + end


def super_linear(run: Run, pieces: list[str]) -> str:
    """Give an input that takes more than linear time; "" for none."""
    for name, make in makers([piece for piece in pieces if piece]):
        if grows_too_fast(run, make):
            return name
    return ""


# Pieces of what a pattern can match


def pieces_of(pattern: re.Pattern[Any], most: int = 24) -> list[str]:
    """Give texts that parts of a pattern match: what can repeat, what leads to it, single items."""
    source = pattern.pattern
    if isinstance(source, bytes):
        source = source.decode("latin-1")
    sequences = list(_sequences(sre_parse.parse(source, pattern.flags)))
    whole = [_variants(items) for items in sequences]
    begun = [
        ["".join(_samples(item)[0] for item in items[:count]) for count in range(1, len(items))]
        for items in sequences
    ]
    items = [[each for item in items for each in _samples(item)] for items in sequences]
    # One of each in turn, so that a long list leaves out nothing of the others.
    turns = (
        piece for group in (whole, begun, items) for row in zip_longest(*group) for piece in row
    )
    found = dict.fromkeys(piece for piece in turns if piece and len(piece) < 400)
    return list(found)[:most]


def _merged(tree: Any) -> list[Any]:
    """Give the items of a sequence; letters that follow each other are one."""
    items: list[Any] = []
    for item in tree:
        if item[0] is sre.LITERAL and items and items[-1][0] is sre.LITERAL:
            items[-1] = (sre.LITERAL, items[-1][1] + chr(item[1]))
        else:
            items.append((sre.LITERAL, chr(item[1])) if item[0] is sre.LITERAL else item)
    return items


def _sequences(tree: Any) -> Iterator[list[Any]]:
    """Give each sequence of items in a pattern, those of groups and repeats too."""
    items = _merged(tree)
    yield items
    for operation, argument in items:
        if operation in (sre.MAX_REPEAT, sre.MIN_REPEAT, sre.POSSESSIVE_REPEAT):
            yield from _sequences(argument[2])
        elif operation is sre.SUBPATTERN:
            yield from _sequences(argument[-1])
        elif operation is sre.BRANCH:
            for branch in argument[1]:
                yield from _sequences(branch)
        elif operation is sre.ATOMIC_GROUP:
            yield from _sequences(argument)


def _variants(items: list[Any]) -> list[str]:
    """Give texts that a sequence matches: the shortest, and those with another choice of one item."""
    samples = [_samples(item) for item in items]
    found = ["".join(each[0] for each in samples)]
    for at, each in enumerate(samples):
        for other in each[1:]:
            before = "".join(s[0] for s in samples[:at])
            found.append(before + other + "".join(s[0] for s in samples[at + 1 :]))
    return found


def _samples(item: Any) -> list[str]:
    """Give short texts that an item matches, at least one; the first is the shortest."""
    operation, argument = item
    if operation is sre.LITERAL:
        return [argument if isinstance(argument, str) else chr(argument)]
    if operation is sre.NOT_LITERAL:
        return [_other_than({argument})]
    if operation is sre.ANY:
        return ["a"]
    if operation is sre.IN:
        return [_member(argument)]
    if operation in (sre.MAX_REPEAT, sre.MIN_REPEAT, sre.POSSESSIVE_REPEAT):
        low, high, inner = argument
        inside = _variants(_merged(inner))
        count = min(low, 300)
        more = [each * (count + 1) for each in inside] if high > low else []
        return [inside[0] * count, *more]
    if operation is sre.SUBPATTERN:
        return _variants(_merged(argument[-1]))
    if operation is sre.ATOMIC_GROUP:
        return _variants(_merged(argument))
    if operation is sre.BRANCH:
        return [each for branch in argument[1] for each in _variants(_merged(branch))]
    return [""]  # an anchor, a look to either side


_CATEGORIES = {
    sre.CATEGORY_DIGIT: "1",
    sre.CATEGORY_SPACE: " ",
    sre.CATEGORY_WORD: "a",
    sre.CATEGORY_NOT_DIGIT: "a",
    sre.CATEGORY_NOT_SPACE: "a",
    sre.CATEGORY_NOT_WORD: "-",
}


def _member(members: list[Any]) -> str:
    """Give a character of a set."""
    if members[0][0] is sre.NEGATE:
        taken: set[int] = set()
        for operation, argument in members[1:]:
            if operation is sre.LITERAL:
                taken.add(argument)
            elif operation is sre.RANGE:
                taken.update(range(argument[0], argument[1] + 1))
            elif operation is sre.CATEGORY:
                taken.update(ord(c) for c in " \t\n" if argument is sre.CATEGORY_SPACE)
        return _other_than(taken)
    operation, argument = members[0]
    if operation is sre.LITERAL:
        return chr(argument)
    if operation is sre.RANGE:
        return chr(argument[0])
    return _CATEGORIES[argument]


def _other_than(taken: set[int]) -> str:
    return next(c for c in "a1-. \0\xe9\u20ac" if ord(c) not in taken)


# What the product has


def modules() -> Iterator[ModuleType]:
    """Import and give every module of the product, but for the one that only Alembic can run."""
    for package in PACKAGES:
        yield package
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if found.name != _BY_ALEMBIC:
                yield importlib.import_module(found.name)


def uses() -> list[Use]:
    """Give each regular expression of the product with each way it is applied.

    Raises
    ------
    AssertionError
        One is made of what cannot be known here: where, is said.
    """
    found: dict[tuple[str, str], Use] = {}
    for module in modules():
        if not module.__file__:
            continue
        tree = ast.parse(Path(module.__file__).read_text(encoding="utf-8"))
        applied = _applied(tree)
        named = {id(p): name for name, p in _patterns(module)}
        for name, pattern in _patterns(module):
            if named[id(pattern)] == name:
                last = name.rpartition(".")[2]
                for method in sorted(applied.get(last, {"search"})):
                    where = f"{module.__name__}.{name}"
                    found[where, method] = Use(where, pattern, method)
        for call in _calls_of_re(tree):
            pattern = _pattern_of(call, module)
            if pattern is None or call.func.attr == "compile":  # found by its name, above
                continue
            where = f"{module.__name__}:{call.lineno}"
            found[where, call.func.attr] = Use(where, pattern, call.func.attr)
    return list(found.values())


def unknown_patterns() -> list[str]:
    """Give the calls of ``re`` whose pattern is neither literal nor at the top of a module."""
    found = []
    for module in modules():
        if not module.__file__:
            continue
        tree = ast.parse(Path(module.__file__).read_text(encoding="utf-8"))
        at_top = {pattern.pattern for _, pattern in _patterns(module)}
        for call in _calls_of_re(tree):
            pattern = _pattern_of(call, module)
            known = pattern is not None and (
                call.func.attr != "compile" or pattern.pattern in at_top
            )
            if not known:
                found.append(f"{module.__name__}: {ast.unparse(call)}")
    return sorted(found)


def _patterns(module: ModuleType) -> Iterator[tuple[str, re.Pattern[Any]]]:
    """Give the compiled patterns of a module and its classes, by name."""
    for name, value in vars(module).items():
        if isinstance(value, type) and value.__module__ == module.__name__:
            for inner, member in vars(value).items():
                if isinstance(member, re.Pattern):
                    yield f"{name}.{inner}", member
        for each in _inside(value):
            yield name, each


def _inside(value: object) -> Iterator[re.Pattern[Any]]:
    if isinstance(value, re.Pattern):
        yield value
    elif isinstance(value, (tuple, list, set, frozenset)):
        for each in value:
            yield from _inside(each)
    elif isinstance(value, dict):
        for each in (*value.keys(), *value.values()):
            yield from _inside(each)


def _calls_of_re(tree: ast.AST) -> Iterator[Any]:
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and isinstance(node.func.value, ast.Name)
            and node.func.value.id == "re"
            and node.func.attr in (*METHODS, "compile")
        ):
            yield node


def _pattern_of(call: ast.Call, module: ModuleType) -> re.Pattern[Any] | None:
    """Give the pattern of a call that is made of literals and names of its module."""
    flags = [word.value for word in call.keywords if word.arg == "flags"]
    place = {"compile": 1, "match": 2, "fullmatch": 2, "search": 2, "findall": 2, "finditer": 2}
    at = place.get(call.func.attr, 9)  # type: ignore[attr-defined]
    flags += call.args[at : at + 1]
    try:
        values = [
            eval(compile(ast.Expression(each), "pattern", "eval"), dict(vars(module)))
            for each in (call.args[0], *flags)
        ]
    except NameError:
        return None
    return re.compile(values[0], *values[1:]) if isinstance(values[0], str | bytes) else None


def _applied(tree: ast.AST) -> dict[str, set[str]]:
    """Give for each name the methods of a pattern that are called on it."""
    found: dict[str, set[str]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in METHODS:
            owner = node.value
            name = owner.id if isinstance(owner, ast.Name) else getattr(owner, "attr", "")
            found.setdefault(name, set()).add(node.attr)
    return found


# Hostile inputs of parsers, made of what they accept

_TOKEN = re.compile(r"\w+|[^\w\s]", re.ASCII)
_HOSTILE_WORDS = ("[", "\\r", "\\u001b[", "<b>", "`", "a ", "\\n\\n")


def inputs_of(seeds: list[str]) -> Iterator[tuple[str, Callable[[int], str]]]:
    """Give inputs of any length: a seed with one of its parts again and again, in its place."""
    for seed in seeds:
        yield f"{seed!r} * n", _maker("", seed, "")
        for found in _TOKEN.finditer(seed):
            before, token, after = seed[: found.start()], found[0], seed[found.end() :]
            pieces = [token, f"{token},"]
            if token.isalpha():
                pieces += _HOSTILE_WORDS
            for piece in pieces:
                yield (
                    f"{before!r} + {piece!r} * n + {after!r}",
                    _around(before, piece, token + after),
                )


def _around(before: str, piece: str, after: str) -> Callable[[int], str]:
    return lambda size: before + piece * (size // len(piece)) + after
