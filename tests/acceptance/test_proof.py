"""Proof of delivery with the node as a process that is killed while it waits for it."""

from pathlib import Path

import pytest

from storage.states import DeliveryState
from tests.acceptance.nodes import a_site, patiently
from tests.archives import an_archive
from tests.pacs import waiting_results

pytestmark = [
    pytest.mark.acceptance,
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
]

# The archive may call, to report on an association of its own.
CALLED = {"MAMMONODE_DICOM__ALLOW_UNKNOWN_CALLERS": "true"}


def test_a_report_reaches_the_process_that_follows_the_one_that_was_killed_waiting_for_it(tmp_path: Path) -> None:
    with (
        an_archive() as archive,
        a_site(tmp_path, ports={"archive": archive.port}, mixes={"archive": 'proof = "commitment"'}) as site,
    ):
        waiting = waiting_results(site.parts.store, site.parts.engine, ["archive"])

        def states() -> set[DeliveryState]:
            return {delivery.state for delivery in site.parts.outbox.of_exam(1)}

        first = site.start("serve", **CALLED)
        assert patiently(lambda: len(archive.asked) == 1)
        first.kill()
        assert states() == {DeliveryState.SENT}
        second = site.start("serve", **CALLED)
        assert patiently(lambda: second.has_logged("ready"))
        report = archive.report_for(archive.asked[0])
        assert archive.report(site.settings.dicom.port, report) == 0x0000
        assert states() == {DeliveryState.COMMITTED}
        assert second.terminate() == 0
    assert set(archive.held) == {record.uid for record in waiting}
