"""What was received, as its headers say it: patients, studies, series, instances, and what can be searched for."""

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from storage.states import ConflictState
from storage.tables.columns import DIALECT, UID, HeaderText, Moment, metadata, states

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
    Index(None, "calling_ae"),
    Index(None, "received_at", "size"),
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
    # SQLite looks at what an index holds before it opens a row; PostgreSQL opens it all the same.
    Index(None, "date", "time", "key", info={DIALECT: "postgresql"}),
    Index(
        "ix_catalogue_studies_newest",
        *("date", "time", "key", "patient_name_key", "patient_id", "accession_number"),
        info={DIALECT: "sqlite"},
    ),
    # Without this class PostgreSQL finds no beginnings of names by it.
    Index(None, "patient_name_key"),  # PostgreSQL's for beginnings of names, as its migration says (as in deliveries)
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
    Column("state", states(ConflictState), nullable=False, server_default=ConflictState.OPEN.value),
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

# Files whose time has come: these paths count as removed, whether they are unlinked yet or not.
removals = Table(
    "removals",
    metadata,
    Column("path", Text, primary_key=True),
    Column("removed_at", Moment, nullable=False),
    Column("unlinked", Boolean, nullable=False),
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
