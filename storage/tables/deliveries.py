"""What goes to destinations, and what we and they promise to keep."""

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from storage.states import DeliveryState
from storage.tables.columns import UID, HeaderText, Moment, metadata, states

WAITING = text("state = 'waiting'")
"""Said in a statement in the same words, it lets SQLite use the index of just these."""

deliveries = Table(
    "deliveries",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("result_uid", UID, nullable=False),
    Column("destination", Text, nullable=False),
    Column("state", states(DeliveryState), nullable=False),
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
    # Of WAITING alone, as its migration says: said here, it would import both databases' dialects, whichever is in use.
    Index("ix_deliveries_waiting", "destination", "created_at"),
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
    Column("state", states(DeliveryState), nullable=False),
    Column("status_code", Integer),
    Column("message", HeaderText),
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
