"""Who owns what a request makes.

A token or a password login gives every request without a cookie another random username, so on a
server with one secret there is one constant owner; where users log in, each one owns their own.
Source: jupyter_server ``auth/identity.py`` (``generate_anonymous_user``).
"""

from __future__ import annotations

import enum

CONSTANT_OWNER = "local"


class OwnerMode(enum.StrEnum):
    """How an owner is found: ``auto`` looks at the identity provider."""

    AUTO = "auto"
    CONSTANT = "constant"
    USERNAME = "username"


def owner_of(
    username: str, provider_is_single_secret: bool, mode: OwnerMode | str = OwnerMode.AUTO
) -> str:
    """Give the owner for a request of ``username``.

    Parameters
    ----------
    provider_is_single_secret : bool
        The identity provider knows one token or password and no stable users.
    mode : OwnerMode
        ``constant``: one owner for all who may log in. ``username``: always the user's name.
    """
    mode = OwnerMode(mode)
    if mode is OwnerMode.CONSTANT or (mode is OwnerMode.AUTO and provider_is_single_secret):
        return CONSTANT_OWNER
    if not username:
        raise ValueError("a user without a name owns nothing")
    return username
