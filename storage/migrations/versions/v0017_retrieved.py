"""Workitems know when their study was first tried to get: from then on it is counted how long it is tried."""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    """Add the column; those that wait are tried as long as others from their next try on."""
    op.add_column("workitems", sa.Column("first_attempt_at", sa.DateTime(timezone=True), nullable=True))
