"""Files that the index knows and the store has lost, as where a store is restored that is older than its database."""

from collections.abc import Iterable
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import ImplicitVRLittleEndian
from sqlalchemy import Engine, insert
from structlog.testing import capture_logs

from node.adoption import ON_ITS_WAY, Adopted, Apart, adopt, apart
from node.corrections import Corrections
from node.intake import Outcome, utc_now
from node.views import ImageKind
from storage.conflicts import list_conflicts
from storage.database import reading, writing
from storage.index import find_instance
from storage.tables import removals
from tests.builders import altered
from tests.chain import Chain, a_chain, exhaust, four
from tests.databases import wipe
from tests.doors import an_image

KINDS = frozenset({ImageKind.FOR_PRESENTATION})


@pytest.fixture
def chain(tmp_path: Path, engine: Engine) -> Chain:
    return a_chain(tmp_path, engine)


def lose(chain: Chain, area: str = "instances") -> list[str]:
    """Remove all files of an area, as whoever restores an older copy of the store does."""
    lost = sorted(path for path in chain.room.files() if path.startswith(area))
    for path in lost:
        (chain.room.store.root / path).unlink()
    return lost


def uids(images: Iterable[Dataset]) -> list[str]:
    return [str(image.SOPInstanceUID) for image in images]


def test_an_image_that_comes_again_is_kept_again_where_its_file_is_gone(chain: Chain) -> None:
    chain.receive(four())
    lost = lose(chain)
    with capture_logs() as lines:
        assert {chain.room.receive(image).outcome for image in four()} == {Outcome.KNOWN}
    assert [line["instance"] for line in lines if line["event"] == "file put back"] == uids(four())
    assert sorted(path for path in chain.room.files() if path.startswith("instances")) == lost
    assert chain.room.rows() == (4, 1, 0)
    with reading(chain.room.engine) as connection:
        for image in four():
            known = find_instance(connection, image.SOPInstanceUID)
            assert known is not None
            assert chain.room.store.size_of(known.path) == known.size
    assert {chain.room.receive(image).outcome for image in four()} == {Outcome.KNOWN}
    chain.close([])
    exhaust(chain)
    assert chain.exam.status == "findings"


def test_the_size_is_that_of_the_file_that_came_again(chain: Chain) -> None:
    image = an_image()
    chain.receive([image])
    lose(chain)
    image.file_meta.ImplementationVersionName = "ANOTHER_ONE"
    chain.receive([image])
    with reading(chain.room.engine) as connection:
        known = find_instance(connection, image.SOPInstanceUID)
    assert known is not None
    assert chain.room.store.size_of(known.path) == known.size


def test_an_image_in_another_encoding_is_set_aside_where_the_first_is_gone_and_may_be_accepted(chain: Chain) -> None:
    image = an_image()
    chain.receive([image])
    lose(chain)
    image.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    assert chain.room.receive(image).outcome is Outcome.CONFLICT
    with reading(chain.room.engine) as connection:
        [conflict] = list_conflicts(connection)
    assert conflict.copy.differences == ("first copy is gone",)
    assert not chain.exam.held


def test_a_copy_that_was_set_aside_comes_back_too_before_it_was_accepted_and_after(chain: Chain) -> None:
    first = an_image()
    other = altered(first, PatientID="OTHER")
    chain.receive([first, other])
    for _ in range(2):
        lose(chain)
        lose(chain, "conflicts")
        assert [chain.room.receive(image).outcome for image in (other, first)] == [Outcome.KNOWN] * 2
        with reading(chain.room.engine) as connection:
            [conflict] = list_conflicts(connection)
            known = find_instance(connection, first.SOPInstanceUID)
        assert known is not None
        kept = [dcmread(chain.room.store.resolve(path)).PatientID for path in (known.path, conflict.copy.path)]
        assert kept == [known.patient.patient_id, "OTHER" if conflict.state == "open" else first.PatientID]
        if conflict.state == "open":
            Corrections(chain.room.engine, chain.room.store, KINDS, chain.clock).accept(conflict.id)
    assert chain.room.rows() == (1, 2, 1)


def test_what_retention_removed_does_not_come_back(chain: Chain) -> None:
    chain.receive(four())
    lost = lose(chain)
    with writing(chain.room.engine) as connection:
        connection.execute(
            removals.insert(), [{"path": path, "removed_at": chain.clock(), "unlinked": True} for path in lost]
        )
    chain.receive(four())
    assert not any(path.startswith("instances") for path in chain.room.files())


def test_a_restore_tells_the_exams_whose_files_are_not_there(chain: Chain) -> None:
    others = [altered(image, StudyInstanceUID="1.2.3", SOPInstanceUID=f"1.2.3.{at}") for at, image in enumerate(four())]
    chain.receive([*four(), *others, altered(four()[0], PatientComments="other")])
    [exam] = {receipt.exam_uid for receipt in map(chain.room.receive, four())}
    kept = next(path for path in chain.room.files() if "1.2.3.0" in path)
    lost = [path for path in lose(chain) if path != kept]
    (chain.room.store.root / kept).write_bytes(b"as it was")
    with writing(chain.room.engine) as connection:
        removed = {"path": lost.pop(), "removed_at": chain.clock(), "unlinked": True}
        connection.execute(removals.insert().values(removed))
    with capture_logs() as lines:
        assert adopt(chain.room.engine, chain.room.store, KINDS) == Adopted(0, 0, len(lost))
    told = {line["exam"]: line["number"] for line in lines if line["event"] == "files are gone"}
    assert sorted(told.values()) == [3, 3]
    assert told[exam] == 3
    chain.receive(four())
    assert adopt(chain.room.engine, chain.room.store, KINDS) == Adopted(0, 0, 3)


def test_a_glance_tells_a_store_that_is_older_than_its_database_and_a_database_that_is_older_than_its_store(
    chain: Chain,
) -> None:
    engine, store = chain.room.engine, chain.room.store
    chain.receive(four())
    later = utc_now() + 2 * ON_ITS_WAY
    assert apart(engine, store, later) == Apart(unknown=0, gone=0, looked_at=4)
    lost = lose(chain)
    assert apart(engine, store, later) == Apart(unknown=0, gone=4, looked_at=4)
    with writing(engine) as connection:
        connection.execute(insert(removals), [{"path": path, "removed_at": later, "unlinked": True} for path in lost])
    assert apart(engine, store, later) == Apart(unknown=0, gone=0, looked_at=0)
    wipe(engine)
    chain.receive(four())
    wipe(engine)
    assert apart(engine, store, later) == Apart(unknown=4, gone=0, looked_at=4)
    assert apart(engine, store, utc_now()) == Apart(unknown=0, gone=0, looked_at=0), "their rows may be on their way"
    assert adopt(engine, store, KINDS) == Adopted(adopted=4, unreadable=0, gone=0)
    assert apart(engine, store, later) == Apart(unknown=0, gone=0, looked_at=4)
