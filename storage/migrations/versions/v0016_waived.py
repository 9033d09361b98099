"""Deliveries may be waived: a state that earlier versions do not know, so that they do not open what has it."""

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    """Change no table: a state is kept as its word."""
