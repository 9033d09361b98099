"""A short soak; ``make soak`` is the long one."""

from pathlib import Path

import pytest

from tests.acceptance.soak import Soak
from tests.faults import a_nursery

pytestmark = [
    pytest.mark.acceptance,
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.filterwarnings("ignore::UserWarning:pydicom"),
    # pynetdicom does not close the socket of a connection that was refused or cut.
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
]


def test_eighty_exams_and_every_fault(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def tell(line: str) -> None:
        with capsys.disabled():
            print(f"\n{line}", end="", flush=True)  # noqa: T201 (a long run shows that it goes on)

    with a_nursery() as nursery:
        Soak(nursery, tmp_path, 80, 1, tell).run()


def test_a_soak_that_was_cut_off_goes_on(tmp_path: Path) -> None:
    with a_nursery() as nursery:
        Soak(nursery, tmp_path, 8, 2, lambda _: None).run()
    with a_nursery() as nursery:
        Soak(nursery, tmp_path, 16, 2, lambda _: None).run()
