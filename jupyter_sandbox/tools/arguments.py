"""Arguments of tools: dataclasses, the JSON Schema they stand for, and the check of a call's body.

A field is made with ``text``, ``number``, ``switch``, ``texts`` or ``line_range``; the order of the
fields is the order that models should write them in (description, path, content: an interface can
then draw the card early). The rule: what is wrong is said precisely and all at once, before
anything is done; the schema never promises more than ``parse`` accepts, nor less.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from ..errors import ToolError
from ..models import JsonValue, Limits

A = TypeVar("A")

_RULE = "rule"
_MOST_PROBLEMS = 5
_MOST_GUESSED = 100  # characters of a name that is unknown; a request may have millions
MAX_PATH_BYTES = 4095  # PATH_MAX without its NUL; source: linux/limits.h

LimitName = Literal["command_seconds", "write_bytes", "share_files"]
"""A bound that an administrator sets: a name in ``Limits``."""


@dataclass(frozen=True)
class _Rule:
    kind: Literal["string", "number", "boolean", "strings", "range"]
    description: str
    required: bool
    minimum: float | None = None
    maximum: LimitName | None = None
    max_bytes: LimitName | int | None = None
    nul: bool = True
    instead: str = ""


def text(
    description: str,
    *,
    required: bool = True,
    default: str = "",
    max_bytes: LimitName | int | None = None,
    nul: bool = True,
    instead: str = "",
) -> Any:
    """Make a field for a string.

    Parameters
    ----------
    max_bytes : int or name in Limits, optional
        Bound of its UTF-8; ``instead`` says what to do if it is longer.
    nul : bool
        Whether it may have NUL characters.
    """
    rule = _Rule("string", description, required, max_bytes=max_bytes, nul=nul, instead=instead)
    return _field(rule, default)


def path(description: str) -> Any:
    """Make a field for a path."""
    return text(description, max_bytes=MAX_PATH_BYTES, nul=False)


def why() -> Any:
    """Make the field that every tool begins with."""
    told = "Why this call is made, in a few words; the user sees it."
    return text(told, required=False)


def number(description: str, *, minimum: float, maximum: LimitName, instead: str = "") -> Any:
    """Make a field for an optional number; None if it is left out."""
    rule = _Rule("number", description, False, minimum=minimum, maximum=maximum, instead=instead)
    return _field(rule, None)


def switch(description: str) -> Any:
    """Make a field for an optional true or false; false if it is left out."""
    return _field(_Rule("boolean", description, False), False)


def paths(description: str, *, maximum: LimitName) -> Any:
    """Make a field for a list of at least one path."""
    rule = _Rule("strings", description, True, maximum=maximum, max_bytes=MAX_PATH_BYTES, nul=False)
    return _field(rule, ())


def line_range(description: str) -> Any:
    """Make a field for an optional pair of line numbers; None if it is left out."""
    return _field(_Rule("range", description, False), None)


def schema_of(arguments: type[object], limits: Limits | None = None) -> dict[str, JsonValue]:
    """Give the JSON Schema of an arguments class."""
    limits = limits or Limits()
    rules = _rules(arguments)
    required: list[JsonValue] = [name for name, rule in rules.items() if rule.required]
    return {
        "type": "object",
        "properties": {name: _schema(rule, limits) for name, rule in rules.items()},
        "required": required,
        "additionalProperties": False,
    }


def parse(arguments: type[A], body: object, limits: Limits | None = None) -> A:
    """Give an instance made from the JSON body of a call.

    Raises
    ------
    ToolError
        ``invalid_arguments``: says what is wrong with each.
    """
    limits = limits or Limits()
    rules = _rules(arguments)
    if not isinstance(body, Mapping):
        raise _invalid([f"the arguments must be an object, not {_kind_of(body)}"], rules)
    unknown = [str(name) for name in body if name not in rules]
    # A guess at what is meant takes time: only for those that are told.
    problems = [_unknown(name, rules, body) for name in unknown[:_MOST_PROBLEMS]]
    problems += unknown[_MOST_PROBLEMS:]
    values: dict[str, object] = {}
    for name, rule in rules.items():
        value = body.get(name)
        if value is None and not rule.required:
            continue  # null is as good as absent
        if name not in body:
            problems.append(f"the argument `{name}` is missing")
            continue
        try:
            values[name] = _check(name, value, rule, limits)
        except ValueError as exc:
            problems.append(str(exc))
    if problems:
        raise _invalid(problems, rules)
    return arguments(**values)


def _field(rule: _Rule, default: object) -> Any:
    if rule.required:
        return dataclasses.field(metadata={_RULE: rule})
    return dataclasses.field(default=default, metadata={_RULE: rule})


def _rules(arguments: type[object]) -> dict[str, _Rule]:
    return {f.name: f.metadata[_RULE] for f in dataclasses.fields(arguments)}  # type: ignore[arg-type]


def _schema(rule: _Rule, limits: Limits) -> dict[str, JsonValue]:
    bound = None if rule.maximum is None else getattr(limits, rule.maximum)
    shape: dict[str, JsonValue]
    if rule.kind == "number":
        shape = {"type": "number", "minimum": rule.minimum, "maximum": bound}
    elif rule.kind == "strings":
        shape = {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": bound}
    elif rule.kind == "range":
        shape = {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 2}
    else:
        shape = {"type": rule.kind}
    return {**shape, "description": rule.description}


def _check(name: str, value: object, rule: _Rule, limits: Limits) -> object:
    """Give the value for the field; ``ValueError`` says what is wrong."""
    if rule.kind == "string":
        return _check_text(f"`{name}`", value, rule, limits)
    if rule.kind == "boolean":
        if not isinstance(value, bool):
            raise ValueError(f"`{name}` must be true or false, not {_kind_of(value)}")
        return value
    if rule.kind == "number":
        return _check_number(name, value, rule, limits)
    if rule.kind == "range":
        whole = [_whole(item) for item in value] if isinstance(value, list) else []
        if len(whole) != 2 or None in whole:
            raise ValueError(
                f"`{name}` must be two whole numbers [first, last], not {_shown(value)}"
            )
        return tuple(whole)
    if not isinstance(value, list):
        raise ValueError(f"`{name}` must be an array of strings, not {_kind_of(value)}")
    most = getattr(limits, rule.maximum) if rule.maximum else len(value)
    if not 1 <= len(value) <= most:
        raise ValueError(f"`{name}` must have 1 to {most} items, not {len(value)}")
    return tuple(
        _check_text(f"`{name}[{at}]`", item, rule, limits) for at, item in enumerate(value)
    )


def _check_text(shown: str, value: object, rule: _Rule, limits: Limits) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{shown} must be a string, not {_kind_of(value)}")
    try:
        size = len(value.encode("utf-8"))
    except UnicodeEncodeError as exc:
        code = ord(value[exc.start])
        raise ValueError(
            f"{shown} is not valid Unicode: a lone surrogate (U+{code:04X}) at character "
            f"{exc.start + 1}"
        ) from None
    if not rule.nul and "\0" in value:
        raise ValueError(f"{shown} has a NUL character at character {value.index(chr(0)) + 1}")
    if rule.max_bytes is not None:
        most = rule.max_bytes
        bound = most if isinstance(most, int) else int(getattr(limits, most))
        if size > bound:
            instead = f": {rule.instead}" if rule.instead else ""
            raise ValueError(f"{shown} has {size:,} bytes; at most {bound:,} are taken{instead}")
    return value


def _check_number(name: str, value: object, rule: _Rule, limits: Limits) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise ValueError(f"`{name}` must be a number, not {_shown(value)}")
    if rule.minimum is not None and value < rule.minimum:
        raise ValueError(f"`{name}` must be at least {rule.minimum:g}, not {value:g}")
    most = getattr(limits, rule.maximum) if rule.maximum else value
    if value > most:
        instead = f": {rule.instead}" if rule.instead else ""
        raise ValueError(f"`{name}` must be at most {most:g}, not {value:g}{instead}")
    return float(value)


def _whole(value: object) -> int | None:
    """Give a whole number, also one that JSON wrote as 5.0."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if isinstance(value, float) and not value.is_integer():  # also NaN and the infinities
        return None
    return int(value) if abs(value) < 2**53 else None


def _unknown(name: str, rules: Mapping[str, _Rule], body: Mapping[str, object]) -> str:
    absent = [known for known in rules if known not in body]
    near = difflib.get_close_matches(name[:_MOST_GUESSED], absent, n=1, cutoff=0.5)
    hint = f"; did you mean `{near[0]}`?" if near else ""
    return f"there is no argument `{_clipped(name)}`{hint}"


def _invalid(problems: list[str], rules: Mapping[str, _Rule]) -> ToolError:
    more = len(problems) - _MOST_PROBLEMS
    told = problems[:_MOST_PROBLEMS] + ([f"and {more} more"] if more > 0 else [])
    words = {"strings": "array of strings", "range": "[first, last]"}
    takes = ", ".join(
        f"{name} ({words.get(rule.kind, rule.kind)}{', required' if rule.required else ''})"
        for name, rule in rules.items()
    )
    listed = "\n".join(f"- {problem}" for problem in told)
    return ToolError(
        f"Nothing was done, the arguments are not valid:\n{listed}\n"
        f"The tool takes: {takes}. Correct the arguments and call again.",
        code="invalid_arguments",
    )


def _kind_of(value: object) -> str:
    """Give JSON's word for a value."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "a string"
    return "an array" if isinstance(value, list) else "an object"


def _shown(value: object) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, list) and len(value) <= 4 and all(_whole(v) is not None for v in value):
        return str(value)
    return _kind_of(value)


def _clipped(name: str) -> str:
    plain = "".join(c if c.isprintable() else "\ufffd" for c in name[:60])
    return plain + ("…" if len(name) > 60 else "")
