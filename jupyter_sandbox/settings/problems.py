"""What is wrong with the settings that a server was given, and in which file and line.

Jupyter only logs an unknown setting, a configuration file that cannot be read and an extension that
refuses its settings, and goes on with defaults: with another engine, an open network or without the
policy file. Here all of that is found, so that the extension can refuse to work. The rule: what
could have been meant for us and has no effect is a problem; what is somebody else's is not.

It reads files and changes nothing.
"""

from __future__ import annotations

import contextlib
import difflib
import json
import math
import os
import re
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from traitlets import Container, Dict
from traitlets.config import Configurable
from traitlets.config.loader import (
    Config,
    DeferredConfig,
    JSONFileConfigLoader,
    LazyConfigValue,
    PyFileConfigLoader,
)

_LOADERS = {".py": PyFileConfigLoader, ".json": JSONFileConfigLoader}
_CLOSE = 0.8  # of difflib: "SandobxApp" is 0.9, "SandboxLimts" 0.96, "NotebookApp" 0.57
_PREFIX = "sandbox"


def find_wrong_names(
    config: Config, classes: Sequence[type[Configurable]]
) -> Iterator[tuple[str, str]]:
    """Give each section and each name of a section that is no setting of ours, with the reason.

    Parameters
    ----------
    config : Config
        All that was read, of files and of the command line.
    classes : sequence of Configurable classes
        All of ours.
    """
    ours = {each.__name__: each for each in classes}
    others = _other_classes(classes)
    bases = {base.__name__ for each in classes for base in each.__mro__ if _is_our_package(base)}
    owners = {name: each for each in classes for name in each.class_own_traits(config=True)}
    for section, values in config.items():
        if section not in ours:
            if section in owners:  # as `--engine=docker`
                yield section, f"has no effect; did you mean {owners[section].__name__}.{section}?"
            elif section in bases:
                yield section, "no class of settings: set it on each class of its own"
            elif section not in others and (meant := _meant(section, ours)):
                yield section, f"there is no such class of settings; did you mean {meant}?"
            elif isinstance(values, Config):
                for nested in values:
                    if nested in ours or (nested not in others and _meant(nested, ours)):
                        yield (
                            f"{section}.{nested}",
                            f"has no effect there: write c.{_meant(nested, ours)}.NAME = VALUE",
                        )
            continue
        names = ours[section].class_trait_names(config=True)
        for name, value in values.items():
            if name in names:
                continue
            if isinstance(value, Config):
                yield f"{section}.{name}", "no class of settings stands in another: write c.CLASS"
            else:
                close = difflib.get_close_matches(name, names, 1)
                hint = f"; did you mean {section}.{close[0]}?" if close else ""
                yield f"{section}.{name}", f"there is no such setting{hint}"


def find_wrong_values(cls: type[Configurable], section: Mapping[str, Any]) -> dict[str, str]:
    """Give the settings of a class whose value is refused, each with the reason."""
    found: dict[str, str] = {}
    traits = cls.class_traits(config=True)
    for name, value in section.items():
        if name in traits:
            reason = why_wrong(traits[name], value)
            if not reason:
                reason = _refusal(cls, Config({cls.__name__: {name: value}}))
            if reason:
                found[name] = reason
    known = {name: value for name, value in section.items() if name in traits}
    if not found and (reason := _refusal(cls, Config({cls.__name__: known}))):
        found[""] = reason
    return found


def why_wrong(trait: Any, value: object) -> str:
    """Say why a value is no value for any trait of this kind; "" when the trait itself decides."""
    if isinstance(value, LazyConfigValue):
        if not isinstance(trait, (Container, Dict)) or not value.to_dict():
            return "is named, but given no value: write `= VALUE`"
        return ""
    if isinstance(value, DeferredConfig):  # of the command line: a text, or several
        with contextlib.suppress(ValueError):  # one that is given twice; loading it says so
            value = value.get_value(trait)
    if isinstance(value, float) and not math.isfinite(value):
        return f"must be a number that is finite, not {value}"
    return ""


def find_unread_files(
    names: Sequence[str],
    directories: Iterable[str],
    loaded: Collection[str],
    *,
    only_of: Sequence[type[Configurable]] = (),
) -> list[str]:
    """Give what is wrong with configuration files of which nothing was read.

    Parameters
    ----------
    names : sequence of str
        Without ending, such as ``jupyter_server_config``.
    directories : iterable of str
        Where Jupyter looks for them.
    loaded : collection of str
        Those that were read and have settings; they are not read again.
    only_of : sequence of Configurable classes
        If any: only what names one of them is looked at.
    """
    found = []
    named = re.compile("|".join(each.__name__ for each in only_of))
    for directory in dict.fromkeys(directories):
        for name in names:
            for ending in _LOADERS:
                path = Path(directory, name + ending)
                if str(path) in loaded or (only_of and not named.search(_text(path))):
                    continue
                if problem := _why_unread(path):
                    found.append(problem)
    return found


def find_misplaced(
    name: str, directories: Iterable[str], classes: Sequence[type[Configurable]]
) -> Iterator[str]:
    """Give settings of ours in ``{name}.d/*.json``, of which Jupyter reads the extensions only."""
    ours = {each.__name__ for each in classes}
    for directory in dict.fromkeys(directories):
        for path in sorted(Path(directory, f"{name}.d").glob("*.json")):
            try:
                document = json.loads(path.read_text(encoding="utf-8"))
            except (OSError, ValueError):
                continue  # Jupyter says so; what it lists is not enabled
            for section in document if isinstance(document, dict) else ():
                if section in ours:
                    yield (
                        f"{path}: {section}: settings in this directory have no effect; write "
                        f"them into {Path(directory, name)}.json"
                    )


def place_of(setting: str, files: Sequence[str], command_line: Config) -> str:
    """Give where a setting was made: ``file:line``, the command line, or "" when that is unknown.

    Parameters
    ----------
    setting : str
        ``Class.name`` or ``Class``.
    files : sequence of str
        Those that were read, the one that wins last.
    """
    if setting in command_line:
        return "the command line"
    section, _, name = (re.escape(part) for part in setting.partition("."))
    for file in reversed(files):
        lines = _text(Path(file)).splitlines()
        if file.endswith(".json"):
            line = _line_in_json(lines, *setting.split(".", 1))
        else:  # c.Class.name, c["Class"]["name"], or the name in a line of its own
            line = _last_line(lines, rf"\b{section}\b.*\b{name}\b")
            if not line and _last_line(lines, rf"\b{section}\b"):
                line = _last_line(lines, rf"\b{name}\b")
        if line:
            return f"{file}:{line}"
    return ""


def _meant(name: str, ours: Collection[str]) -> str:
    """Give our class that a name can have meant; "" if it cannot have meant any."""
    folded = {each.replace("_", "").casefold(): each for each in ours}
    plain = name.replace("_", "").casefold()
    short = {each.removeprefix(_PREFIX).removesuffix("engine"): each for each in folded}
    if (known := plain if plain in folded else short.get(plain)) is not None:
        return folded[known]
    least = 0.0 if plain.startswith(_PREFIX) else _CLOSE
    close = difflib.get_close_matches(plain, folded, 1, least)
    return folded[close[0]] if close else ""


def _other_classes(classes: Sequence[type[Configurable]]) -> set[str]:
    """Give the names of all classes with settings that this process knows, but for ours."""
    found: set[str] = set()
    left: list[type] = [Configurable]
    while left:
        each = left.pop()
        left += each.__subclasses__()
        if not _is_our_package(each):
            found.add(each.__name__)
    return found - {each.__name__ for each in classes}


def _is_our_package(cls: type) -> bool:
    return cls.__module__.partition(".")[0] == __name__.partition(".")[0]


def _refusal(cls: type[Configurable], config: Config) -> str:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            cls(config=config)
    except Exception as exc:  # a TraitError, or whatever the value makes of a check
        return str(exc) or repr(exc)
    return ""


def _text(path: Path) -> str:
    """Give the text of a file; "" if there is none that can be read."""
    with contextlib.suppress(OSError):
        return path.read_text(encoding="utf-8", errors="replace")
    return ""


def _why_unread(path: Path) -> str:
    """Say why a file that is there gave no settings; "" if it has none, or is not there."""
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except OSError as exc:
        return f"{path}: cannot be read: {exc.strerror}"
    if not path.is_file():
        return ""
    try:
        _LOADERS[path.suffix](path.name, str(path.parent)).load_config()
    except OSError as exc:
        return f"{path}: cannot be read: {exc.strerror or exc}"
    except Exception as exc:
        return f"{path}:{_line_of(exc, path)}: {type(exc).__name__}: {exc}; nothing in it counts"
    return ""


def _line_of(exc: Exception, path: Path) -> int:
    line = getattr(exc, "lineno", None)  # of SyntaxError and JSONDecodeError
    if isinstance(line, int):
        return line
    step, line = exc.__traceback__, 1
    while step is not None:
        if step.tb_frame.f_code.co_filename == str(path):
            line = step.tb_lineno
        step = step.tb_next
    return line


def _line_in_json(lines: Sequence[str], section: str, name: str = "") -> int:
    """Give the line of a key, the first one after its section's."""
    begin = next((at for at, text in enumerate(lines, 1) if f'"{section}"' in text), 0)
    if not begin or not name:
        return begin
    return next((at for at, text in enumerate(lines, 1) if at >= begin and f'"{name}"' in text), 0)


def _last_line(lines: Sequence[str], pattern: str) -> int:
    """Give the last line whose code has a pattern; 0 if there is none."""
    found = [at for at, text in enumerate(lines, 1) if re.search(pattern, text.partition("#")[0])]
    return found[-1] if found else 0
