"""Where this host's pip, npm and apt get packages from, asked from themselves.

A site's mirrors are in their configuration already, and their own defaults need not be written down
here. The rule: bounded in time and size, nothing blocks the loop, and a client that is missing or
broken costs its preset, not the server's start. URLs may hold credentials: they are never logged.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import json
import logging
import re
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..policy.egress_lists import to_client_rule
from ..policy.egress_presets import FROM_CLIENTS, listed_rules
from ..policy.egress_rules import HostRule

_CLIENT_SECONDS = 20.0
_MAX_OUTPUT_BYTES = 1024 * 1024
_MAX_FILE_BYTES = 1024 * 1024
_APT = Path("/etc/apt")
# pip's own constants: the index, and the host of the files that it links to.
_PIP_DEFAULTS = """import json
from pip._internal.models.index import PyPI
print(json.dumps([PyPI.simple_url, "https://" + PyPI.file_storage_domain]))"""
_FILES = "files of the default index"  # among pip's options, and none of them
_PIP_LINE = re.compile(r"(?:global|install|:env:)\.(?P<option>[\w-]+)=(?P<value>['\"].*['\"])")

Log = logging.Logger | logging.LoggerAdapter[Any]


class ClientMissing(Exception):
    """A client that is not there or does not answer; the text says which and why."""


class ClientSettings:
    """What pip and npm of this host are set to, each asked once."""

    def __init__(self) -> None:
        self._asked: dict[str, asyncio.Task[dict[str, str]]] = {}

    async def pip(self) -> dict[str, str]:
        """Give pip's options; ``index-url`` is its own constants' where nothing is set."""
        return await self._ask("pip", _pip_settings)

    async def npm(self) -> dict[str, str]:
        """Give npm's settings that are texts."""
        return await self._ask("npm", _npm_settings)

    async def _ask(
        self, name: str, ask: Callable[[], Coroutine[None, None, dict[str, str]]]
    ) -> dict[str, str]:
        if name not in self._asked:
            self._asked[name] = asyncio.create_task(ask())
        return await self._asked[name]


async def find_preset_rules(
    presets: Iterable[str], log: Log, clients: ClientSettings | None = None
) -> list[HostRule]:
    """Give the hosts of presets; of those read from clients, what is configured on this host."""
    clients = clients or ClientSettings()
    wanted = list(dict.fromkeys(presets))
    asked = [name for name in wanted if name in FROM_CLIENTS]
    answers = await asyncio.gather(*(_client_urls(name, clients) for name in asked))
    found = dict(zip(asked, answers, strict=True))
    rules: list[HostRule] = []
    for name in wanted:
        rules += listed_rules(name)
        answer = found.get(name, [])
        if isinstance(answer, ClientMissing):
            log.warning("egress: the preset `%s` is empty: %s", name, answer)
            continue
        for url in dict.fromkeys(answer):
            try:
                rule = to_client_rule(url)
            except ValueError as exc:
                log.warning("egress: the preset `%s` leaves a host out: %s", name, exc)
            else:
                rules += [rule] if rule is not None else []
    return rules


async def find_mirrors(
    presets: Iterable[str], log: Log, clients: ClientSettings | None = None
) -> dict[str, str]:
    """Give variables by which pip and npm inside use the index and registry of this host's.

    A URL with a password in it is left out: what runs inside would read it.
    """
    clients = clients or ClientSettings()
    variables: dict[str, str] = {}
    presets = set(presets)
    with contextlib.suppress(ClientMissing):  # said where the preset is found empty
        if "pypi" in presets:
            variables |= pip_variables(await clients.pip(), log)
    with contextlib.suppress(ClientMissing):
        if "npm" in presets:
            urls = _remote(["registry"], await clients.npm(), "npm", log)
            variables |= {"NPM_CONFIG_REGISTRY": urls[0]} if urls else {}
    return variables


def pip_variables(settings: Mapping[str, str], log: Log) -> dict[str, str]:
    """Give pip's options as its variables; what only this host has (``file:``) is left out."""
    own = (
        () if _FILES in settings else ("index-url",)
    )  # a default is no reason to overrule an image
    variables = {
        "PIP_INDEX_URL": " ".join(_remote(own, settings, "pip", log)[:1]),
        "PIP_EXTRA_INDEX_URL": " ".join(_remote(["extra-index-url"], settings, "pip", log)),
        "PIP_TRUSTED_HOST": " ".join(settings.get("trusted-host", "").split()),
    }
    return {name: value for name, value in variables.items() if value}


def _remote(
    options: Sequence[str], settings: Mapping[str, str], client: str, log: Log
) -> list[str]:
    urls = [url for option in options for url in settings.get(option, "").split()]
    urls = [url for url in urls if url.startswith(("http://", "https://"))]
    open_urls = [url for url in urls if "@" not in url.partition("://")[2].partition("/")[0]]
    if len(open_urls) < len(urls):
        log.warning("egress: sandboxes do not get %s's URL: there is a password in it", client)
    return open_urls


async def _client_urls(name: str, clients: ClientSettings) -> list[str] | ClientMissing:
    try:
        if name == "debian":
            return await apt_urls()
        return await (pip_urls if name == "pypi" else npm_urls)(clients)
    except ClientMissing as exc:
        return exc


async def pip_urls(clients: ClientSettings | None = None) -> list[str]:
    """Give pip's index, further indexes and link pages, and the host of its default's files."""
    settings = await (clients or ClientSettings()).pip()
    options = ("index-url", _FILES, "extra-index-url", "find-links")
    return [url for option in options for url in settings.get(option, "").split()]


async def _pip_settings() -> dict[str, str]:
    failure = ClientMissing("pip is not there")
    for python in (sys.executable, "python3"):
        try:
            listing = await _output([python, "-P", "-m", "pip", "config", "list"])
            settings = to_pip_settings(listing)
            if not settings.get("index-url"):
                index, files = json.loads(await _output([python, "-P", "-c", _PIP_DEFAULTS]))
                settings |= {"index-url": str(index), _FILES: str(files)}
        except (ClientMissing, ValueError) as exc:
            failure = ClientMissing(f"pip: {exc}")
            continue
        return settings
    raise failure


def to_pip_settings(listing: str) -> dict[str, str]:
    """Read the output of ``pip config list``; what is said later wins, as in pip."""
    found: dict[str, dict[str, str]] = {"global": {}, "install": {}, ":env:": {}}
    for line in listing.splitlines():
        match = _PIP_LINE.fullmatch(line.strip())
        if match is not None:
            with contextlib.suppress(ValueError, SyntaxError):
                section = line.strip().partition(".")[0]
                option = match["option"].replace("_", "-")
                found[section][option] = str(ast.literal_eval(match["value"]))
    return {**found["global"], **found["install"], **found[":env:"]}


async def npm_urls(clients: ClientSettings | None = None) -> list[str]:
    """Give npm's registry and those of single scopes."""
    settings = await (clients or ClientSettings()).npm()
    return [v for k, v in settings.items() if k == "registry" or k.endswith(":registry")]


async def _npm_settings() -> dict[str, str]:
    try:
        settings = json.loads(await _output(["npm", "config", "list", "--json"]))
    except ValueError as exc:
        raise ClientMissing(f"npm: {exc}") from None
    if not isinstance(settings, dict):
        raise ClientMissing("npm: gave no settings")
    return {key: value for key, value in settings.items() if isinstance(value, str)}


async def apt_urls() -> list[str]:
    """Give the URLs of apt's sources, in both formats."""
    return await asyncio.to_thread(read_apt_sources, _APT)


def read_apt_sources(etc_apt: Path) -> list[str]:
    """Read ``sources.list`` and ``sources.list.d``; what is switched off is left out."""
    folder = etc_apt / "sources.list.d"
    files = [etc_apt / "sources.list", *sorted(folder.glob("*.list"))]
    found = [url for text in _texts(files) for url in _one_line_urls(text)]
    found += [
        url for text in _texts(sorted(folder.glob("*.sources"))) for url in _stanza_urls(text)
    ]
    if not found:
        raise ClientMissing("apt has no sources here")
    return found


def _texts(files: Sequence[Path]) -> Iterable[str]:
    for path in files:
        with contextlib.suppress(OSError), path.open("rb") as file:
            yield file.read(_MAX_FILE_BYTES).decode("utf-8", "replace")


def _one_line_urls(text: str) -> list[str]:
    """Read the classic format: ``deb [option=value ...] url suite component ...``."""
    return re.findall(r"^[ \t]*deb(?:-src)?[ \t]+(?:\[[^\]\n]*\][ \t]*)?(\S+)", text, re.M)


def _stanza_urls(text: str) -> list[str]:
    """Read the stanza format (deb822, as the manual page sources.list(5) has it)."""
    found: list[str] = []
    lines = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    for stanza in re.split(r"\n[ \t]*\n", lines):
        joined = re.sub(r"\n[ \t]+", " ", stanza)  # a field goes on in indented lines
        fields = {
            name.strip().lower(): value.strip()
            for name, colon, value in (line.partition(":") for line in joined.splitlines())
            if colon
        }
        if fields.get("enabled", "yes").lower() not in ("no", "false", "without", "off", "0"):
            found += fields.get("uris", "").split()
    return found


async def _output(command: Sequence[str]) -> str:
    """Give what a client prints; it runs where no project's own configuration lies."""
    try:
        process = await asyncio.create_subprocess_exec(
            *command, stdin=DEVNULL, stdout=PIPE, stderr=DEVNULL, cwd="/", limit=_MAX_OUTPUT_BYTES
        )
    except OSError as exc:
        raise ClientMissing(f"{command[0]} does not start ({exc.strerror})") from None
    try:
        async with asyncio.timeout(_CLIENT_SECONDS):
            assert process.stdout is not None
            data = await process.stdout.read(_MAX_OUTPUT_BYTES)
            while len(data) < _MAX_OUTPUT_BYTES and (more := await process.stdout.read(65536)):
                data += more
            code = 1 if len(data) >= _MAX_OUTPUT_BYTES else await process.wait()
    except TimeoutError:
        raise ClientMissing(f"{command[0]} does not answer") from None
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if code != 0:
        raise ClientMissing(f"{command[0]} failed (exit code {code})")
    return data.decode("utf-8", "replace")
