"""Indexes in the whole order of the lists that end at their limit: nothing is sorted, however many share a time."""

from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    """Let each replace the index of the times alone."""
    op.drop_index(op.f("ix_exams_last_image_at"), "exams")
    op.create_index(op.f("ix_exams_last_image_at_id"), "exams", ["last_image_at", "id"])
    op.drop_index(op.f("ix_catalogue_studies_date_time"), "catalogue_studies")
    op.create_index(op.f("ix_catalogue_studies_date_time_key"), "catalogue_studies", ["date", "time", "key"])
