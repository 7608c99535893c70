"""How programs inside find the way out and whom they trust: variables and a directory of files.

Every package client is told by its own variable, or by a file that one names, so nothing of an
image is rewritten and no model has to know. The files are the same for all sandboxes of a server:
a directory of the host's, named by its contents and mounted read-only at ``SITE_TARGET``.

The rule: nothing secret goes in; what runs inside reads all of it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import certifi
from sandbox_guest import protocol

from ..policy.certificates import BundleRefused, require_bundle, split_certificates
from ..stores.unfinished import making_directory

SITE_TARGET = "/run/jupyter-sandbox/site"
CERTIFICATES = f"{SITE_TARGET}/ca-certificates.crt"
APT_CONF = f"{SITE_TARGET}/apt.conf"
WGETRC = f"{SITE_TARGET}/wgetrc"

PROXY = f"http://127.0.0.1:{protocol.EGRESS_PORT}"
_INSIDE = "localhost,127.0.0.1,::1"  # services of the sandbox's own

_TRUSTED = (
    "SSL_CERT_FILE",  # OpenSSL, Python's ssl, Go, uv
    "REQUESTS_CA_BUNDLE",
    "PIP_CERT",
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "NODE_EXTRA_CA_CERTS",
    "NPM_CONFIG_CAFILE",  # over an npmrc that came with npm
    "CARGO_HTTP_CAINFO",
)


def client_environment(trusted: bool) -> dict[str, str]:
    """Give the variables for all that runs inside.

    Parameters
    ----------
    trusted : bool
        Whether the site has certificates of its own; else those of the image or host hold.
    """
    environment = {
        # curl and others read http_proxy in lower case only, and some programs upper case only.
        "http_proxy": PROXY,
        "https_proxy": PROXY,
        "HTTP_PROXY": PROXY,
        "HTTPS_PROXY": PROXY,
        "no_proxy": _INSIDE,
        "NO_PROXY": _INSIDE,
        "NODE_USE_ENV_PROXY": "1",  # Node's own fetch and http, from 22.21 and 24 on
        "APT_CONFIG": APT_CONF,
        # A refusal is final: pip's five tries would take 8 s, npm's two would wait 10 s and 60 s.
        "PIP_RETRIES": "2",
        "NPM_CONFIG_FETCH_RETRY_MINTIMEOUT": "1000",
        "NPM_CONFIG_FETCH_RETRY_MAXTIMEOUT": "5000",
        "NPM_CONFIG_FETCH_TIMEOUT": "60000",
        # Go downloads no other toolchain, and completes a go.mod by itself.
        "GOTOOLCHAIN": "local",
        "GOFLAGS": "-mod=mod",
    }
    if trusted:
        environment |= dict.fromkeys(_TRUSTED, CERTIFICATES)
        environment["SYSTEM_WGETRC"] = WGETRC  # wget knows no variable for certificates
    return environment


def read_trusted(bundle: str) -> list[str]:
    """Give all that clients inside are to trust: the public authorities and those of a file.

    Most clients take one bundle in place of another, so the public ones have to be in it.

    Parameters
    ----------
    bundle : str
        Path of a PEM file; "" for none, which gives an empty list: what an image trusts stays.

    Raises
    ------
    BundleRefused
        It cannot be read, or is none.
    """
    if not bundle:
        return []
    if (
        Path(bundle).exists() and not Path(bundle).is_file()
    ):  # who reads a pipe waits for its writer
        raise BundleRefused("is no regular file")
    try:
        own = require_bundle(Path(bundle).read_text(encoding="utf-8", errors="replace"))
    except OSError as exc:
        raise BundleRefused(f"cannot be read: {exc.strerror}") from exc
    public = split_certificates(Path(certifi.where()).read_text(encoding="utf-8"))
    return list(dict.fromkeys([*own, *public]))


def prepare_site_files(directory: Path, certificates: Sequence[str]) -> Path:
    """Give the directory of the files below ``directory``; make it if it is not there.

    Parameters
    ----------
    certificates : sequence of str
        PEM blocks: all that clients inside are to trust; empty for what the image trusts.
    """
    files = {"apt.conf": _apt_conf(bool(certificates))}
    if certificates:
        files["ca-certificates.crt"] = "".join(certificates)
        files["wgetrc"] = f"ca_certificate = {CERTIFICATES}\n"
    digest = hashlib.sha256(repr(sorted(files.items())).encode()).hexdigest()
    target = directory / f"site-{digest[:16]}"
    if target.is_dir():
        return target
    with making_directory(target) as made:
        for name, text in files.items():
            (made / name).write_text(text, encoding="utf-8")
            os.chmod(made / name, 0o644)  # the sandbox's user is another
        os.chmod(made, 0o755)
        with contextlib.suppress(OSError):  # another process was first
            made.rename(target)
    return target


def _apt_conf(trusted: bool) -> str:
    """Give what apt reads besides its own files (``APT_CONFIG``).

    Source: https://manpages.debian.org/bookworm/apt/apt.conf.5.en.html
    """
    lines = [
        # Also for programs that apt is started by with an environment of their own.
        f'Acquire::http::Proxy "{PROXY}";',
        f'Acquire::https::Proxy "{PROXY}";',
        'Acquire::http::Pipeline-Depth "0";',  # the proxy takes one request per connection
        'Acquire::http::Timeout "60";',
        'Acquire::https::Timeout "60";',
    ]
    if trusted:
        lines.append(f'Acquire::https::CAInfo "{CERTIFICATES}";')
    return "\n".join(lines) + "\n"
