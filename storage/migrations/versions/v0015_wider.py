"""Indexes that hold what is looked at in their order, so that the tables are not: studies by name, bytes by time."""

from alembic import op

revision = "0015"
down_revision = "0014"

IN_ORDER = ["date", "time", "key"]
NAMES = ["patient_name_key", "patient_id", "accession_number"]


def upgrade() -> None:
    """Widen SQLite's index of the newest studies, and add one of the images' sizes."""
    if op.get_bind().dialect.name == "sqlite":  # PostgreSQL would open the table all the same
        op.drop_index(op.f("ix_catalogue_studies_date_time_key"), "catalogue_studies")
        op.create_index("ix_catalogue_studies_newest", "catalogue_studies", IN_ORDER + NAMES)
    op.create_index(op.f("ix_instances_received_at_size"), "instances", ["received_at", "size"])
