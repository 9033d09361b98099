"""Lanes of a real `serve` to real destinations that hang, refuse, abort, warn, or are away for a week."""

from collections.abc import Iterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

import pytest

from storage.deliveries import Delivery
from storage.states import DeliveryState
from tests.acceptance.nodes import Site, a_site, dcmtk_storescp, patiently
from tests.faults import Nursery, a_nursery
from tests.pacs import a_free_port, a_pacs, answers, waiting_results

pytestmark = [
    pytest.mark.acceptance,
    pytest.mark.interop,
    pytest.mark.timeout(900),
    # pynetdicom does not close the socket of a connection that was refused or cut.
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
]

BROKEN = {
    "hangs": ("--sleep-during", "600"),
    "refuses": ("--refuse",),
    "aborts": ("--abort-during",),
    "leaves": ("--abort-after",),
}
"""What DCMTK's storescp is told to do."""
WARNINGS = {"warns-b000": 0xB000, "warns-b006": 0xB006, "warns-b007": 0xB007}
WEEK = timedelta(days=6.9)


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    with a_nursery() as nursery:
        yield nursery


def test_each_destination_gets_all_once_it_can_and_holds_up_no_other(nursery: Nursery, tmp_path: Path) -> None:
    clock = tmp_path / "clock"
    clock.write_text("0", encoding="ascii")
    with ExitStack() as stack:
        warning = {name: stack.enter_context(a_pacs(answers(status)))[1] for name, status in WARNINGS.items()}
        ports = {name: a_free_port() for name in (*BROKEN, "away")} | warning
        site = stack.enter_context(a_site(tmp_path, dicom=", acse_timeout = 3, dimse_timeout = 3", ports=ports))
        names = [*ports, "pacs"]
        sent = {record.uid for record in waiting_results(site.parts.store, site.parts.engine, names)}
        with ExitStack() as broken:
            for name, options in BROKEN.items():
                broken.enter_context(dcmtk_storescp(site.archives[name], ports[name], *options))
            serve = nursery.start("serve", site.config, tmp_path / "serve.log", clock=str(clock))
            stack.callback(serve.kill)
            assert patiently(lambda: all(each.state is DeliveryState.SENT for each in to(site, "pacs", *WARNINGS)))
            assert {each.destination: each.status_code for each in to(site, *WARNINGS)} == WARNINGS
            assert patiently(lambda: all(each.attempts > 1 for each in to(site, *BROKEN, "away")))
            waiting = to(site, *BROKEN, "away")
            assert {each.state for each in waiting} == {DeliveryState.WAITING}
            assert all(each.message for each in waiting)
        for name in BROKEN:
            stack.enter_context(dcmtk_storescp(site.archives[name], ports[name]))
        assert patiently(lambda: all(each.state is DeliveryState.SENT for each in to(site, *BROKEN)))
        clock.write_text(str(WEEK.total_seconds()), encoding="ascii")
        stack.enter_context(a_pacs(site.archives["away"].keep, port=ports["away"]))
        assert patiently(lambda: all(each.state is DeliveryState.SENT for each in to(site, "away")))
        assert serve.alive()
        # An attempt that ends between keeping and answering is made again, with the same bytes under the same names.
        for name in ("pacs", "away"):
            assert set(site.archives[name].arrivals) == sent
        for name in BROKEN:
            assert sum(1 for _ in site.archives[name].folder.glob("*.dcm")) >= len(sent)


def to(site: Site, *names: str) -> list[Delivery]:
    """Return what goes to destinations."""
    return [delivery for delivery in site.parts.outbox.of_exam(1) if delivery.destination in names]
