"""What the parts of the node tell the audit trail through."""

from typing import Any, Protocol


class Notes(Protocol):
    """What takes facts."""

    def note(self, kind: str, **data: Any) -> None:
        """Note that something happened; never fails, never waits."""


class Nothing:
    """Takes facts and forgets them."""

    def note(self, kind: str, **data: Any) -> None:
        """Do nothing."""


NOTHING = Nothing()
