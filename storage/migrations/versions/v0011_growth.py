"""Indexes for what is asked often, however much there is: names of patients, results that wait."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Add the indexes."""
    waiting = sa.text("state = 'waiting'")
    op.create_index(
        "ix_deliveries_waiting",
        "deliveries",
        ["destination", "created_at"],
        sqlite_where=waiting,
        postgresql_where=waiting,
    )
    op.create_index(
        op.f("ix_catalogue_studies_patient_name_key"),
        "catalogue_studies",
        ["patient_name_key"],
        postgresql_ops={"patient_name_key": "text_pattern_ops"},
    )
