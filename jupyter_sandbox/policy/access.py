"""Who may use the sandbox: the switch of the feature, and grants to users and groups.

Pure: what the file says (``access_text`` reads it) and who asks, nothing else. The rules: a grant
that takes access away wins over every one that gives it; once any grant gives access, it is needed;
with none that gives, all have it but those it is taken from.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..models import Caller
from .decision import ALLOWED, Decision


@dataclass(frozen=True)
class Grant:
    """Gives or takes chat access (``enable_chat_ui``) by user or group."""

    users: frozenset[str]
    groups: frozenset[str]
    enable_chat_ui: bool

    def matches(self, caller: Caller) -> bool:
        """Say whether it speaks of this caller."""
        return caller.owner in self.users or bool(caller.groups & self.groups)


@dataclass(frozen=True)
class AccessPolicy:
    """What an administrator has set. The default: the feature is on, for everybody."""

    chat_sandbox: bool = True
    grants: tuple[Grant, ...] = ()


def decide_feature(policy: AccessPolicy) -> Decision:
    """Decide whether the feature is there at all."""
    if policy.chat_sandbox:
        return ALLOWED
    return Decision(False, "the sandbox is switched off on this server")


def decide_chat_access(policy: AccessPolicy, caller: Caller) -> Decision:
    """Decide whether a caller may use it, given that it is there."""
    matching = [grant for grant in policy.grants if grant.matches(caller)]
    if any(not grant.enable_chat_ui for grant in matching):
        return Decision(False, "chat access was taken from this user or one of their groups")
    given = any(grant.enable_chat_ui for grant in policy.grants)
    if given and not matching:
        return Decision(False, "chat access was not given to this user or one of their groups")
    return ALLOWED
