"""A lane to one destination, and what came of what it sends."""

from pathlib import Path

import pytest
from sqlalchemy import Engine

from config.mix import ObjectMix, ReportClass
from config.settings import Delivery as DeliverySettings
from config.settings import Destination, Dicom
from node.delivery import Lane
from node.scu import Sender
from storage.deliveries import Delivery
from storage.files import InstanceStore
from storage.outbox import Outbox
from storage.results import ResultRecord
from storage.states import DeliveryState
from tests.doors import Clock
from tests.pacs import a_store, waiting_results
from tests.records import POLICY

SENDER = Sender(Dicom(dimse_timeout=60, acse_timeout=60, network_timeout=60))


@pytest.fixture
def store(tmp_path: Path) -> InstanceStore:
    return a_store(tmp_path)


@pytest.fixture
def results(store: InstanceStore, engine: Engine) -> list[ResultRecord]:
    """Segmentations and a report, on their way to the destination "pacs"; none has another form."""
    return waiting_results(store, engine, ["pacs"], mix=ObjectMix(report=ReportClass.COMPREHENSIVE))


class Deliveries:
    """A lane to one destination, and what came of it."""

    def __init__(self, engine: Engine, store: InstanceStore, destination: Destination, sender: Sender = SENDER) -> None:
        self.clock = Clock()
        own = {destination.name: destination.policy(DeliverySettings())} if destination.give_up_days else {}
        self.outbox = Outbox(engine, POLICY, own)
        self.lane = Lane(destination, self.outbox, sender, store, poll=0.01, clock=self.clock)

    def all(self) -> list[Delivery]:
        """Return what goes to the destination."""
        return [delivery for delivery in self.outbox.of_exam(1) if delivery.destination == self.lane.destination.name]

    def states(self) -> set[DeliveryState]:
        """Return where it stands."""
        return {delivery.state for delivery in self.all()}

    def later(self) -> int:
        """Try again when the policy has had its longest wait."""
        self.clock.forward(POLICY.slow)
        return self.lane.deliver_due()
