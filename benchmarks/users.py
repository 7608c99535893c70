"""Several users on a benchmark's server: a token is the server's own, a dot, and a user's name."""

from __future__ import annotations

from jupyter_server.auth import IdentityProvider, User
from jupyter_server.base.handlers import JupyterHandler


class Users(IdentityProvider):
    """Knows everybody who has the server's token."""

    async def get_user(self, handler: JupyterHandler) -> User | None:  # type: ignore[override]
        """Give the user of a request; the bare token's is ``bench``."""
        given = handler.request.headers.get("Authorization", "").removeprefix("token ")
        secret, _, name = given.partition(".")
        if not self.token or secret != self.token:
            return None
        handler._token_authenticated = True
        return User(name or "bench")
