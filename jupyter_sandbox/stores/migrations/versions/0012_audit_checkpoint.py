"""The head of the audit log: its own seal, and up to where rows were removed for their age."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

_START = "0" * 64


def upgrade() -> None:
    op.add_column(
        "audit_head", sa.Column("head_seal", sa.String(64), nullable=False, server_default="")
    )
    op.add_column(
        "audit_head", sa.Column("pruned_number", sa.BigInteger, nullable=False, server_default="0")
    )
    op.add_column(
        "audit_head",
        sa.Column("pruned_seal", sa.String(64), nullable=False, server_default=_START),
    )


def downgrade() -> None:
    for name in ("pruned_seal", "pruned_number", "head_seal"):
        op.drop_column("audit_head", name)
