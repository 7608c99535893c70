"""Where this host gets its packages from, in the form that the image's build can use.

A company's machines know its package mirrors already: pip's and apt's own configuration. They are
read at build time and never written into the project or the finished image. What only this host can
reach (``file:`` indexes, local wheel folders, CD-ROMs) is left out. npm is not asked: the build
installs nothing from its registry (npm itself comes in a wheel).
"""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

_REMOTE = ("http://", "https://")
# What pip needs to reach a mirror. Not `cert`: the image has a bundle of its own, at its own path.
_PIP_OPTIONS = ("index-url", "extra-index-url", "trusted-host", "proxy", "timeout")
# Later wins, as in pip: https://pip.pypa.io/en/stable/topics/configuration/#precedence-override-order
_PIP_SECTIONS = ("global", "install", ":env:")
_PIP_LINE = re.compile(r"^(?P<section>:env:|[\w-]+)\.(?P<option>[\w-]+)=(?P<value>['\"].*['\"])$")
# An https mirror with an expired or unsigned Release file is a site's own decision: keep it.
_APT_OPTIONS = ("trusted", "check-valid-until")


@dataclass(frozen=True)
class SiteMirrors:
    """Configuration files for the build.

    Parameters
    ----------
    pip_conf : str
        A ``pip.conf``; empty: pip's default index. May hold credentials.
    apt_sources : str
        A ``sources.list`` in the one-line format; empty: the base image's own sources.
    """

    pip_conf: str = ""
    apt_sources: str = ""

    def __repr__(self) -> str:
        """Name what is set without its text, which may hold credentials."""
        return f"<SiteMirrors pip={bool(self.pip_conf)} apt={bool(self.apt_sources)}>"


def site_mirrors(base: str) -> SiteMirrors:
    """Read this host's pip and apt configuration.

    Parameters
    ----------
    base : str
        Name of the base image: apt sources are of use only to the release that the name tells
        (``debian:bookworm-slim``).

    Returns
    -------
    SiteMirrors
        Empty texts where this host has no such client or nothing that a container can use.
    """
    release = debian_release(base)
    return SiteMirrors(
        pip_conf=to_pip_conf(_pip_config_list()),
        apt_sources=to_sources_list(Path("/etc/apt"), release) if release else "",
    )


def debian_release(base: str) -> str | None:
    """Give the code name in an image name such as ``debian:bookworm-slim``, else None."""
    match = re.fullmatch(r"(?:.+/)?debian:([a-z]+)(?:-slim)?", base)
    return match.group(1) if match else None


def to_pip_conf(listing: str) -> str:
    """Turn the output of ``pip config list`` into a pip.conf for a container.

    Parameters
    ----------
    listing : str
        Lines such as ``global.index-url='https://mirror/simple'``.

    Returns
    -------
    str
        A ``[global]`` section, or an empty text when nothing usable is set.
    """
    values: dict[str, dict[str, str]] = {section: {} for section in _PIP_SECTIONS}
    for line in listing.splitlines():
        match = _PIP_LINE.match(line.strip())
        if match is None or match["section"] not in values:
            continue
        option = match["option"].replace("_", "-").removeprefix("default-")  # PIP_DEFAULT_TIMEOUT
        if option in _PIP_OPTIONS:
            values[match["section"]][option] = str(ast.literal_eval(match["value"]))
    merged = {
        option: value for section in _PIP_SECTIONS for option, value in values[section].items()
    }
    for option in ("index-url", "extra-index-url"):
        urls = [url for url in merged.pop(option, "").split() if url.startswith(_REMOTE)]
        if urls:
            merged[option] = " ".join(urls)
    lines = [f"{option} = {' '.join(value.split())}\n" for option, value in sorted(merged.items())]
    return "".join(["[global]\n", *lines]) if lines else ""


def to_sources_list(etc_apt: Path, release: str) -> str:
    """Give the Debian sources of an apt directory in the one-line format.

    Third-party repositories are left out: the image needs none, and it lacks their keys.

    Parameters
    ----------
    etc_apt : Path
        The directory, ``/etc/apt``.
    release : str
        Code name such as ``bookworm``; sources of other releases are left out.

    Returns
    -------
    str
        ``deb ...`` lines, or an empty text.
    """
    suites = {release, *(f"{release}-{pocket}" for pocket in ("updates", "security", "backports"))}
    files = [
        etc_apt / "sources.list",
        *sorted((etc_apt / "sources.list.d").glob("*.list")),
        *sorted((etc_apt / "sources.list.d").glob("*.sources")),
    ]
    lines: dict[str, None] = {}
    for path in files:
        try:
            text = path.read_text(encoding="utf-8")
        except OSError:
            continue  # absent, or not ours to read: then the base's own sources do
        for source in _deb822(text) if path.suffix == ".sources" else _one_line(text):
            remote = source.uri.startswith(_REMOTE)
            if remote and source.suite in suites and "main" in source.components:
                lines[str(source)] = None
    return "".join(f"{line}\n" for line in lines)


@dataclass(frozen=True)
class _Source:
    """One line of a sources.list. Signed by Debian, or `options` say why not."""

    options: tuple[str, ...]
    uri: str
    suite: str
    components: tuple[str, ...]

    def __str__(self) -> str:
        options = f"[{' '.join(self.options)}] " if self.options else ""
        return f"deb {options}{self.uri} {self.suite} {' '.join(self.components)}"


def _one_line(text: str) -> Iterator[_Source]:
    """Read the classic format: ``deb [option=value ...] uri suite component ...``."""
    for line in text.splitlines():
        match = re.match(r"^\s*deb\s+(?:\[([^\]]*)\]\s+)?(\S+)\s+(\S+)\s+([^#]+)", line)
        if match is None:
            continue
        options = dict(word.partition("=")[::2] for word in (match[1] or "").split())
        if _is_debian_key(options.get("signed-by", "")):
            yield _Source(_kept(options), match[2], match[3], tuple(match[4].split()))


def _deb822(text: str) -> Iterator[_Source]:
    """Read the stanza format of ``*.sources``."""
    for stanza in re.split(r"\n\s*\n", text):
        fields: dict[str, str] = {}
        name = ""
        for line in stanza.splitlines():
            if line.startswith("#"):
                continue
            if line[:1].isspace():  # the field goes on
                fields[name] = f"{fields.get(name, '')} {line.strip()}"
                continue
            name, _, value = line.partition(":")
            name = name.strip().lower()
            fields[name] = value.strip()
        if fields.get("enabled", "yes").lower() in ("no", "false", "0"):
            continue
        if "deb" not in fields.get("types", "").split():
            continue
        if not _is_debian_key(fields.get("signed-by", "")):
            continue
        for uri in fields.get("uris", "").split():
            for suite in fields.get("suites", "").split():
                components = tuple(fields.get("components", "").split())
                yield _Source(_kept(fields), uri, suite, components)


def _is_debian_key(signed_by: str) -> bool:
    """Tell whether a source is signed with a key that every Debian image has."""
    return not signed_by or "debian-archive" in signed_by


def _kept(options: dict[str, str]) -> tuple[str, ...]:
    """Give the options that mean the same inside the image."""
    return tuple(f"{name}={options[name]}" for name in _APT_OPTIONS if name in options)


def _pip_config_list() -> str:
    """Run ``pip config list``: this interpreter's pip, else the one on PATH, else nothing."""
    commands: Iterable[list[str]] = ([sys.executable, "-m", "pip"], [shutil.which("pip") or "pip"])
    for command in commands:
        try:
            done = subprocess.run(
                [*command, "config", "list"], capture_output=True, text=True, timeout=60, check=True
            )
        except (OSError, subprocess.SubprocessError):
            continue  # a uv environment has no pip
        return done.stdout
    return ""
