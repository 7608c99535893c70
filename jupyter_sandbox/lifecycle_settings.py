"""Settings of administrators on the life of sandboxes: when they rest, when they end, how many."""

from __future__ import annotations

from typing import Any

from traitlets import Float, TraitError, validate
from traitlets.config import Configurable

from .models import Lifecycle

_LONGEST_SECONDS = 10 * 366 * 86400.0


class SandboxLifecycle(Configurable):
    """When a sandbox that nobody uses is suspended and ended."""

    suspend_seconds = Float(
        900.0,
        help="A sandbox that was not used for so long stands still until its next use, in seconds; "
        "nothing is lost. 0: never. Less frees processors (and memory, where the engine can) "
        "earlier; a use that wakes it takes some milliseconds more.",
    ).tag(config=True)
    terminate_seconds = Float(
        30 * 86400.0,
        help="A sandbox that was not used for so long is ended, in seconds: its workspace, "
        "packages and variables are lost; uploads and shared files stay. 0: never. Less frees "
        "memory and disk.",
    ).tag(config=True)

    @validate("suspend_seconds", "terminate_seconds")
    def _bounded(self, proposal: Any) -> Any:
        if not 0 <= proposal.value <= _LONGEST_SECONDS:
            name = f"SandboxLifecycle.{proposal.trait.name}"
            raise TraitError(f"{name} must be 0 (never) to {_LONGEST_SECONDS:.0f}")
        return proposal.value

    def to_lifecycle(self) -> Lifecycle:
        """Give them as data."""
        return Lifecycle(**{name: getattr(self, name) for name in self.trait_names(config=True)})
