"""Run by Alembic inside ``Database.open``: migrates over the connection it is given.

The caller owns the connection, its lock and its transaction; nothing here opens or commits one.
"""

from alembic import context

from jupyter_sandbox.stores.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,  # SQLite alters a table by copying it
)
context.run_migrations()
