"""What decides when a conversation's sandbox rests and ends."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("conversations", sa.Column("busy_at", sa.BigInteger, nullable=True))
    op.add_column("conversations", sa.Column("keep_awake_until", sa.BigInteger, nullable=True))
    op.add_column("conversations", sa.Column("suspend_seconds", sa.Float, nullable=True))
    op.add_column("conversations", sa.Column("terminate_seconds", sa.Float, nullable=True))
    op.add_column("conversations", sa.Column("suspended_at", sa.BigInteger, nullable=True))
    op.add_column("conversations", sa.Column("suspended_because", sa.String(200), nullable=True))


def downgrade() -> None:
    for name in (
        *("busy_at", "keep_awake_until", "suspend_seconds", "terminate_seconds"),
        *("suspended_at", "suspended_because"),
    ):
        op.drop_column("conversations", name)
