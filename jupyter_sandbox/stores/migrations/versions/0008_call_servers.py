"""Which server process runs a call, and how long the call may take: for the server after it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_RUNNING = sa.text("state = 'running'")


def upgrade() -> None:
    op.add_column("calls", sa.Column("server", sa.String(64), nullable=False, server_default=""))
    op.add_column("calls", sa.Column("timeout_seconds", sa.Float, nullable=True))
    op.create_index(
        "calls_running",
        "calls",
        ["conversation_id"],
        sqlite_where=_RUNNING,
        postgresql_where=_RUNNING,
    )


def downgrade() -> None:
    op.drop_index("calls_running", "calls")
    with op.batch_alter_table("calls") as table:
        table.drop_column("timeout_seconds")
        table.drop_column("server")
