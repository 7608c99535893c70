"""The Alembic environment: what brings a database of an earlier version up to date."""
