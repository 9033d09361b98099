"""The tables, alike on SQLite and PostgreSQL; ``migrations`` makes them."""

from datetime import UTC, datetime
from enum import StrEnum

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Dialect,
    Enum,
    Float,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    text,
)

from storage.states import ConflictState, DeliveryState, ExamState, JobState, Plan, StepState

UID = String(64)
"""A UID has at most 64 characters (PS3.5 9.1)."""


class Moment(TypeDecorator[datetime]):
    """An aware time, in UTC on the way in and out; SQLite has no time zones, so there it is kept without."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Turn to UTC and refuse a naive time."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"naive time {value}")
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return an aware time in UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if dialect.name == "sqlite" else value.astimezone(UTC)


class HeaderText(TypeDecorator[str]):
    """Text from a DICOM header, without what a database cannot keep: NUL (PostgreSQL) and lone surrogates (both)."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:  # noqa: ARG002  (the interface)
        """Drop NUL and replace lone surrogates."""
        return None if value is None else value.replace("\0", "").encode("utf-8", "replace").decode()


def _states(states: type[StrEnum]) -> Enum:
    return Enum(states, native_enum=False, length=16, values_callable=lambda kind: [state.value for state in kind])


metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

installation = Table(
    "installation",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("uid", String(32), nullable=False),
)

patients = Table(
    "patients",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("issuer", HeaderText, nullable=False),
    Column("patient_id", HeaderText, nullable=False),
    Column("name", HeaderText, nullable=False),
    Column("birth_date", HeaderText, nullable=False),
    Column("sex", HeaderText, nullable=False),
    UniqueConstraint("issuer", "patient_id"),
)

studies = Table(
    "studies",
    metadata,
    Column("uid", UID, primary_key=True),
    Column("patient_id", ForeignKey("patients.id"), nullable=False, index=True),
    Column("date", HeaderText, nullable=False),
    Column("time", HeaderText, nullable=False),
    Column("accession_number", HeaderText, nullable=False),
    Column("description", HeaderText, nullable=False),
)

series = Table(
    "series",
    metadata,
    Column("uid", UID, primary_key=True),
    Column("study_uid", ForeignKey("studies.uid"), nullable=False, index=True),
    Column("modality", HeaderText, nullable=False),
    Column("number", Integer),
    Column("description", HeaderText, nullable=False),
)

# An instance has its own patient and study beside its series, because senders do use one Study or Series UID twice:
# the exam key (rule R5) is what the instance itself says.
instances = Table(
    "instances",
    metadata,
    Column("uid", UID, primary_key=True),
    Column("patient_id", ForeignKey("patients.id"), nullable=False),
    Column("study_uid", ForeignKey("studies.uid"), nullable=False),
    Column("series_uid", ForeignKey("series.uid"), nullable=False, index=True),
    Column("sop_class_uid", UID, nullable=False),
    Column("transfer_syntax_uid", UID, nullable=False),
    Column("path", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("digest", String(64), nullable=False),
    Column("received_at", Moment, nullable=False),
    Column("calling_ae", HeaderText, nullable=False),
    Column("origin", HeaderText, nullable=False),
    Column("kind", String(32), nullable=False),
    Column("laterality", HeaderText),
    Column("view_position", HeaderText),
    Column("usable", Boolean, nullable=False),
    Column("opens_exam", Boolean, nullable=False),
    Column("own", Boolean, nullable=False),
    Column("acquired_at", HeaderText, nullable=False),
    Column("instance_number", Integer),
    Column("reasons", JSON, nullable=False),
    Index(None, "patient_id", "study_uid"),
    Index(None, "study_uid"),
)

# What can be searched for and retrieved, as each header says (storage.catalogue).
catalogue_studies = Table(
    "catalogue_studies",
    metadata,
    Column("key", String(64), primary_key=True),
    Column("uid", UID, nullable=False, index=True),
    Column("issuer", HeaderText, nullable=False),
    Column("patient_id", HeaderText, nullable=False, index=True),
    Column("patient_name", HeaderText, nullable=False),
    Column("patient_name_key", HeaderText, nullable=False),
    Column("birth_date", HeaderText, nullable=False),
    Column("sex", HeaderText, nullable=False),
    Column("date", String(8), nullable=False),
    Column("time", String(13), nullable=False),
    Column("accession_number", HeaderText, nullable=False, index=True),
    Column("study_id", HeaderText, nullable=False),
    Column("referring_physician", HeaderText, nullable=False),
    Column("referring_physician_key", HeaderText, nullable=False),
    Column("description", HeaderText, nullable=False),
    Column("timezone", HeaderText, nullable=False),
    Index(None, "date", "time"),
)

catalogue = Table(
    "catalogue",
    metadata,
    Column("uid", UID, primary_key=True),
    Column("study_key", ForeignKey("catalogue_studies.key"), nullable=False, index=True),
    Column("series_uid", UID, nullable=False, index=True),
    Column("sop_class_uid", UID, nullable=False),
    Column("transfer_syntax_uid", UID, nullable=False),
    Column("modality", HeaderText, nullable=False),
    Column("series_number", Integer),
    Column("series_description", HeaderText, nullable=False),
    Column("laterality", HeaderText, nullable=False),
    Column("body_part", HeaderText, nullable=False),
    Column("performed_date", String(8), nullable=False),
    Column("performed_time", String(13), nullable=False),
    Column("requested_procedure_id", HeaderText, nullable=False),
    Column("scheduled_step_id", HeaderText, nullable=False),
    Column("instance_number", Integer),
    Column("rows", Integer),
    Column("columns", Integer),
    Column("bits_allocated", Integer),
    Column("frames", Integer),
)

conflicts = Table(
    "conflicts",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("instance_uid", ForeignKey("instances.uid"), nullable=False, index=True),
    Column("path", Text, nullable=False),
    Column("received_at", Moment, nullable=False),
    Column("calling_ae", HeaderText, nullable=False),
    Column("digest", String(64), nullable=False),
    Column("identity_changed", Boolean, nullable=False),
    Column("differences", JSON, nullable=False),
    Column("state", _states(ConflictState), nullable=False, server_default=ConflictState.OPEN.value),
    Column("decided_at", Moment),
)

# What a rejection note has taken back, here or not (rule R7).
withdrawals = Table(
    "withdrawals",
    metadata,
    Column("instance_uid", UID, primary_key=True),
    Column("note_uid", ForeignKey("instances.uid"), nullable=False, index=True),
    Column("reason", Text, nullable=False),
    Column("received_at", Moment, nullable=False),
)

exams = Table(
    "exams",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("uid", String(16), nullable=False, unique=True),
    Column("patient_id", ForeignKey("patients.id"), nullable=False),
    Column("study_uid", ForeignKey("studies.uid"), nullable=False, index=True),
    Column("state", _states(ExamState), nullable=False, index=True),
    Column("revision", Integer, nullable=False),
    Column("arrivals", Integer, nullable=False),
    Column("opened_at", Moment, nullable=False),
    Column("last_image_at", Moment, nullable=False, index=True),
    Column("due_at", Moment),
    Column("status", String(32)),
    Column("reasons", JSON, nullable=False),
    Column("held", Boolean, nullable=False),
    UniqueConstraint("patient_id", "study_uid"),
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

jobs = Table(
    "jobs",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("exam_id", ForeignKey("exams.id"), nullable=False),
    Column("revision", Integer, nullable=False),
    Column("model_digest", String(64), nullable=False),
    Column("state", _states(JobState), nullable=False),
    Column("plan", _states(Plan), nullable=False),
    Column("reasons", JSON, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("last_resorts", Integer, nullable=False),
    Column("not_before", Moment, nullable=False),
    Column("lease_owner", Text),
    Column("lease_until", Moment),
    Column("created_at", Moment, nullable=False),
    Column("started_at", Moment),
    Column("finished_at", Moment),
    Column("error", HeaderText),
    Column("answer", String(32)),
    Column("timings", JSON),
    Column("suspicion", Float),
    UniqueConstraint("exam_id", "revision", "model_digest"),
    # Workers ask every fraction of a second; done jobs only grow in number.
    Index(
        "ix_jobs_claimable",
        "not_before",
        "id",
        sqlite_where=text("state IN ('queued', 'running')"),
        postgresql_where=text("state IN ('queued', 'running')"),
    ),
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

deliveries = Table(
    "deliveries",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("result_uid", UID, nullable=False),
    Column("destination", Text, nullable=False),
    Column("state", _states(DeliveryState), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("not_before", Moment, nullable=False),
    Column("first_attempt_at", Moment),
    Column("last_attempt_at", Moment),
    Column("finished_at", Moment),
    Column("status_code", Integer),
    Column("message", HeaderText),
    Column("sent_at", Moment),
    Column("proven_at", Moment),
    Column("proofs", Integer, nullable=False, server_default="0"),
    ForeignKeyConstraint(["result_uid"], ["results.uid"]),
    UniqueConstraint("result_uid", "destination"),
    Index(None, "destination", "state", "not_before"),
)

# Readings as others see them (UPS, PS3.4 CC): each exam revision's, and those that others have asked for.
workitems = Table(
    "workitems",
    metadata,
    Column("uid", UID, primary_key=True),
    Column("state", _states(StepState), nullable=False, index=True),
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
    Column("cancel_requested_by", HeaderText),
    Column("reason", HeaderText, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("modified_at", Moment, nullable=False),
    Column("started_at", Moment),
    Column("finished_at", Moment),
    Index(None, "exam_id", "revision"),
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

# Files whose time has come: these paths count as removed, whether they are unlinked yet or not.
removals = Table(
    "removals",
    metadata,
    Column("path", Text, primary_key=True),
    Column("removed_at", Moment, nullable=False),
    Column("unlinked", Boolean, nullable=False),
)

# A row for each lane that is paused.
lanes = Table(
    "lanes",
    metadata,
    Column("destination", Text, primary_key=True),
    Column("paused_at", Moment, nullable=False),
    Column("paused_by", Text, nullable=False),
    Column("reason", Text, nullable=False),
)

# What we have asked destinations to commit to (PS3.4 J), and what they said of each delivery: 0, or a Failure Reason.
commitments = Table(
    "commitments",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("transaction_uid", UID, nullable=False, unique=True),
    Column("destination", Text, nullable=False),
    Column("asked_at", Moment, nullable=False),
    Column("answered_at", Moment),
    Column("message", HeaderText),
)

commitment_items = Table(
    "commitment_items",
    metadata,
    Column("commitment_id", ForeignKey("commitments.id"), primary_key=True),
    Column("delivery_id", ForeignKey("deliveries.id"), primary_key=True, index=True),
    Column("reason", Integer),
)

# What we were asked to commit to, and whether the asker has our report.
commitment_requests = Table(
    "commitment_requests",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("transaction_uid", UID, nullable=False, index=True),
    Column("calling_ae", HeaderText, nullable=False),
    Column("address", HeaderText, nullable=False),
    Column("items", JSON, nullable=False),
    Column("duplicate", Boolean, nullable=False),
    Column("asked_at", Moment, nullable=False),
    Column("not_before", Moment, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("reported_at", Moment),
    Column("finished_at", Moment, index=True),
    Column("message", HeaderText),
)

# What each attempt to deliver brought; equal ones in a row are one row, so that a dead destination fills no disk.
delivery_attempts = Table(
    "delivery_attempts",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("delivery_id", ForeignKey("deliveries.id"), nullable=False, index=True),
    Column("first_at", Moment, nullable=False),
    Column("last_at", Moment, nullable=False),
    Column("times", Integer, nullable=False),
    Column("state", _states(DeliveryState), nullable=False),
    Column("status_code", Integer),
    Column("message", HeaderText),
)

# Who may call over HTTP. The digests are those of secrets of 256 random bits: nobody guesses what they were made of.
tokens = Table(
    "tokens",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("digest", String(64), nullable=False, unique=True),
    Column("scopes", JSON, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("expires_at", Moment),
    Column("revoked_at", Moment),
    Column("used_at", Moment),
)

# Browsers that have logged in with a token; they end with it.
sessions = Table(
    "sessions",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("token_id", ForeignKey("tokens.id"), nullable=False, index=True),
    Column("expires_at", Moment, nullable=False),
)

# What people have done to exams and lanes.
actions = Table(
    "actions",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("exam_id", ForeignKey("exams.id"), index=True),
    Column("destination", Text),
    Column("what", String(32), nullable=False),
    Column("who", HeaderText, nullable=False),
    Column("detail", HeaderText, nullable=False),
    Column("done_at", Moment, nullable=False, index=True),
)

# Who has called: what it proposed last and what became of that, and why it was refused last.
senders = Table(
    "senders",
    metadata,
    Column("calling_ae", HeaderText, primary_key=True),
    Column("address", HeaderText, primary_key=True),
    Column("first_seen", Moment, nullable=False),
    Column("last_seen", Moment, nullable=False),
    Column("contexts", JSON, nullable=False),
    Column("refusal", HeaderText),
    Column("refused_at", Moment),
)

sender_days = Table(
    "sender_days",
    metadata,
    Column("calling_ae", HeaderText, primary_key=True),
    Column("address", HeaderText, primary_key=True),
    Column("day", String(10), primary_key=True),
    Column("associations", Integer, nullable=False),
    Column("associations_refused", Integer, nullable=False),
    Column("images", Integer, nullable=False),
    Column("images_refused", Integer, nullable=False),
    Column("reasons", JSON, nullable=False),
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
