"""What is known of each lane, for the command line and the pages."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Engine

from config.settings import Destination
from storage.database import reading
from storage.lanes import Pause, pauses
from storage.outbox import Outbox
from storage.states import DeliveryState


@dataclass(frozen=True)
class LaneStatus:
    """A lane.

    Attributes
    ----------
    name
        Of its destination.
    destination
        None when it has gone from the settings and left deliveries behind.
    pause
        Since when, by whom and why it is paused, or None.
    is_open
        Whether it is sent to now.
    deliveries
        Their number by state.
    oldest_waiting
        Since when the oldest that waits does so.
    """

    name: str
    destination: Destination | None
    pause: Pause | None
    is_open: bool
    deliveries: dict[DeliveryState, int]
    oldest_waiting: datetime | None

    def __str__(self) -> str:
        """Say how it stands."""
        if self.pause:
            since = self.pause.paused_at.astimezone().strftime("%Y-%m-%d %H:%M")
            return f"paused since {since} by {self.pause.paused_by}" + (
                f": {self.pause.reason}" if self.pause.reason else ""
            )
        if self.is_open:
            return "open"
        return f"sends {', '.join(self.destination.windows)}" if self.destination else "not in the settings"


def lane_statuses(
    engine: Engine, outbox: Outbox, destinations: Sequence[Destination], now: datetime
) -> list[LaneStatus]:
    """Return what is known of each lane, those last whose destination has gone from the settings."""
    counts, oldest = outbox.counts(), outbox.oldest_waiting()
    with reading(engine) as connection:
        paused = pauses(connection)
    known: dict[str, Destination | None] = {destination.name: destination for destination in destinations}
    known |= dict.fromkeys(sorted({*counts, *paused} - set(known)))
    return [
        LaneStatus(
            name,
            destination,
            paused.get(name),
            destination is not None and name not in paused and destination.is_open(now),
            counts.get(name, dict.fromkeys(DeliveryState, 0)),
            oldest.get(name),
        )
        for name, destination in known.items()
    ]
