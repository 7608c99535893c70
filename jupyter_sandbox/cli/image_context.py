"""The build context of the sandbox image: where its files lie, what is added, its digest.

Pure file work: knows no engine and no network. The rule: whatever decides the image's content is a
file of the staged context (or the base image's name), so that equal digests mean equal images.
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from ..policy.certificates import BundleRefused, require_bundle
from .build_error import ImageBuildError
from .site_mirrors import SiteMirrors

_PACKAGE = Path(__file__).resolve().parents[1]


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


def read_ca_bundle(path: Path) -> list[str]:
    """Read and check an ``extra_ca_bundle``.

    Parameters
    ----------
    path : Path
        A PEM file with one or more certificates.

    Returns
    -------
    list of str
        The certificates in OpenSSL's own line layout; at least one.

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
    try:
        return require_bundle(text)
    except BundleRefused as exc:
        raise ImageBuildError(f"The CA bundle {path} {exc}.") from exc


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
