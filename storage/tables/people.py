"""Who may call over HTTP, and what people have done."""

from sqlalchemy import JSON, Column, ForeignKey, Integer, String, Table, Text

from storage.tables.columns import HeaderText, Moment, metadata

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
