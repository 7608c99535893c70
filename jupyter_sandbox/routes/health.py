"""``/sandbox/api/health``: whether sandboxes work here, and what holds them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

from ..errors import InvalidRequest, SandboxError
from ..models import Enforced, JsonValue
from ..policy.memory import Level
from ..policy.tiers import advice, describe, tier_of
from ..proxies import guest_sockets
from ..tools.five_steps import FiveStepsResult
from .base import SandboxHandler, endpoint

_CHECK_SECONDS = 20.0
_NO_MEMORY = (
    "the memory of the host is almost used up: no sandbox is started or woken until there is more"
)


class HealthHandler(SandboxHandler):
    """The engine, the limits, and with ``?deep=1`` five steps in a new conversation."""

    _track_activity = False
    needs_access = False  # monitoring goes on while the feature is off; the steps need it

    @endpoint
    async def get(self) -> None:
        """Give the report: 200 when all is well, else 503; the body is the same."""
        deep = self.get_query_argument("deep", "0")
        if deep not in ("0", "1"):
            raise InvalidRequest("deep: must be 0 or 1.")
        if deep == "1":
            self.require_access()
        engine = await self._engine()
        ok = bool(engine["available"])
        has_memory = self.services.memory_guard.level is not Level.CRITICAL
        database = await self._database()
        ok = ok and bool(database["available"])
        report: dict[str, JsonValue] = {
            "ok": ok and has_memory,
            "engine": engine,
            "database": database,
            "places": await self._places(),
            "memory": self._memory(),
            "sockets": guest_sockets.describe(),
        }
        limits: Sequence[Enforced] = ()
        steps: list[dict[str, JsonValue]] = []
        if deep == "1":
            result = await self.services.five_steps.run(self.owner)
            report["ok"] = ok and has_memory and result.ok
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
        why = engine["reason"] if has_memory else _NO_MEMORY
        if not database["available"]:
            why = database["reason"]
        self.answer({"code": code, "message": str([*failed, why][0]), **report}, 503)

    async def _database(self) -> dict[str, JsonValue]:
        try:
            await self.services.database.check()
        except SandboxError as exc:
            return {"available": False, "reason": exc.message}
        return {"available": True, "reason": "the sandbox database can be written to"}

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
