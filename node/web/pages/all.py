"""All pages."""

from collections.abc import Sequence

from node.web.access import Guarded
from node.web.pages import destinations, exam, exams, login, senders, system, upload
from node.web.pages.house import House


def page_routes(house: House) -> Sequence[Guarded]:
    """Return the routes of all pages; those of the list of exams come before those of one exam."""
    return [
        route
        for module in (login, exams, exam, destinations, senders, upload, system)
        for route in module.routes(house)
    ]
