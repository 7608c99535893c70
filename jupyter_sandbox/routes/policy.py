"""``/sandbox/api/policy``: flags and grants, for administrators.

The body is the file itself: what is not right is refused with the line and the reason, and what was
in force stays.
"""

from __future__ import annotations

import asyncio

from ..errors import InvalidRequest, Unavailable
from ..models import JsonValue
from ..policy.access_text import PolicyTextError
from .base import SandboxHandler, endpoint


class PolicyHandler(SandboxHandler):
    """The policy in force."""

    needs_access = False  # an administrator switches the feature on again

    @endpoint
    async def get(self) -> None:
        """Give the file's document, and what is wrong with it if it is not what is in force."""
        self.require_administrator()
        self.answer(self._shape())

    @endpoint
    async def put(self) -> None:
        """Replace it; it counts from the next request on."""
        self.require_administrator()
        access = self.services.access
        try:
            text = bytes(self._body).decode("utf-8")
            await asyncio.to_thread(access.replace, text)
        except UnicodeDecodeError as exc:
            raise InvalidRequest("The body is not UTF-8.", status=400) from exc
        except PolicyTextError as exc:
            raise InvalidRequest(f"Nothing was changed. Line {exc.line}: {exc.reason}") from exc
        access.current()
        if access.problem is not None:
            raise Unavailable(
                "the policy was written, but the file cannot be read: the one before it stays in "
                "force",
                detail=f"{access.path}: {access.problem}",
            )
        self.services.audit.note("policy_changed", self.owner)
        self.log.info("policy: changed by %s", self.current_user.username)
        self.answer(self._shape())

    def _shape(self) -> dict[str, JsonValue]:
        access = self.services.access
        policy, problem = access.current(), access.problem
        return {
            "policy": access.document if problem is None else None,
            "in_force": {"chat_sandbox": policy.chat_sandbox, "grants": len(policy.grants)},
            "problem": None if problem is None else problem.to_json(),
        }
