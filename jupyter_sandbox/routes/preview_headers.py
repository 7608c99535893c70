"""The headers of previews: what a page that a sandbox has written may do in a browser.

Pure functions of strings. Three kinds of answers: the *shell* is our page on the user's origin; a
*document* of the sandbox in its frame has an opaque origin (CSP ``sandbox`` without
``allow-same-origin``) and loads nothing; the shell's ``frame-src`` holds the frame on its own path,
so that not even a navigation leaves.

Source: reference/security.md 6, tests/browser.
"""

from __future__ import annotations

import re

# All that a page could ask the user or the device for. Not here, because the players of our own
# pages need them: autoplay, fullscreen, picture-in-picture (a frame gets none: `allow=""`).
# Source: https://github.com/w3c/webappsec-permissions-policy/blob/main/features.md
_FEATURES = (
    *("accelerometer", "ambient-light-sensor", "attribution-reporting", "bluetooth"),
    *("browsing-topics", "camera", "captured-surface-control", "clipboard-read", "clipboard-write"),
    *("compute-pressure", "digital-credentials-get", "display-capture", "encrypted-media"),
    *("gamepad", "geolocation", "gyroscope", "hid", "identity-credentials-get", "idle-detection"),
    *("keyboard-map", "local-fonts", "local-network-access", "magnetometer", "microphone", "midi"),
    *("otp-credentials", "payment", "publickey-credentials-create", "publickey-credentials-get"),
    *("screen-wake-lock", "serial", "speaker-selection", "storage-access", "usb", "web-share"),
    *("window-management", "xr-spatial-tracking"),
)
_PRIVATE = {
    "X-Content-Type-Options": "nosniff",
    "X-DNS-Prefetch-Control": "off",
    "Cache-Control": "private, no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Origin-Agent-Cluster": "?1",
    "Permissions-Policy": ", ".join(f"{feature}=()" for feature in _FEATURES),
}
_NOTHING_ELSE = "form-action 'none'; base-uri 'none'; frame-ancestors 'self'"
_OWN_LOOKS = "style-src 'unsafe-inline'; img-src data:; font-src data:; media-src data:"

# The sandbox attribute of the frame, and the CSP's: the same, so that neither opens what the other
# closes. No allow-same-origin, allow-top-navigation, allow-popups for what has scripts, ever.
SANDBOX_SCRIPTS = "allow-scripts allow-forms"
SANDBOX_VIEWER = "allow-scripts"
SANDBOX_LINKS = "allow-popups allow-popups-to-escape-sandbox"
SANDBOX_NOTHING = ""

_HOST = re.compile(r"[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*(?::[0-9]{1,5})?")


def has_name(host: str) -> bool:
    """Say whether a source can name this host; none can be an IPv6 address, or have a ``_``.

    Where none can, a frame cannot be held on its own path, so nothing of a sandbox runs in it.
    Source: https://www.w3.org/TR/CSP3/#grammardef-host-source.
    """
    return _HOST.fullmatch(host) is not None


def source(host: str, path: str) -> str:
    """Give the CSP source of a path on this server, by whatever scheme the page came.

    It is the whole server where none can name the host.
    """
    return f"{host}{path}" if has_name(host) else "'self'"


def shell_headers(
    nonce: str,
    *,
    shown: str | None = None,
    framed: str | None = None,
    renew: str | None = None,
    fetched: str = "",
) -> dict[str, str]:
    """Give the headers of a shell page.

    Parameters
    ----------
    shown, framed, renew : str or None
        Sources: of a picture or film, of a frame, of the renewal of its lease; None for none.
    fetched : str
        Source of a file that the shell hands to its frame; "" for none.
    """
    policy = [f"default-src 'none'; style-src 'nonce-{nonce}'"]
    if shown is not None:
        policy.append(f"img-src {shown}; media-src {shown}")
    if framed is not None:
        connect = f"{renew} {fetched}".rstrip()
        policy.append(f"script-src 'nonce-{nonce}'; connect-src {connect}; frame-src {framed}")
    return {
        **_PRIVATE,
        "Content-Security-Policy": "; ".join([*policy, _NOTHING_ELSE]),
        "Cross-Origin-Resource-Policy": "same-origin",
        # The frame is told where it is shown, other servers are not.
        "Referrer-Policy": "same-origin",
    }


def document_headers(sandbox: str, host: str = "", path: str = "") -> dict[str, str]:
    """Give the headers of a document in the frame.

    Parameters
    ----------
    sandbox : str
        One of ``SANDBOX_SCRIPTS``, ``SANDBOX_LINKS``, ``SANDBOX_NOTHING``.
    host, path : str
        For a document with scripts: where it may navigate to (itself).
    """
    policy = [f"sandbox {sandbox}".strip(), "default-src 'none'"]
    headers = dict(_PRIVATE)
    if sandbox == SANDBOX_SCRIPTS:
        policy.append(
            "script-src 'unsafe-inline' 'unsafe-eval' data: blob:; worker-src data: blob:; "
            "connect-src data: blob:; style-src 'unsafe-inline' data:; img-src data: blob:; "
            "font-src data:; media-src data: blob:"
        )
        # Closes, in browsers that know it, what CSP leaves open: WebRTC, preconnect, look-ups, the
        # connection that is made before a navigation is refused.
        # Source: https://wicg.github.io/connection-allowlists (Chromium 148 and newer).
        if has_name(host):
            headers["Connection-Allowlist"] = f'("http{{s}}?://{host}{path}*")'
    else:
        policy.append(_OWN_LOOKS)
    headers["Content-Security-Policy"] = "; ".join([*policy, _NOTHING_ELSE])
    headers["Referrer-Policy"] = "no-referrer"
    headers["Cross-Origin-Resource-Policy"] = "same-origin"
    return headers


def viewer_headers(nonce: str) -> dict[str, str]:
    """Give the headers of the viewer of PDFs: our scripts in the frame, over hostile bytes.

    It makes no connection of any kind: the file comes in a message.
    """
    headers = document_headers(SANDBOX_NOTHING)
    policy = (
        f"sandbox {SANDBOX_VIEWER}; default-src 'none'; script-src 'nonce-{nonce}' "
        "'wasm-unsafe-eval'; worker-src blob:; style-src 'unsafe-inline'; img-src data: blob:; "
        "font-src data:"
    )
    headers["Content-Security-Policy"] = f"{policy}; {_NOTHING_ELSE}"
    headers["Connection-Allowlist"] = "()"
    return headers
