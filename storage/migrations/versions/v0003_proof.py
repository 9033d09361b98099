"""Deliveries know when they were sent and proven; paused lanes; Storage Commitment both ways."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add columns and tables; what was accepted before was sent when it ended, and no proof of it is asked for."""
    moment = sa.DateTime(timezone=True)
    op.add_column("jobs", sa.Column("suspicion", sa.Float(), nullable=True))
    op.add_column("deliveries", sa.Column("sent_at", moment, nullable=True))
    op.add_column("deliveries", sa.Column("proven_at", moment, nullable=True))
    op.add_column("deliveries", sa.Column("proofs", sa.Integer(), nullable=False, server_default="0"))
    op.execute("UPDATE deliveries SET sent_at = finished_at WHERE state = 'sent'")
    op.create_table(
        "lanes",
        sa.Column("destination", sa.Text(), nullable=False),
        sa.Column("paused_at", moment, nullable=False),
        sa.Column("paused_by", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("destination", name=op.f("pk_lanes")),
    )
    op.create_table(
        "commitments",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("transaction_uid", sa.String(64), nullable=False),
        sa.Column("destination", sa.Text(), nullable=False),
        sa.Column("asked_at", moment, nullable=False),
        sa.Column("answered_at", moment, nullable=True),
        sa.Column("message", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_commitments")),
        sa.UniqueConstraint("transaction_uid", name=op.f("uq_commitments_transaction_uid")),
    )
    op.create_table(
        "commitment_items",
        sa.Column("commitment_id", sa.Integer(), nullable=False),
        sa.Column("delivery_id", sa.Integer(), nullable=False),
        sa.Column("reason", sa.Integer(), nullable=True),
        sa.ForeignKeyConstraint(["commitment_id"], ["commitments.id"], name=op.f("fk_commitment_items_commitment_id")),
        sa.ForeignKeyConstraint(["delivery_id"], ["deliveries.id"], name=op.f("fk_commitment_items_delivery_id")),
        sa.PrimaryKeyConstraint("commitment_id", "delivery_id", name=op.f("pk_commitment_items")),
    )
    op.create_index(op.f("ix_commitment_items_delivery_id"), "commitment_items", ["delivery_id"])
    op.create_table(
        "commitment_requests",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("transaction_uid", sa.String(64), nullable=False),
        sa.Column("calling_ae", sa.Text(), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("items", sa.JSON(), nullable=False),
        sa.Column("duplicate", sa.Boolean(), nullable=False),
        sa.Column("asked_at", moment, nullable=False),
        sa.Column("not_before", moment, nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("reported_at", moment, nullable=True),
        sa.Column("finished_at", moment, nullable=True),
        sa.Column("message", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_commitment_requests")),
    )
    op.create_index(op.f("ix_commitment_requests_transaction_uid"), "commitment_requests", ["transaction_uid"])
    op.create_index(op.f("ix_commitment_requests_finished_at"), "commitment_requests", ["finished_at"])
