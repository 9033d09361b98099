"""Rejection notes take images back; conflicts are decided; exams move."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add tables and columns; an identity conflict whose exam is not held was decided for the first copy."""
    moment = sa.DateTime(timezone=True)
    op.create_table(
        "withdrawals",
        sa.Column("instance_uid", sa.String(64), nullable=False),
        sa.Column("note_uid", sa.String(64), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("received_at", moment, nullable=False),
        sa.ForeignKeyConstraint(["note_uid"], ["instances.uid"], name=op.f("fk_withdrawals_note_uid")),
        sa.PrimaryKeyConstraint("instance_uid", name=op.f("pk_withdrawals")),
    )
    op.create_index(op.f("ix_withdrawals_note_uid"), "withdrawals", ["note_uid"])
    op.create_table(
        "moves",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("exam_id", sa.Integer(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("into_exam_id", sa.Integer(), nullable=False),
        sa.Column("into_revision", sa.Integer(), nullable=False),
        sa.Column("moved_at", moment, nullable=False),
        sa.ForeignKeyConstraint(["exam_id"], ["exams.id"], name=op.f("fk_moves_exam_id")),
        sa.ForeignKeyConstraint(["into_exam_id"], ["exams.id"], name=op.f("fk_moves_into_exam_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_moves")),
    )
    op.create_index(op.f("ix_moves_into_exam_id"), "moves", ["into_exam_id"])
    op.add_column("conflicts", sa.Column("state", sa.String(16), nullable=False, server_default="open"))
    op.add_column("conflicts", sa.Column("decided_at", moment, nullable=True))
    op.execute(
        "UPDATE conflicts SET state = 'rejected' WHERE identity_changed AND NOT EXISTS (SELECT 1 FROM instances"
        " JOIN exams ON exams.patient_id = instances.patient_id AND exams.study_uid = instances.study_uid"
        " WHERE instances.uid = conflicts.instance_uid AND exams.held)"
    )
