"""The kinds of columns that the tables have, and the names of what the database makes of them."""

from datetime import UTC, datetime
from enum import StrEnum

from sqlalchemy import DateTime, Dialect, Enum, MetaData, String, Text, TypeDecorator

DIALECT = "dialect"
"""Key of an index's ``info``: the only database that has it."""
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


def states(kinds: type[StrEnum]) -> Enum:
    """Return the type of a column that holds one of some states, as its value."""
    return Enum(kinds, native_enum=False, length=16, values_callable=lambda kind: [state.value for state in kind])


metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)
