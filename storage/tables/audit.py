"""The audit trail: messages in a chain, its last link, and how far each receiver has them."""

from sqlalchemy import Column, Integer, String, Table, Text

from storage.tables.columns import Moment, metadata

audit = Table(
    "audit",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("uid", String(64), nullable=False, unique=True),
    Column("recorded_at", Moment, nullable=False),
    Column("message", Text, nullable=False),
    Column("digest", String(64), nullable=False),
)

# One row.
audit_head = Table(
    "audit_head",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("number", Integer, nullable=False),
    Column("digest", String(64), nullable=False),
)

audit_receivers = Table(
    "audit_receivers",
    metadata,
    Column("name", String(32), primary_key=True),
    Column("number", Integer, nullable=False),
)
