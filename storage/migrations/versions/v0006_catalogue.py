"""The catalogue of what can be searched for and retrieved; `serve` enters what was kept before."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Add the tables, empty: only the files know what the rows of older versions lack."""
    uid, text = sa.String(64), sa.Text()
    study_texts = ("issuer", "patient_id", "patient_name", "patient_name_key", "birth_date", "sex")
    more_texts = ("accession_number", "study_id", "referring_physician", "referring_physician_key", "description")
    op.create_table(
        "catalogue_studies",
        sa.Column("key", sa.String(64), nullable=False),
        sa.Column("uid", uid, nullable=False),
        *(sa.Column(name, text, nullable=False) for name in study_texts),
        sa.Column("date", sa.String(8), nullable=False),
        sa.Column("time", sa.String(13), nullable=False),
        *(sa.Column(name, text, nullable=False) for name in (*more_texts, "timezone")),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_catalogue_studies")),
    )
    for name in ("uid", "patient_id", "accession_number"):
        op.create_index(op.f(f"ix_catalogue_studies_{name}"), "catalogue_studies", [name])
    op.create_index(op.f("ix_catalogue_studies_date_time"), "catalogue_studies", ["date", "time"])
    op.create_table(
        "catalogue",
        sa.Column("uid", uid, nullable=False),
        sa.Column("study_key", sa.String(64), nullable=False),
        *(sa.Column(name, uid, nullable=False) for name in ("series_uid", "sop_class_uid", "transfer_syntax_uid")),
        sa.Column("modality", text, nullable=False),
        sa.Column("series_number", sa.Integer(), nullable=True),
        *(sa.Column(name, text, nullable=False) for name in ("series_description", "laterality", "body_part")),
        sa.Column("performed_date", sa.String(8), nullable=False),
        sa.Column("performed_time", sa.String(13), nullable=False),
        *(sa.Column(name, text, nullable=False) for name in ("requested_procedure_id", "scheduled_step_id")),
        *(
            sa.Column(name, sa.Integer(), nullable=True)
            for name in ("instance_number", "rows", "columns", "bits_allocated", "frames")
        ),
        sa.ForeignKeyConstraint(["study_key"], ["catalogue_studies.key"], name=op.f("fk_catalogue_study_key")),
        sa.PrimaryKeyConstraint("uid", name=op.f("pk_catalogue")),
    )
    op.create_index(op.f("ix_catalogue_study_key"), "catalogue", ["study_key"])
    op.create_index(op.f("ix_catalogue_series_uid"), "catalogue", ["series_uid"])
