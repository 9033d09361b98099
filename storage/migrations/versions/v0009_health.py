"""What came of the self-tests; which workers are at work, and on what."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Add the tables; nothing was noted before."""
    moment = sa.DateTime(timezone=True)
    op.create_table(
        "selftests",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("started_at", moment, nullable=False),
        sa.Column("seconds", sa.Float(), nullable=False),
        sa.Column("passed", sa.Boolean(), nullable=False),
        sa.Column("phase", sa.String(16), nullable=False),
        sa.Column("cause", sa.Text(), nullable=False),
        sa.Column("exam", sa.String(16), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_selftests")),
    )
    op.create_table(
        "workers",
        sa.Column("owner", sa.String(300), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("model_digest", sa.String(64), nullable=False),
        sa.Column("device", sa.Text(), nullable=False),
        sa.Column("started_at", moment, nullable=False),
        sa.Column("seen_at", moment, nullable=False),
        sa.Column("gpu", sa.Text(), nullable=False),
        sa.Column("gpu_bytes_used", sa.BigInteger(), nullable=True),
        sa.Column("gpu_bytes", sa.BigInteger(), nullable=True),
        sa.Column("gpu_utilisation", sa.Float(), nullable=True),
        sa.PrimaryKeyConstraint("owner", name=op.f("pk_workers")),
    )
