"""Senders: who calls from where, what was proposed, accepted and refused, and why; images a day."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import Response

from ai.words import counted
from config.settings import Scope
from node.web.access import Guarded
from node.web.charts import sparkline
from node.web.pages.house import House
from node.web.rendering import render, render_live
from storage.database import reading
from storage.senders import Sender, Tally, list_senders

DAYS: Final = 14


@dataclass(frozen=True)
class Shown:
    """A sender with the last days, the oldest first.

    Attributes
    ----------
    known
        Whether the settings let it in.
    days
        Day → what it did.
    total
        Of all these days.
    spark
        Images a day, as a picture.
    """

    sender: Sender
    known: bool
    days: dict[str, Tally]
    total: Tally
    spark: Markup


def routes(house: House) -> Sequence[Guarded]:
    """Return the routes of the senders."""

    def told() -> list[Shown]:
        now = house.clock().astimezone()
        days = [f"{now - timedelta(days=number):%Y-%m-%d}" for number in reversed(range(DAYS))]
        with reading(house.engine) as connection:
            senders = list_senders(connection, days[0])
        return [_shown(house, sender, days) for sender in senders]

    def page(request: Request) -> Response:
        return render(request, "senders.html", senders=told(), days=DAYS)

    def body(request: Request) -> Response:
        return render_live(request, "senders_body.html", senders=told(), days=DAYS)

    return (
        Guarded("/senders", page, needs=Scope.READ),
        Guarded("/senders/body", body, needs=Scope.READ),
    )


def _shown(house: House, sender: Sender, days: Sequence[str]) -> Shown:
    known = dict(sender.days)
    shown = {day: known.get(day, Tally()) for day in days}
    total = Tally()
    for tally in shown.values():
        total.associations += tally.associations
        total.associations_refused += tally.associations_refused
        total.images += tally.images
        total.images_refused += tally.images_refused
        for reason, number in tally.reasons.items():
            total.reasons[reason] = total.reasons.get(reason, 0) + number
    images = [tally.images for tally in shown.values()]
    dicom = house.settings.dicom
    allowed = dicom.allow_unknown_callers or any(
        caller.ae_title.strip() == sender.calling_ae and caller.address in {"", sender.address}
        for caller in dicom.callers
    )
    told = f"Images a day, {counted(len(images), 'day')}: {', '.join(map(str, images))}"
    return Shown(sender, allowed, shown, total, sparkline(images, told))
