"""Workitems, and who watches them (UPS)."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Add the tables; `serve` enters the exams that there are."""
    uid, text, moment = sa.String(64), sa.Text(), sa.DateTime(timezone=True)
    op.create_table(
        "workitems",
        sa.Column("uid", uid, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("exam_id", sa.Integer(), nullable=True),
        sa.Column("revision", sa.Integer(), nullable=True),
        sa.Column("study_uid", uid, nullable=False),
        sa.Column("patient_id", text, nullable=False),
        sa.Column("patient_name_key", text, nullable=False),
        sa.Column("priority", sa.String(16), nullable=False),
        sa.Column("label", text, nullable=False),
        sa.Column("worklist", text, nullable=False),
        sa.Column("scheduled_for", sa.String(14), nullable=False),
        sa.Column("ready", sa.String(16), nullable=False),
        sa.Column("requested_by", text, nullable=True),
        sa.Column("request", sa.JSON(), nullable=True),
        sa.Column("retrieve_url", text, nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("not_before", moment, nullable=False),
        sa.Column("cancel_requested_by", text, nullable=True),
        sa.Column("reason", text, nullable=False),
        *(sa.Column(name, moment, nullable=False) for name in ("created_at", "modified_at")),
        *(sa.Column(name, moment, nullable=True) for name in ("started_at", "finished_at")),
        sa.ForeignKeyConstraint(["exam_id"], ["exams.id"], name=op.f("fk_workitems_exam_id")),
        sa.PrimaryKeyConstraint("uid", name=op.f("pk_workitems")),
    )
    op.create_index(op.f("ix_workitems_state"), "workitems", ["state"])
    op.create_index(op.f("ix_workitems_study_uid"), "workitems", ["study_uid"])
    op.create_index(op.f("ix_workitems_exam_id_revision"), "workitems", ["exam_id", "revision"])
    op.create_table(
        "workitem_events",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("workitem_uid", uid, nullable=False),
        sa.Column("type", sa.Integer(), nullable=False),
        sa.Column("content", sa.JSON(), nullable=False),
        sa.Column("happened_at", moment, nullable=False),
        sa.Column("only_for", text, nullable=True),
        sa.ForeignKeyConstraint(["workitem_uid"], ["workitems.uid"], name=op.f("fk_workitem_events_workitem_uid")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_workitem_events")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_workitem_events_happened_at"), "workitem_events", ["happened_at"])
    op.create_table(
        "subscriptions",
        sa.Column("ae_title", sa.String(16), nullable=False),
        sa.Column("workitem_uid", uid, nullable=False),
        sa.Column("deletion_lock", sa.Boolean(), nullable=False),
        sa.Column("after", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("ae_title", "workitem_uid", name=op.f("pk_subscriptions")),
    )
    op.create_table(
        "subscribers",
        sa.Column("ae_title", sa.String(16), nullable=False),
        sa.Column("told", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("ae_title", name=op.f("pk_subscribers")),
    )
