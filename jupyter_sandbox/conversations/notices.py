"""What a result tells after something happened to the sandbox: what was kept, what was lost."""

from __future__ import annotations

from ..policy.idle import in_words


def first_sandbox() -> str:
    """Give the notice of a conversation's first sandbox."""
    return (
        "[New sandbox: a private Linux machine for this conversation. "
        "Files and packages of other conversations are not here.]"
    )


def replaced_sandbox(why: str) -> str:
    """Give the notice of a sandbox made in place of one that was lost.

    Parameters
    ----------
    why : str
        Half a sentence, e.g. ``"it had been removed"``.
    """
    return (
        f"[The previous sandbox is gone ({why}); this is a new one. Lost: the workspace, installed "
        "packages, variables and background processes. Kept: uploads and shared files.]"
    )


def suspended_sandbox(because: str) -> str:
    """Give the line of the message stream on a sandbox that stands still from now on.

    Parameters
    ----------
    because : str
        Half a sentence, e.g. ``"it had not been used for 15 minutes"``.
    """
    return f"[The sandbox was suspended: {because}. Nothing is lost; the next use wakes it.]"


def woken_sandbox(slept_seconds: float | None = None, because: str = "") -> str:
    """Give the notice of a sandbox that was suspended and goes on.

    Parameters
    ----------
    slept_seconds : float or None
        How long it stood still; None: nobody knows.
    because : str
        Why: half a sentence.
    """
    slept = "" if slept_seconds is None else f" It stood still for {in_words(slept_seconds)}"
    why = f": {because}." if because and slept else "." if slept else ""
    return (
        f"[The sandbox was suspended and goes on now.{slept}{why} Kept: all files, packages, "
        "variables and processes. Connections to the outside may be broken; the clock has moved "
        "on.]"
    )


def resumed_sandbox() -> str:
    """Give the notice of a sandbox that stood still while it was used, and goes on."""
    return (
        "[The sandbox had been paused from outside this server and was resumed. Kept: all files, "
        "packages, variables and processes. Connections to the outside may be broken.]"
    )


def lost_files(lost: list[str]) -> str:
    """Give the notice of stored files that could not be put into the sandbox.

    Parameters
    ----------
    lost : list of str
        For each file its name and why.
    """
    return f"[Not in this sandbox: {'; '.join(lost)}.]"
