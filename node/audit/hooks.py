"""Where facts come from, for parts that need not know of it."""

from pathlib import Path

from node.audit.notes import Notes
from node.intake import Announced, Receipt, Receiver
from node.records import Origin


class Audited:
    """A receiver whose instances are noted; the same for every door.

    Parameters
    ----------
    inner
        Receives.
    notes
        Takes the facts.
    """

    def __init__(self, inner: Receiver, notes: Notes) -> None:
        self._inner = inner
        self._notes = notes

    def receive(self, temp: Path, announced: Announced | None, origin: Origin) -> Receipt:
        """Take a received file, as the inner receiver does."""
        receipt = self._inner.receive(temp, announced, origin)
        self._notes.note(
            "received",
            instance=receipt.instance_uid,
            sender=origin.calling_ae,
            address=origin.address,
            association=origin.association,
        )
        return receipt

    def require_space(self) -> None:
        """Raise `storage.errors.DiskLow` when the disk is too full to receive anything."""
        self._inner.require_space()
