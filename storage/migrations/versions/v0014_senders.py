"""An index for whose images there are, which a page of exams lets choose."""

from alembic import op

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    """Add it."""
    op.create_index(op.f("ix_instances_calling_ae"), "instances", ["calling_ae"])
