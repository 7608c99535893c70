"""The statements of the database, built once: SQLAlchemy then only looks up their compiled form.

The rule: every statement is atomic by itself; what must not be overtaken carries its condition in
the WHERE clause, and the row count says whether it held.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy import bindparam

from .schema import conversations, kept_bytes, shares, uploads

c = conversations.c
_ID = c.conversation_id == bindparam("id")


def _param(name: str) -> sa.BindParameter[Any]:
    return bindparam(f"new_{name}")


# --- conversations
INSERT_CONVERSATION = sa.insert(conversations)
SELECT_CONVERSATION = sa.select(conversations).where(_ID)
SELECT_BY_KEY = sa.select(conversations).where(
    c.owner == bindparam("owner"), c.key == bindparam("key")
)
SELECT_PAGE = (
    sa.select(conversations)
    .where(
        c.owner == bindparam("owner"),
        sa.or_(
            c.created_at < bindparam("before_at"),
            sa.and_(c.created_at == bindparam("before_at"), c.conversation_id < bindparam("id")),
        ),
    )
    .order_by(c.created_at.desc(), c.conversation_id.desc())
    .limit(bindparam("most", type_=sa.Integer))
)
SELECT_WITH_SANDBOX = sa.select(conversations).where(
    sa.or_(c.sandbox_id != "", c.state == "starting")
)
COUNT_BY_STATE = sa.select(c.state, sa.func.count()).group_by(c.state)
RENAME = sa.update(conversations).where(_ID).values(title=_param("title"))
DELETE_CONVERSATION = sa.delete(conversations).where(_ID)

# --- who provisions
_CLAIMED = sa.and_(_ID, c.state == "starting", c.claimed_by == bindparam("server"))
CLAIM = (
    sa.update(conversations)
    .where(
        _ID,
        sa.or_(
            c.state.in_(["absent", "terminated", "error"]),
            sa.and_(
                c.state == "starting",
                sa.or_(
                    c.claimed_until.is_(None),
                    c.claimed_until < bindparam("now"),
                    # Nobody takes one for so long: the clock was set back since.
                    c.claimed_until > bindparam("too_late"),
                    sa.and_(c.claimed_by != "", c.claimed_by == bindparam("ended")),
                ),
            ),
        ),
    )
    .values(state="starting", claimed_by=_param("server"), claimed_until=_param("until"))
)
EXTEND_CLAIM = sa.update(conversations).where(_CLAIMED).values(claimed_until=_param("until"))
GIVE_UP_CLAIM = (
    sa.update(conversations)
    .where(_CLAIMED)
    .values(state="error", claimed_by="", claimed_until=None)
)
SET_INTENT = sa.update(conversations).where(_CLAIMED).values(sandbox_id=_param("sandbox_id"))


_MOST_NOTICE = 8000  # characters: what is told after hundreds of rests that no call came between


def _more_notice(added: sa.BindParameter[Any]) -> sa.ColumnElement[str]:
    """Give the notice with another one behind it, on a line of its own; as it is if it is long."""
    joined = c.notice.concat("\n").concat(added)
    is_full = sa.func.length(c.notice) > _MOST_NOTICE
    return sa.case((sa.or_(added == "", is_full), c.notice), (c.notice == "", added), else_=joined)


SET_RUNNING = (
    sa.update(conversations)
    .where(_CLAIMED)
    .values(
        state="running",
        sandbox_id=_param("sandbox_id"),
        engine=_param("engine"),
        generation=_param("generation"),
        used_at=_param("used_at"),
        notice=_more_notice(bindparam("new_notice", type_=sa.Text)),
        claimed_by="",
        claimed_until=None,
    )
)
SET_STATE = (
    sa.update(conversations)
    .where(_ID, c.state.in_(bindparam("expected", expanding=True)))
    .values(state=_param("state"), claimed_by="", claimed_until=None)
)
SET_STATE_IF_UNUSED = SET_STATE.where(c.used_at <= bindparam("unused_since"))
LOSE_SANDBOX = (
    sa.update(conversations)
    .where(_ID, c.state.in_(["running", "suspended"]), c.sandbox_id == bindparam("lost_sandbox_id"))
    .values(state="terminated", claimed_by="", claimed_until=None)
)

# --- notices
SELECT_NOTICE = sa.select(c.notice).where(_ID)
CLEAR_NOTICE = sa.update(conversations).where(_ID, c.notice == bindparam("seen")).values(notice="")
ADD_NOTICE = (
    sa.update(conversations)
    .where(_ID)
    .values(notice=_more_notice(bindparam("new_notice", type_=sa.Text)))
)

# --- shares
_same_path = sa.and_(
    shares.c.conversation_id == bindparam("conversation_id"), shares.c.path == bindparam("path")
)
_next_version = sa.select(sa.func.coalesce(sa.func.max(shares.c.version), 0) + 1).where(_same_path)
INSERT_SHARE = sa.insert(shares)
SELECT_NEXT_VERSION = _next_version
SELECT_SHARES = (
    sa.select(shares)
    .where(shares.c.conversation_id == bindparam("conversation_id"))
    .order_by(shares.c.created_at.desc(), shares.c.version.desc())
)
SELECT_SHARE = (
    sa.select(shares)
    .where(
        _same_path,
        sa.or_(
            bindparam("version", type_=sa.Integer) == 0,
            shares.c.version == bindparam("version", type_=sa.Integer),
        ),
    )
    .order_by(shares.c.version.desc())
    .limit(1)
)


def _sum_and_count(table: sa.Table) -> list[sa.ScalarSelect[Any]]:
    mine = table.c.conversation_id == bindparam("conversation_id")
    size = sa.func.coalesce(sa.func.sum(table.c.size_bytes), 0)
    return [
        sa.select(size).where(mine).scalar_subquery(),
        sa.select(sa.func.count()).select_from(table).where(mine).scalar_subquery(),
    ]


_kept = sa.select(kept_bytes.c.size_bytes).where(
    kept_bytes.c.conversation_id == bindparam("conversation_id")
)
SELECT_USAGE = sa.select(
    *_sum_and_count(shares),
    *_sum_and_count(uploads),
    sa.func.coalesce(_kept.scalar_subquery(), 0),
)
