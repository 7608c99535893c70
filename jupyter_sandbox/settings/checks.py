"""Checks of settings: a wrong value ends the start, and the message names the setting."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from traitlets import TraitError


def name_of(proposal: Any) -> str:
    """Give the setting as an administrator writes it."""
    return f"{type(proposal.owner).__name__}.{proposal.trait.name}"


def require_positive(proposal: Any) -> Any:
    """Refuse zero and less."""
    if proposal.value <= 0:
        raise TraitError(f"{name_of(proposal)} must be more than 0")
    return proposal.value


def require_not_negative(proposal: Any) -> Any:
    """Refuse what is less than zero."""
    if proposal.value < 0:
        raise TraitError(f"{name_of(proposal)} must not be negative")
    return proposal.value


def require_at_least(proposal: Any, least: int) -> Any:
    """Refuse what is less."""
    if proposal.value < least:
        raise TraitError(f"{name_of(proposal)} must be at least {least}")
    return proposal.value


def require_within(proposal: Any, least: float, most: float) -> Any:
    """Refuse what is less, or more."""
    if not least <= proposal.value <= most:
        raise TraitError(f"{name_of(proposal)} must be {least:.0f} to {most:.0f}")
    return proposal.value


def require_each(proposal: Any, check: Callable[[str], object]) -> Any:
    """Refuse a list with an entry that ``check`` raises ValueError for."""
    for entry in proposal.value:
        try:
            check(entry)
        except ValueError as exc:
            raise TraitError(f"{name_of(proposal)}: {exc}") from None
    return proposal.value
