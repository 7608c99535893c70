"""The tables, as SQLAlchemy Core sees them.

The rule: every change here has a migration in ``migrations/versions`` (a test compares the two) and
a new ``HEAD``. Times are whole microseconds since 1970 (they sort and compare everywhere alike) and
come back as aware UTC.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import sqlalchemy as sa

HEAD = "0012"
"""The newest revision in ``migrations/versions``."""

metadata = sa.MetaData()

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

conversations = sa.Table(
    "conversations",
    metadata,
    sa.Column("conversation_id", sa.String(36), primary_key=True),
    sa.Column("owner", sa.String(255), nullable=False),
    sa.Column("title", sa.Text, nullable=False),
    sa.Column("key", sa.String(255), nullable=True),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("used_at", sa.BigInteger, nullable=False),
    sa.Column("engine", sa.String(64), nullable=False),
    sa.Column("sandbox_id", sa.String(32), nullable=False),
    sa.Column("generation", sa.Integer, nullable=False),
    sa.Column("notice", sa.Text, nullable=False),
    sa.Column("claimed_by", sa.String(64), nullable=False),
    sa.Column("claimed_until", sa.BigInteger, nullable=True),
    sa.Column("busy_at", sa.BigInteger, nullable=True),
    sa.Column("keep_awake_until", sa.BigInteger, nullable=True),
    sa.Column("suspend_seconds", sa.Float, nullable=True),
    sa.Column("terminate_seconds", sa.Float, nullable=True),
    sa.Column("suspended_at", sa.BigInteger, nullable=True),
    sa.Column("suspended_because", sa.String(200), nullable=True),
    # NULL keys are distinct from each other: conversations without a key are unlimited.
    sa.UniqueConstraint("owner", "key", name="conversations_owner_key"),
    sa.Index("conversations_by_owner", "owner", "created_at", "conversation_id"),
)

calls = sa.Table(
    "calls",
    metadata,
    sa.Column("call_id", sa.String(36), primary_key=True),
    sa.Column(
        "conversation_id",
        sa.String(36),
        sa.ForeignKey("conversations.conversation_id", ondelete="CASCADE"),
        nullable=False,
    ),
    sa.Column("tool", sa.String(64), nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("started_at", sa.BigInteger, nullable=False),
    sa.Column("finished_at", sa.BigInteger, nullable=True),
    sa.Column("result", sa.Text, nullable=True),
    # The process that runs it, as ``ServerMarks`` names it.
    sa.Column("server", sa.String(64), nullable=False, server_default=""),
    sa.Column("timeout_seconds", sa.Float, nullable=True),
    # ``result`` is of an earlier version, in plain. One that is over and has neither is not kept.
    sa.Column("sealed_result", sa.LargeBinary, nullable=True),
    sa.Column("sealed_pictures", sa.LargeBinary, nullable=True),
    sa.Index("calls_by_conversation", "conversation_id", "started_at"),
    # A few rows at any time: calls that are short are written when they are over.
    sa.Index(
        "calls_running",
        "conversation_id",
        sqlite_where=sa.text("state = 'running'"),
        postgresql_where=sa.text("state = 'running'"),
    ),
    # Empty once all are sealed.
    sa.Index(
        "calls_plain",
        "conversation_id",
        sqlite_where=sa.text("result IS NOT NULL"),
        postgresql_where=sa.text("result IS NOT NULL"),
    ),
)

shares = sa.Table(
    "shares",
    metadata,
    sa.Column("share_id", sa.String(36), primary_key=True),
    sa.Column(
        "conversation_id",
        sa.String(36),
        sa.ForeignKey("conversations.conversation_id", ondelete="CASCADE"),
        nullable=False,
    ),
    sa.Column("path", sa.Text, nullable=False),
    sa.Column("name", sa.String(255), nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    sa.Column("sha256", sa.String(64), nullable=False),
    sa.Column("media_type", sa.String(127), nullable=False),
    sa.Column("preview", sa.String(16), nullable=False),
    sa.Column("stored_name", sa.String(64), nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.UniqueConstraint("conversation_id", "path", "version", name="shares_path_version"),
)

uploads = sa.Table(
    "uploads",
    metadata,
    sa.Column("upload_id", sa.String(36), primary_key=True),
    sa.Column(
        "conversation_id",
        sa.String(36),
        sa.ForeignKey("conversations.conversation_id", ondelete="CASCADE"),
        nullable=False,
    ),
    sa.Column("name", sa.String(255), nullable=False),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    sa.Column("sha256", sa.String(64), nullable=False),
    sa.Column("media_type", sa.String(127), nullable=False),
    sa.Column("preview", sa.String(16), nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.UniqueConstraint("conversation_id", "name", name="uploads_name"),
)

conversation_keys = sa.Table(
    "conversation_keys",
    metadata,
    sa.Column(
        "conversation_id",
        sa.String(36),
        sa.ForeignKey("conversations.conversation_id", ondelete="CASCADE"),
        primary_key=True,
    ),
    sa.Column("master_key_id", sa.String(32), nullable=False),
    sa.Column("wrapped_key", sa.LargeBinary(64), nullable=False),
)

messages = sa.Table(
    "messages",
    metadata,
    sa.Column(
        "conversation_id",
        sa.String(36),
        sa.ForeignKey("conversations.conversation_id", ondelete="CASCADE"),
        primary_key=True,
    ),
    sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("at", sa.BigInteger, nullable=False),
    sa.Column("body", sa.Text, nullable=False),  # "" where it is sealed
    # Bytes of this body and all before it, also of those that are no longer kept.
    sa.Column("upto_bytes", sa.BigInteger, nullable=False),
    sa.Column("sealed_body", sa.LargeBinary, nullable=True),
    sa.Index(
        "messages_plain",
        "conversation_id",
        sqlite_where=sa.text("body != ''"),
        postgresql_where=sa.text("body != ''"),
    ),
)

kept_bytes = sa.Table(  # of calls and messages, with their rows: changed together with them
    "kept_bytes",
    metadata,
    sa.Column(
        "conversation_id",
        sa.String(36),
        sa.ForeignKey("conversations.conversation_id", ondelete="CASCADE"),
        primary_key=True,
    ),
    sa.Column("owner", sa.String(255), nullable=False),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    sa.Column("calls", sa.BigInteger, nullable=False),
    sa.Index("kept_bytes_by_owner", "owner"),
)

kept_bytes_of_owners = sa.Table(
    "kept_bytes_of_owners",
    metadata,
    sa.Column("owner", sa.String(255), primary_key=True),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
)

pool_sandboxes = sa.Table(
    "pool_sandboxes",
    metadata,
    sa.Column("sandbox_id", sa.String(32), primary_key=True),
    sa.Column("installation", sa.String(32), nullable=False),
    sa.Column("engine", sa.String(64), nullable=False),
    sa.Column("recipe", sa.String(64), nullable=False),
    sa.Column("holder", sa.String(64), nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
)

audit = sa.Table(
    "audit",
    metadata,
    sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("at", sa.BigInteger, nullable=False),
    sa.Column("action", sa.String(32), nullable=False),
    sa.Column("actor", sa.String(255), nullable=False),
    sa.Column("conversation_id", sa.String(36), nullable=False),  # it outlives its conversation
    sa.Column("detail", sa.Text, nullable=False),
    sa.Column("seal", sa.String(64), nullable=False),
)

audit_head = sa.Table(
    "audit_head",
    metadata,
    sa.Column("one", sa.Integer, primary_key=True, autoincrement=False),  # always 1
    sa.Column("number", sa.BigInteger, nullable=False),
    sa.Column("seal", sa.String(64), nullable=False),
    sa.Column("master_key_id", sa.String(32), nullable=False),
    sa.Column("wrapped_key", sa.LargeBinary(64), nullable=False),
    # Over the other numbers and seals: none can be set back without the key.
    sa.Column("head_seal", sa.String(64), nullable=False, server_default=""),
    # The last row that was removed for its age, and its seal: the chain goes on from there.
    sa.Column("pruned_number", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("pruned_seal", sa.String(64), nullable=False, server_default="0" * 64),
)

leases = sa.Table(
    "leases",
    metadata,
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("holder", sa.String(64), nullable=False),
    sa.Column("until", sa.BigInteger, nullable=False),
)

installation = sa.Table(
    "installation",
    metadata,
    sa.Column("one", sa.Integer, primary_key=True, autoincrement=False),  # always 1
    sa.Column("server_id", sa.String(64), nullable=False),
)


jupyter_sessions = sa.Table(
    "jupyter_sessions",
    metadata,
    sa.Column("session_id", sa.String(36), primary_key=True),
    sa.Column(
        "conversation_id",
        sa.String(36),
        sa.ForeignKey("conversations.conversation_id", ondelete="CASCADE"),
        nullable=False,
    ),
    sa.Column("kernel_id", sa.String(36), nullable=False),
    sa.Column("path", sa.Text, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Index("jupyter_sessions_by_conversation", "conversation_id", "created_at"),
)


def to_microseconds(moment: datetime) -> int:
    """Give the column value of an aware time."""
    return (moment - _EPOCH) // _MICROSECOND


def from_microseconds(value: int) -> datetime:
    """Give the aware UTC time of a column value."""
    return _EPOCH + value * _MICROSECOND
