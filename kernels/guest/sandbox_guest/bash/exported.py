"""The text of ``export -p``: how it is written, and what of it can be an environment.

A shell that is started with its variables in the environment is ready sooner than one that sources
them. That does not do for all: some variables do something to a shell that *starts* with them
(run a file, load a library, be ignored). The rule: in doubt the state is sourced.
"""

from __future__ import annotations

import re
from typing import Dict, Mapping, Optional

_LINE = re.compile(rb'declare -x ([A-Za-z_][A-Za-z0-9_]*)(?:="((?:[^"\\]|\\.)*)")?\n', re.DOTALL)
_ESCAPE = re.compile(rb'\\(["\\$`])')
_SPECIAL = re.compile(
    rb"BASH|LD_|GLIBC_|MALLOC_|LOCPATH$|NLSPATH$|GCONV_PATH$|ENV$|SHELLOPTS$|POSIXLY_CORRECT$"
    rb"|IFS$|OPT|SHLVL$|GLOBIGNORE$|EXECIGNORE$|FUNCNEST$|HIST|PS4$|TMOUT$|_$"
)
_MAX_BYTES = 24 * 1024


def to_text(env: Mapping[str, str], cwd: str) -> bytes:
    """Give what ``export -p`` says in a shell that was started with these variables in ``cwd``."""
    values: Dict[str, Optional[str]] = {**env, "OLDPWD": None, "PWD": cwd, "SHLVL": "1"}
    lines = [
        "declare -x %s\n" % (name if value is None else '%s="%s"' % (name, _escaped(value)))
        for name, value in sorted(values.items())
        if name.isidentifier() and name != "_"
    ]
    return "".join(lines).encode("utf-8", "surrogateescape")


def to_environment(text: bytes) -> Optional[Dict[str, str]]:
    """Give the environment for a shell in this state; None: it has to source the text."""
    if len(text) > _MAX_BYTES:
        return None
    env: Dict[str, str] = {}
    at = 0
    while at < len(text):
        line = _LINE.match(text, at)
        if line is None:  # with further attributes, or with characters that need other quotes
            return None
        name, value = line.groups()
        at = line.end()
        if (name, value) in ((b"SHLVL", b"1"), (b"OLDPWD", None)):
            continue  # as every new shell has it
        if value is None or _SPECIAL.match(name):
            return None
        env[name.decode()] = _ESCAPE.sub(rb"\1", value).decode("utf-8", "surrogateescape")
    return env


def _escaped(value: str) -> str:
    return re.sub(r'(["\\$`])', r"\\\1", value)
