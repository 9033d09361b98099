"""Results know the form that is sent where they are refused."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the column; without a foreign key, which SQLite adds to a table only by copying it."""
    op.add_column("results", sa.Column("fallback_uid", sa.String(64), nullable=True))
