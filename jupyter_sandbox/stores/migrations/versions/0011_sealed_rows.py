"""Results and messages are sealed, and their bytes counted.

What is there stays in plain until the server has sealed it, in the background; it is counted now.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

_CALL_BYTES = 512  # of the rows of a call and of a message, as ``stores/kept_bytes.py`` has it
_MESSAGE_BYTES = 256


def upgrade() -> None:
    op.add_column("calls", sa.Column("sealed_result", sa.LargeBinary, nullable=True))
    op.add_column("calls", sa.Column("sealed_pictures", sa.LargeBinary, nullable=True))
    op.add_column("messages", sa.Column("sealed_body", sa.LargeBinary, nullable=True))
    for table, plain in (("calls", "result IS NOT NULL"), ("messages", "body != ''")):
        op.create_index(
            f"{table}_plain",
            table,
            ["conversation_id"],
            sqlite_where=sa.text(plain),
            postgresql_where=sa.text(plain),
        )
    op.create_table(
        "kept_bytes",
        sa.Column(
            "conversation_id",
            sa.String(36),
            sa.ForeignKey("conversations.conversation_id", ondelete="CASCADE"),
            primary_key=True,
        ),
        sa.Column("owner", sa.String(255), nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("calls", sa.BigInteger, nullable=False),
    )
    op.create_index("kept_bytes_by_owner", "kept_bytes", ["owner"])
    op.create_table(
        "kept_bytes_of_owners",
        sa.Column("owner", sa.String(255), primary_key=True),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
    )
    op.execute(
        f"""
        INSERT INTO kept_bytes (conversation_id, owner, size_bytes, calls)
        SELECT c.conversation_id, c.owner, COALESCE(k.size, 0) + COALESCE(m.size, 0),
               COALESCE(k.calls, 0)
        FROM conversations c
        LEFT JOIN (
            SELECT conversation_id, COUNT(*) AS calls,
                   SUM({_CALL_BYTES} + COALESCE(LENGTH(result), 0)) AS size
            FROM calls GROUP BY conversation_id
        ) k ON k.conversation_id = c.conversation_id
        LEFT JOIN (
            SELECT conversation_id, SUM({_MESSAGE_BYTES} + LENGTH(body)) AS size
            FROM messages GROUP BY conversation_id
        ) m ON m.conversation_id = c.conversation_id
        WHERE k.size IS NOT NULL OR m.size IS NOT NULL
        """
    )
    op.execute(
        """
        INSERT INTO kept_bytes_of_owners (owner, size_bytes)
        SELECT owner, SUM(size_bytes) FROM kept_bytes GROUP BY owner
        """
    )


def downgrade() -> None:
    raise NotImplementedError("what is sealed cannot be read by an earlier version")
