"""Rule R9, row by row: what a sender is told, and what a destination's answer means."""

import pytest

from node import errors
from node.status import Outcome, is_warning, receiving_status, sending_outcome
from storage.errors import BucketUnavailable, DatabaseDamaged, DatabaseRefuses, DatabaseUnavailable, DiskLow


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (DiskLow(), 0xA700),
        (DatabaseUnavailable(), 0xA700),
        (DatabaseDamaged(), 0xA700),
        (DatabaseRefuses(), 0xA700),
        (BucketUnavailable(), 0xA700),
        (errors.TooManyLargeHeaders(), 0xA700),
        (OSError(28, "No space left on device"), 0xA700),
        (errors.ClassMismatch(), 0xA900),
        (errors.InstanceUIDInvalid(), 0x0117),
        (errors.UIDsMissing(), 0xC000),
        (errors.UnparsableDataset(), 0xC000),
        (ZeroDivisionError(), 0xC000),
    ],
)
def test_an_error_has_its_status(error: Exception, status: int) -> None:
    assert receiving_status(error) == status


@pytest.mark.parametrize("status", [0x0000, 0xB000, 0xB006, 0xB007, 0x0001, 0x0107, 0x0116])
def test_success_and_warnings_mean_that_the_destination_has_it(status: int) -> None:
    assert sending_outcome(status, 1) is Outcome.SENT
    assert is_warning(status) == (status != 0)


def test_a_destination_that_has_the_object_already_has_it() -> None:
    assert sending_outcome(0x0111, 1) is Outcome.SENT
    assert not is_warning(0x0111)


@pytest.mark.parametrize("status", [0x0122, 0xA900, 0xA9FF])
def test_an_object_that_the_destination_cannot_take_is_refused_at_once(status: int) -> None:
    assert sending_outcome(status, 1) is Outcome.REFUSED


@pytest.mark.parametrize("status", [0xC000, 0xC123, 0xCFFF])
def test_cannot_understand_is_final_after_three_tries(status: int) -> None:
    outcomes = [sending_outcome(status, tries) for tries in (1, 2, 3, 4)]
    assert outcomes == [Outcome.AGAIN, Outcome.AGAIN, Outcome.REFUSED, Outcome.REFUSED]


@pytest.mark.parametrize("status", [None, 0xA700, 0xA7FF, 0x0110, 0x0117, 0x0124, 0x0210, 0xFE00])
def test_everything_else_is_tried_again_and_again(status: int | None) -> None:
    assert sending_outcome(status, 100) is Outcome.AGAIN


def test_what_a_sender_is_told_fits_into_an_error_comment() -> None:
    told = [errors.ClassMismatch, errors.InstanceUIDInvalid, errors.UIDsMissing, errors.UnparsableDataset]
    assert all(0 < len(str(error())) <= 64 for error in told)
