"""Indexes for how long the last readings took, which a page of exams tells, and for the order of workitems."""

from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    """Add them."""
    op.create_index(op.f("ix_jobs_finished_at"), "jobs", ["finished_at"])
    op.create_index(op.f("ix_workitems_created_at_uid"), "workitems", ["created_at", "uid"])
