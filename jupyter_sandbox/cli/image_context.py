"""The build context of the sandbox image: where its files lie, what is added, its digest.

Pure file work: knows no engine and no network. The rule: whatever decides the image's content is a
file of the staged context (or the base image's name), so that equal digests mean equal images.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import ssl
from pathlib import Path

from .build_error import ImageBuildError
from .site_mirrors import SiteMirrors

_PACKAGE = Path(__file__).resolve().parents[1]
_CERTIFICATE = re.compile(
    r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL | re.ASCII
)


def image_context_dir() -> Path:
    """Give the directory of the image's Dockerfile.

    Returns
    -------
    Path
        ``kernels/image`` of an editable checkout, else ``_kernels/image`` of the installed package.

    Raises
    ------
    ImageBuildError
        Neither is there: the installation is incomplete.
    """
    places = (_PACKAGE.parent / "kernels" / "image", _PACKAGE / "_kernels" / "image")
    for place in places:
        if (place / "Dockerfile").is_file():
            return place
    looked = " or ".join(str(place) for place in places)
    raise ImageBuildError(
        f"The image's Dockerfile is missing: looked in {looked}. Reinstall the package."
    )


def split_certificates(text: str) -> list[str]:
    """Split a PEM bundle into its certificates, each in OpenSSL's own line layout.

    The layout matters: the image leaves out a certificate that equals one of the distribution's
    files byte for byte.

    Parameters
    ----------
    text : str
        The bundle; what stands between the certificates (names, comments) is dropped.

    Returns
    -------
    list of str
        PEM blocks that end with a newline, in the bundle's order, each once.

    Raises
    ------
    ImageBuildError
        A block is not base64.
    """
    blocks: dict[str, None] = {}
    for number, match in enumerate(_CERTIFICATE.finditer(text), start=1):
        try:
            der = ssl.PEM_cert_to_DER_cert(match.group())
        except ValueError as exc:
            raise ImageBuildError(f"Certificate {number} of the bundle is damaged: {exc}") from exc
        blocks[ssl.DER_cert_to_PEM_cert(der)] = None
    return list(blocks)


def read_ca_bundle(path: Path) -> list[str]:
    """Read and check an ``extra_ca_bundle``.

    Parameters
    ----------
    path : Path
        A PEM file with one or more certificates.

    Returns
    -------
    list of str
        The certificates, as `split_certificates` gives them; at least one.

    Raises
    ------
    ImageBuildError
        The file is unreadable, holds no certificate, or holds a private key, which must not get
        into an image that hostile code runs in.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as exc:
        raise ImageBuildError(f"Cannot read the CA bundle {path}: {exc.strerror}.") from exc
    if "PRIVATE KEY-----" in text:
        raise ImageBuildError(
            f"The CA bundle {path} holds a private key. Give a file with certificates only."
        )
    certificates = split_certificates(text)
    if not certificates:
        raise ImageBuildError(f"The CA bundle {path} holds no PEM certificate.")
    return certificates


def stage_context(
    source: Path, target: Path, *, certificates: list[str], mirrors: SiteMirrors
) -> None:
    """Copy the image's files to `target` and write the site's files beside them.

    Parameters
    ----------
    source : Path
        The directory from `image_context_dir`.
    target : Path
        An existing, empty, private directory (``site/pip.conf`` may hold a password).
    certificates : list of str
        PEM blocks for ``extra-ca.crt``; without any, the file is empty and the image adds none.
    mirrors : SiteMirrors
        What the build takes packages from; empty texts mean the defaults.
    """
    shutil.copytree(
        source, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__", "site")
    )
    (target / "extra-ca.crt").write_text("".join(certificates), encoding="ascii")
    site = target / "site"
    site.mkdir()
    (site / "pip.conf").write_text(mirrors.pip_conf, encoding="utf-8")
    (site / "sources.list").write_text(mirrors.apt_sources, encoding="utf-8")


def context_digest(directory: Path, *, base: str) -> str:
    """Give the SHA-256 that names a staged context: its files' paths and contents, and the base.

    Times, owners and modes do not count: they differ between a checkout and a wheel.

    Parameters
    ----------
    directory : Path
        A staged context.
    base : str
        Name of the base image. Its content does not count: a newer one under the same name is no
        reason to build again.

    Returns
    -------
    str
        64 hexadecimal digits.
    """
    digest = hashlib.sha256()

    def add(part: bytes) -> None:  # with its length: no two lists of parts give the same bytes
        digest.update(len(part).to_bytes(8, "big") + part)

    add(base.encode())
    for path in sorted(path for path in directory.rglob("*") if path.is_file()):
        add(path.relative_to(directory).as_posix().encode())
        add(path.read_bytes())
    return digest.hexdigest()
