"""``jupyter sandbox build-image``: make the image that the Docker engine starts sandboxes from.

Stages a build context (the Dockerfile, the site's certificates and mirrors), has the engine build
it and labels the result with the context's digest, so that ``--if-missing`` can tell a current
image from an old one. Talks to Docker or Podman through the API, like the engine that will use the
image: what builds here runs there. What a person can put right ends in one line and exit code 1.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import docker
from docker.errors import APIError, DockerException, ImageNotFound
from docker.utils import kwargs_from_env
from jupyter_core.application import base_aliases, base_flags
from requests.exceptions import RequestException
from traitlets import Bool, Unicode

from jupyter_sandbox import __version__

from .base_image import ensure_base
from .build_error import ImageBuildError
from .image_context import context_digest, image_context_dir, read_ca_bundle, stage_context
from .site_mirrors import site_mirrors
from .strict_app import StrictApp

DIGEST_LABEL = "jupyter-sandbox.context"

# The engine may say nothing for long while a step runs; the SDK's 60 s would end the build.
_SILENCE_SECONDS = 3600

# Build arguments that every Dockerfile knows undeclared and that leave no trace in the image.
# Source: https://docs.docker.com/reference/dockerfile/#predefined-args
_PROXY_VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")


class BuildImageApp(StrictApp):
    """Build the container image that the Docker engine makes sandboxes from."""

    name = "jupyter-sandbox-build-image"
    version = __version__
    description = """Build the sandbox image (Python, Node.js, Go, data and document libraries)
    with Docker or Podman. Packages come from the mirrors that this host's pip and apt use."""
    examples = """
    jupyter sandbox build-image
    jupyter sandbox build-image --if-missing --extra-ca-bundle /etc/ssl/certs/company.pem
    jupyter sandbox build-image --bootstrap-base    # without an image registry
    """

    tag = Unicode("jupyter-sandbox:latest", help="Name and tag of the image to build.").tag(
        config=True
    )
    base = Unicode(
        "debian:bookworm-slim",
        help="Image to start from: Debian 12 or something made from it (apt, Python 3.9 or later).",
    ).tag(config=True)
    extra_ca_bundle = Unicode(
        help="""PEM file with certificates that the site's TLS proxy or mirrors need; trusted during
        the build and by every tool in the sandbox. Empty (the default): the public ones only.""",
    ).tag(config=True)
    network = Unicode(
        "host",
        help="""Network of the build's steps. `host` (the default) has this host's DNS and routes,
        so it works behind a company's resolver; `default` is the engine's bridge. Sandboxes
        themselves have no network either way.""",
    ).tag(config=True)
    bootstrap_base = Bool(
        False,
        help="""Make the base image with mmdebstrap from the Debian mirror when it is neither
        present nor pullable.""",
    ).tag(config=True)
    if_missing = Bool(
        False,
        help="Do nothing when the image is there and was built from the same files and settings.",
    ).tag(config=True)

    aliases = {  # noqa: RUF012
        **base_aliases,
        "tag": "BuildImageApp.tag",
        "base": "BuildImageApp.base",
        "extra-ca-bundle": "BuildImageApp.extra_ca_bundle",
        "network": "BuildImageApp.network",
    }
    flags = {  # noqa: RUF012
        **base_flags,
        "bootstrap-base": (
            {"BuildImageApp": {"bootstrap_base": True}},
            "Make the base image with mmdebstrap if it cannot be pulled.",
        ),
        "if-missing": (
            {"BuildImageApp": {"if_missing": True}},
            "Do nothing when an image of the same content is there.",
        ),
    }

    def start(self) -> None:
        """Build, or say in one line why not."""
        super().start()
        try:
            certificates = self.checked_certificates()
            self.build(connect(), certificates)
        except ImageBuildError as exc:
            print(f"error: {exc}", file=sys.stderr)
            self.exit(1)
        except KeyboardInterrupt:
            self.exit(130)  # as a shell reports SIGINT; the engine drops the step when we hang up

    def checked_certificates(self) -> list[str]:
        """Check the command line and give the certificates of the extra CA bundle.

        Raises
        ------
        ImageBuildError
            An argument is bad. Nothing was asked of the engine yet.
        """
        if self.extra_args:
            raise ImageBuildError(f"Unexpected argument {self.extra_args[0]!r}; see --help.")
        if not self.tag or not self.base:
            raise ImageBuildError("--tag and --base must not be empty.")
        return read_ca_bundle(Path(self.extra_ca_bundle)) if self.extra_ca_bundle else []

    def build(self, client: docker.APIClient, certificates: list[str]) -> None:
        """Stage the context and build it, unless the image is current.

        Parameters
        ----------
        client : docker.APIClient
            The engine.
        certificates : list of str
            PEM blocks to trust besides the public ones.

        Raises
        ------
        ImageBuildError
            No base image, a step that failed, or an engine that refused or went away.
        """
        mirrors = site_mirrors(self.base)
        with tempfile.TemporaryDirectory(prefix="jupyter-sandbox-image-") as directory:
            context = Path(directory)
            stage_context(image_context_dir(), context, certificates=certificates, mirrors=mirrors)
            digest = context_digest(context, base=self.base)
            try:
                if self.if_missing and built_from(client, self.tag) == digest:
                    print(f"{self.tag} is up to date ({DIGEST_LABEL}={digest[:12]}).")
                    return
                ensure_base(
                    client,
                    self.base,
                    bootstrap=self.bootstrap_base,
                    apt_sources=mirrors.apt_sources,
                )
                print_build_log(
                    client.build(
                        path=str(context),
                        tag=self.tag,
                        buildargs={"BASE": self.base, **proxy_arguments(os.environ)},
                        labels={DIGEST_LABEL: digest},
                        network_mode=self.network,
                        rm=True,
                        forcerm=True,  # also after a failed step: leave no container behind
                        decode=True,
                    )
                )
                image = client.inspect_image(self.tag)
            except (APIError, RequestException) as exc:
                reason = getattr(exc, "explanation", None) or exc
                raise ImageBuildError(
                    f"The container engine refused or went away: {reason}"
                ) from exc
        print(
            f"\nBuilt {self.tag}: {image['Id']}, {image['Size'] / 1e6:,.0f} MB.\n"
            "The Docker engine uses it when jupyter_server_config.py says\n"
            f'    c.DockerEngine.image = "{self.tag}"\n'
            '("jupyter-sandbox:latest" is the default). Running servers take it for new sandboxes.'
        )


def connect() -> docker.APIClient:
    """Connect to Docker or Podman: DOCKER_HOST, else the usual socket.

    Raises
    ------
    ImageBuildError
        Nothing answers there.
    """
    try:
        return docker.APIClient(
            version="auto", timeout=_SILENCE_SECONDS, **kwargs_from_env(environment=os.environ)
        )
    except DockerException as exc:
        where = os.environ.get("DOCKER_HOST") or "the default socket"
        raise ImageBuildError(
            f"No container engine answers at {where} ({exc}). Start Docker or Podman, or set "
            "DOCKER_HOST."
        ) from exc


def built_from(client: docker.APIClient, tag: str) -> str | None:
    """Give the digest of the context that an image was built from, else None."""
    try:
        image = client.inspect_image(tag)
    except ImageNotFound:
        return None
    labels = (image.get("Config") or {}).get("Labels") or {}
    digest = labels.get(DIGEST_LABEL)
    return digest if isinstance(digest, str) else None


def print_build_log(events: Iterable[Mapping[str, Any]]) -> None:
    """Write the engine's build log to stdout while it comes.

    Parameters
    ----------
    events : iterable of mapping
        The decoded stream of the build call.

    Raises
    ------
    ImageBuildError
        A step failed; the log above says more.
    """
    for event in events:
        if "error" in event:
            raise ImageBuildError(f"The build failed: {str(event['error']).strip()}")
        text = event.get("stream")
        if isinstance(text, str):
            sys.stdout.write(text)
            sys.stdout.flush()


def proxy_arguments(environment: Mapping[str, str]) -> dict[str, str]:
    """Give the proxy variables of an environment as build arguments, in their own case."""
    names = {*_PROXY_VARIABLES, *(name.lower() for name in _PROXY_VARIABLES)}
    return {name: environment[name] for name in sorted(names) if environment.get(name)}


main = BuildImageApp.launch_instance

if __name__ == "__main__":
    main()
