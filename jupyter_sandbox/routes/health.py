"""``/sandbox/api/health``: whether sandboxes work here, and what holds them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

from ..errors import Forbidden, InvalidRequest, SandboxError
from ..models import Enforced, JsonValue
from ..policy.memory import Level
from ..policy.tiers import advice, describe, tier_of
from ..proxies import guest_sockets
from ..tools.five_steps import FiveStepsResult
from .base import SandboxHandler, endpoint

_CHECK_SECONDS = 20.0
_ONLY_WITH_A_TOKEN = (
    "The deep check starts a sandbox: send POST, or GET with a token in place of a cookie."
)
_NO_POLICY = (
    "the file of flags and grants is not right, or cannot be read: the policy before it stays in "
    "force"
)
_NO_MEMORY = (
    "the memory of the host is almost used up: no sandbox is started or woken until there is more"
)


class HealthHandler(SandboxHandler):
    """The engine, the limits, and by POST five steps in a new conversation.

    The answer is 200 when all is well, else 503; the body is the same.
    """

    _track_activity = False
    needs_access = False  # monitoring goes on while the feature is off; the steps need it

    @endpoint
    async def get(self) -> None:
        """Look. With ``?deep=1`` go the steps too, for callers that no page can act for."""
        deep = self.get_query_argument("deep", "0")
        if deep not in ("0", "1"):
            raise InvalidRequest("deep: must be 0 or 1.")
        if deep == "1" and not self.token_authenticated:
            # Another site's page could start sandboxes by an image, with the user's cookie.
            raise Forbidden(_ONLY_WITH_A_TOKEN)
        await self._report(deep=deep == "1")

    @endpoint
    async def post(self) -> None:
        """Go the steps."""
        await self._report(deep=True)

    async def _report(self, *, deep: bool) -> None:
        if deep:
            self.require_access()
        engine = await self._engine()
        ok = bool(engine["available"])
        lack = self._lack()
        database = await self._database()
        policy = self._policy()
        ok = ok and bool(database["available"])
        all_well = ok and not lack and bool(policy["available"])
        report: dict[str, JsonValue] = {
            "ok": all_well,
            "engine": engine,
            "database": database,
            "policy": policy,
            "places": await self._places(),
            "memory": self._memory(),
            "sockets": guest_sockets.describe(),
        }
        limits: Sequence[Enforced] = ()
        steps: list[dict[str, JsonValue]] = []
        if deep:
            result = await self.services.five_steps.run(self.owner)
            report["ok"] = all_well and result.ok
            steps = _steps(result)
            report["steps"] = [*steps]
            limits = result.limits
        elif ok:
            with contextlib.suppress(SandboxError):  # said by the engine's own check
                limits = await self.services.conversations.enforcement()
        report["tier"] = _tier(limits)
        report["limits"] = [_limit(each) for each in limits]
        if report["ok"]:
            self.answer(report)
            return
        code = "unhealthy"  # with a message, as every error has
        failed = [step["message"] for step in steps if not step["ok"]]
        why = lack or engine["reason"]
        for part in (policy, database):
            if not part["available"]:
                why = part["reason"]
        self.answer({"code": code, "message": str([*failed, why][0]), **report}, 503)

    def _lack(self) -> str:
        """Return what the host has too little of for all of it to work; "" when that is nothing."""
        if self.services.memory_guard.level is Level.CRITICAL:
            return _NO_MEMORY
        return self.services.disk_guard.room.lack

    async def _database(self) -> dict[str, JsonValue]:
        try:
            await self.services.database.check()
        except SandboxError as exc:
            return {"available": False, "reason": exc.message}
        return {"available": True, "reason": "the sandbox database can be written to"}

    def _policy(self) -> dict[str, JsonValue]:
        access = self.services.access
        access.current()
        if access.problem is None:
            return {"available": True, "reason": "the policy file is what is in force"}
        where = f" ({access.path}: {access.problem})" if self.caller.is_administrator else ""
        return {"available": False, "reason": _NO_POLICY + where}

    async def _places(self) -> JsonValue:
        """Give what is taken and what there is; null when the database does not say."""
        limits = self.services.lifecycle
        try:
            taken = await self.services.place_records.taken()
        except SandboxError:
            return None
        return {
            "live": taken.live,
            "live_total": limits.live_total,
            "running": taken.running,
            "running_total": limits.running_total,
            "waiting": self.services.places.waiting,
        }

    def _memory(self) -> JsonValue:
        guard = self.services.memory_guard
        if guard.memory is None:
            return None
        return {
            "level": str(guard.level),
            "available_bytes": guard.memory.available_bytes,
            "total_bytes": guard.memory.total_bytes,
        }

    async def _engine(self) -> dict[str, JsonValue]:
        engine = self.services.engine
        try:
            async with asyncio.timeout(_CHECK_SECONDS):
                health = await engine.check()
        except TimeoutError:
            silence = "the engine does not answer"
            return _engine_json(engine.name, False, silence, "", ())
        return _engine_json(
            engine.name, health.available, health.reason, health.version, health.warnings
        )


def _engine_json(
    name: str, available: bool, why: str, version: str, warnings: Sequence[str]
) -> dict[str, JsonValue]:
    return {
        "name": name,
        "available": available,
        "reason": why,
        "version": version,
        "warnings": [*warnings],
    }


def _steps(result: FiveStepsResult) -> list[dict[str, JsonValue]]:
    return [
        {
            "step": step.name,
            "ok": step.ok,
            "duration_seconds": step.seconds,
            "message": step.message,
            "advice": step.advice,
        }
        for step in result.steps
    ]


def _tier(limits: Sequence[Enforced]) -> JsonValue:
    """Give the tier; null when nothing runs whose limits could be read."""
    if not limits:
        return None
    tier = tier_of(limits)
    return {"name": str(tier), "text": describe(tier)}


def _limit(enforced: Enforced) -> JsonValue:
    return {
        "limit": enforced.limit,
        "strength": str(enforced.strength),
        "mechanism": enforced.mechanism,
        "value": enforced.value,
        "read_back": enforced.read_back,
        "advice": advice(enforced),
    }
