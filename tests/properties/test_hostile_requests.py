"""Hostile requests: no fault of ours, no traceback, nothing left behind, and the door still answers."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from node.results.encode import to_bytes
from tests.doors import a_room, phantom_images
from tests.web import Service, a_service, parts_of
from tests.web_fuzz import STUDY, attacked, memory

pytestmark = pytest.mark.sqlite_alone

CASES = 3000 if os.environ.get("MAMMONODE_TEST_PROFILE") == "long" else 300
SEED = 7


@pytest.fixture
def service(tmp_path: Path, engine: Engine) -> Iterator[Service]:
    with a_service(a_room(tmp_path, engine)) as opened:
        opened.store(*phantom_images())
        yield opened


# uvicorn warns of requests that are none; what a client that went away leaves is closed by the loop's end.
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_no_request_is_answered_with_a_fault_of_ours(service: Service) -> None:
    before = memory()
    verdict = attacked(service, SEED, CASES)
    assert verdict.bad == [], f"see http_case({SEED}, number)"
    assert verdict.statuses.total() == CASES
    assert {200, 400, 404, 406, 415} <= set(verdict.statuses)
    assert not service.leftovers()
    # Damaged copies may have been kept beside the images, as conflicts; the images themselves are what they were.
    given = service.get(f"/studies/{STUDY}", 'multipart/related; type="application/dicom"; transfer-syntax=*')
    assert {to_bytes(image) for image in phantom_images()} <= {data for _, data in parts_of(given)}
    assert memory() - before < 300e6
