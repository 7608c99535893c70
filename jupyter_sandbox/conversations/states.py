"""The states of a conversation's sandbox and the moves between them, as a table.

``absent → starting → running ⇄ suspended → terminated``, plus ``error``. A state moves
only in the database, by a statement that names the states it may come from.
"""

from __future__ import annotations

import enum


class State(enum.StrEnum):
    """Where a conversation's sandbox is in its life."""

    ABSENT = "absent"
    STARTING = "starting"
    RUNNING = "running"
    SUSPENDED = "suspended"
    TERMINATED = "terminated"
    ERROR = "error"


MOVES: dict[State, frozenset[State]] = {
    State.ABSENT: frozenset({State.STARTING}),
    State.STARTING: frozenset({State.RUNNING, State.ERROR, State.STARTING}),
    State.RUNNING: frozenset({State.SUSPENDED, State.TERMINATED, State.ERROR}),
    State.SUSPENDED: frozenset({State.RUNNING, State.TERMINATED, State.ERROR}),
    State.TERMINATED: frozenset({State.STARTING}),
    State.ERROR: frozenset({State.STARTING, State.TERMINATED}),
}

#: States from which a call provisions a new sandbox.
PROVISIONABLE = frozenset(
    state for state, after in MOVES.items() if State.STARTING in after and state != State.STARTING
)
