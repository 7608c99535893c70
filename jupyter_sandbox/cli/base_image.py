"""The image that the sandbox image starts from: present, pulled, or made here with mmdebstrap.

Making it is for hosts without an image registry: they still have a Debian mirror.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

import docker
from docker.errors import APIError, ImageNotFound

from .build_error import ImageBuildError
from .site_mirrors import debian_release

# What the official slim images leave out, so that a base made here is like them: documentation and
# translations that nobody reads inside a sandbox. dpkg keeps the rules for later packages too.
_LEFT_OUT = ("doc", "info", "lintian", "locale", "man")


def ensure_base(client: docker.APIClient, base: str, *, bootstrap: bool, apt_sources: str) -> None:
    """Make sure that the engine has the base image.

    Parameters
    ----------
    client : docker.APIClient
        The engine.
    base : str
        Name with tag.
    bootstrap : bool
        Make the image when it is neither present nor pullable.
    apt_sources : str
        A sources.list to make it from; empty: mmdebstrap's default mirror.

    Raises
    ------
    ImageBuildError
        It is not to be had; the message names the ways on.
    """
    try:
        client.inspect_image(base)
    except ImageNotFound:
        pass
    else:
        return
    print(f"Pulling {base} ...", flush=True)
    try:
        client.pull(base)
    except APIError as exc:
        if not bootstrap:
            raise ImageBuildError(
                f"The base image {base} is neither present nor pullable "
                f"({exc.explanation or exc}). Load or pull it, name another one with --base, or "
                "make one from the Debian mirror with --bootstrap-base."
            ) from exc
        print(f"Cannot pull it ({exc.explanation or exc}).", flush=True)
        bootstrap_base(client, base, apt_sources=apt_sources)


def bootstrap_base(client: docker.APIClient, base: str, *, apt_sources: str) -> None:
    """Make a minimal Debian with mmdebstrap and import it under the base image's name.

    Parameters
    ----------
    client : docker.APIClient
        The engine.
    base : str
        ``debian:CODENAME`` or ``debian:CODENAME-slim``, with a registry before it or not.
    apt_sources : str
        A sources.list to make it from; empty: mmdebstrap's default mirror. It stays in the image.

    Raises
    ------
    ImageBuildError
        The name is no Debian release's, mmdebstrap is missing, or it failed.
    """
    release = debian_release(base)
    if release is None:
        raise ImageBuildError(
            f"--bootstrap-base makes Debian images only (debian:bookworm-slim), not {base}."
        )
    program = shutil.which("mmdebstrap")
    if program is None:
        raise ImageBuildError(
            "--bootstrap-base needs mmdebstrap: install it with `apt-get install mmdebstrap`."
        )
    print(f"Making {base} with mmdebstrap ...", flush=True)
    with tempfile.TemporaryDirectory(prefix="jupyter-sandbox-base-") as directory:
        archive = Path(directory, "base.tar")
        command = mmdebstrap_command(program, release, archive)
        if apt_sources:
            sources = Path(directory, "sources.list")
            sources.write_text(apt_sources, encoding="utf-8")
            command.append(str(sources))
        # Its output goes to the terminal: it takes half a minute, and its words explain a failure.
        code = subprocess.run(command, check=False).returncode
        if code != 0:
            raise ImageBuildError(f"mmdebstrap failed with exit code {code}; its output is above.")
        repository, _, tag = base.rpartition(":")
        client.import_image(src=str(archive), repository=repository, tag=tag)


def mmdebstrap_command(program: str, release: str, archive: Path) -> list[str]:
    """Give the command that writes a minimal Debian to `archive`.

    minbase is Essential packages and apt. ca-certificates, because the sources may be https. What a
    slim image leaves out is left out here too, except the copyright notices.
    """
    excludes = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in _LEFT_OUT]
    return [
        program,
        "--variant=minbase",
        "--include=ca-certificates",
        *excludes,
        "--dpkgopt=path-include=/usr/share/doc/*/copyright",
        release,
        str(archive),
    ]
