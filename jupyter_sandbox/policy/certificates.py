"""What a bundle of certificate authorities may be: certificates, readable ones, and nothing else.

Pure: it is given the text. Used where the image is built and where sandboxes are made, so that both
take the same bundles.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator

_BEGIN, _END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"


class BundleRefused(ValueError):
    """The bundle cannot be used; the text says why, as the end of a sentence on it."""


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
    BundleRefused
        A block is not base64.
    """
    blocks: dict[str, None] = {}
    for number, block in enumerate(_blocks(text), start=1):
        try:
            der = ssl.PEM_cert_to_DER_cert(block)
        except ValueError as exc:
            raise BundleRefused(f"is damaged: certificate {number}: {exc}") from exc
        blocks[ssl.DER_cert_to_PEM_cert(der)] = None
    return list(blocks)


def require_bundle(text: str) -> list[str]:
    """Give the certificates of a bundle that sandboxes may trust; at least one.

    Raises
    ------
    BundleRefused
        It holds none, a damaged one, or a private key: hostile code would read that.
    """
    if "PRIVATE KEY-----" in text:
        raise BundleRefused("holds a private key; give a file with certificates only")
    certificates = split_certificates(text)
    if not certificates:
        raise BundleRefused("holds no PEM certificate")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata="".join(certificates))
    except ssl.SSLError as exc:
        raise BundleRefused(f"cannot be read: {exc.reason or exc}") from exc
    return certificates


def _blocks(text: str) -> Iterator[str]:
    """Give what stands between the marks, with them, in linear time."""
    end = 0
    while (begin := text.find(_BEGIN, end)) >= 0:
        at = text.find(_END, begin + len(_BEGIN))
        if at < 0:
            return
        end = at + len(_END)
        yield text[begin:end]
