"""Exams, their readings and what came of them; readings as workitems of others."""

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from storage.states import ExamState, JobState, Plan, StepState
from storage.tables.columns import UID, HeaderText, Moment, metadata, states

exams = Table(
    "exams",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("uid", String(16), nullable=False, unique=True),
    Column("patient_id", ForeignKey("patients.id"), nullable=False),
    Column("study_uid", ForeignKey("studies.uid"), nullable=False, index=True),
    Column("state", states(ExamState), nullable=False, index=True),
    Column("revision", Integer, nullable=False),
    Column("arrivals", Integer, nullable=False),
    Column("opened_at", Moment, nullable=False),
    Column("last_image_at", Moment, nullable=False),
    Column("due_at", Moment),
    Column("status", String(32)),
    Column("reasons", JSON, nullable=False),
    Column("held", Boolean, nullable=False),
    UniqueConstraint("patient_id", "study_uid"),
    Index(None, "last_image_at", "id"),
)

# Exams whose images all became another's when an identity was corrected (rule R6).
moves = Table(
    "moves",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("exam_id", ForeignKey("exams.id"), nullable=False),
    Column("revision", Integer, nullable=False),
    Column("into_exam_id", ForeignKey("exams.id"), nullable=False, index=True),
    Column("into_revision", Integer, nullable=False),
    Column("moved_at", Moment, nullable=False),
)

exam_images = Table(
    "exam_images",
    metadata,
    Column("exam_id", ForeignKey("exams.id"), primary_key=True),
    Column("revision", Integer, primary_key=True),
    Column("instance_uid", ForeignKey("instances.uid"), primary_key=True),
    Column("view", String(16)),
    Column("chosen", Boolean, nullable=False),
    Column("reason", Text, nullable=False),
)

CLAIMABLE = text("state IN ('queued', 'running')")
"""Said in a statement in the same words, it lets SQLite use the index of just these."""

jobs = Table(
    "jobs",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("exam_id", ForeignKey("exams.id"), nullable=False),
    Column("revision", Integer, nullable=False),
    Column("model_digest", String(64), nullable=False),
    Column("state", states(JobState), nullable=False),
    Column("plan", states(Plan), nullable=False),
    Column("reasons", JSON, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("last_resorts", Integer, nullable=False),
    Column("not_before", Moment, nullable=False),
    Column("lease_owner", Text),
    Column("lease_until", Moment),
    Column("created_at", Moment, nullable=False),
    Column("started_at", Moment),
    Column("finished_at", Moment, index=True),
    Column("error", HeaderText),
    Column("answer", String(32)),
    Column("timings", JSON),
    Column("suspicion", Float),
    UniqueConstraint("exam_id", "revision", "model_digest"),
    # Workers ask every fraction of a second; done jobs only grow in number.
    Index("ix_jobs_claimable", "not_before", "id"),  # of CLAIMABLE alone, as its migration says (as in deliveries)
)

results = Table(
    "results",
    metadata,
    Column("uid", UID, primary_key=True),
    Column("job_id", ForeignKey("jobs.id"), nullable=False, index=True),
    Column("kind", String(16), nullable=False),
    Column("sop_class_uid", UID, nullable=False),
    Column("series_uid", UID, nullable=False),
    Column("study_uid", UID, nullable=False),
    Column("image_uid", UID),
    Column("path", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("fallback_uid", UID),
)

# Pictures for people that a worker has made of the images that it read; mirrored as they are hung.
previews = Table(
    "previews",
    metadata,
    Column("job_id", ForeignKey("jobs.id"), primary_key=True),
    Column("image_uid", UID, primary_key=True),
    Column("kind", String(16), primary_key=True),
    Column("path", Text, nullable=False),
    Column("sideways", Boolean, nullable=False),
    Column("upright", Boolean, nullable=False),
)

# A row for each worker that is at work: it says so every few seconds, and takes its row away when it ends.
workers = Table(
    "workers",
    metadata,
    Column("owner", String(300), primary_key=True),
    Column("model", Text, nullable=False),
    Column("model_digest", String(64), nullable=False),
    Column("device", Text, nullable=False),
    Column("started_at", Moment, nullable=False),
    Column("seen_at", Moment, nullable=False),
    Column("gpu", Text, nullable=False),
    Column("gpu_bytes_used", BigInteger),
    Column("gpu_bytes", BigInteger),
    Column("gpu_utilisation", Float),
)

selftests = Table(
    "selftests",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("started_at", Moment, nullable=False),
    Column("seconds", Float, nullable=False),
    Column("passed", Boolean, nullable=False),
    Column("phase", String(16), nullable=False),
    Column("cause", Text, nullable=False),
    Column("exam", String(16), nullable=False),
)

# Readings as others see them (UPS, PS3.4 CC): each exam revision's, and those that others have asked for.
workitems = Table(
    "workitems",
    metadata,
    Column("uid", UID, primary_key=True),
    Column("state", states(StepState), nullable=False, index=True),
    Column("exam_id", ForeignKey("exams.id")),
    Column("revision", Integer),
    Column("study_uid", UID, nullable=False, index=True),
    Column("patient_id", HeaderText, nullable=False),
    Column("patient_name_key", HeaderText, nullable=False),
    Column("priority", String(16), nullable=False),
    Column("label", HeaderText, nullable=False),
    Column("worklist", HeaderText, nullable=False),
    Column("scheduled_for", String(14), nullable=False),
    Column("ready", String(16), nullable=False),
    Column("requested_by", HeaderText),
    Column("request", JSON),
    Column("retrieve_url", Text),
    Column("attempts", Integer, nullable=False),
    Column("not_before", Moment, nullable=False),
    Column("first_attempt_at", Moment),
    Column("cancel_requested_by", HeaderText),
    Column("reason", HeaderText, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("modified_at", Moment, nullable=False),
    Column("started_at", Moment),
    Column("finished_at", Moment),
    Index(None, "exam_id", "revision"),
    Index(None, "created_at", "uid"),
)

# What subscribers are told; one row for all of them, or for one.
workitem_events = Table(
    "workitem_events",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("workitem_uid", ForeignKey("workitems.uid"), nullable=False),
    Column("type", Integer, nullable=False),
    Column("content", JSON, nullable=False),
    Column("happened_at", Moment, nullable=False, index=True),
    Column("only_for", HeaderText),
    sqlite_autoincrement=True,
)

subscriptions = Table(
    "subscriptions",
    metadata,
    Column("ae_title", String(16), primary_key=True),
    Column("workitem_uid", UID, primary_key=True),
    Column("deletion_lock", Boolean, nullable=False),
    Column("after", Integer, nullable=False),
)

subscribers = Table(
    "subscribers",
    metadata,
    Column("ae_title", String(16), primary_key=True),
    Column("told", Integer, nullable=False),
)
