"""Which Jupyter Server a command talks to, and its token: this user's one, or a named one."""

from __future__ import annotations

from urllib.parse import urlsplit

from jupyter_server.serverapp import list_running_servers


def find_server(url: str, token: str) -> tuple[str, str]:
    """Give the address and token of the server to use.

    Raises
    ------
    LookupError
        None runs, several run and none was named, or its token is not known.
    """
    servers = {server["url"]: server for server in list_running_servers()}
    if url:
        known = next((s for s in servers.values() if _same(s["url"], url)), None)
        token = token or (known or {}).get("token", "")
        if not token:
            raise LookupError(f"the token of {url} is not known here; set JUPYTER_TOKEN")
        return url, token
    if not servers:
        raise LookupError("no Jupyter Server of this user runs; start one, or give --url")
    if len(servers) > 1:
        raise LookupError(f"several servers run; give --url, one of {', '.join(sorted(servers))}")
    (server,) = servers.values()
    token = token or server["token"]
    if not token:
        raise LookupError(f"{server['url']} has no token; start it with one")
    return server["url"], token


def _same(one: str, other: str) -> bool:
    """Say whether two addresses are of one server, whatever name of this machine they use."""
    a, b = urlsplit(one), urlsplit(other)
    local = {"localhost", "127.0.0.1", "::1"}
    hosts = a.hostname == b.hostname or {a.hostname, b.hostname} <= local
    return hosts and a.port == b.port and a.path.rstrip("/") == b.path.rstrip("/")
