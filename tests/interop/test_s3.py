"""A bucket on a real S3 server (OpenStack Swift): what is put there, what comes back, and what happens when it is gone."""

import json
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Final

import obstore
import pytest
from obstore.exceptions import BaseError
from pydicom import dcmread
from pydicom.uid import ImplicitVRLittleEndian
from sqlalchemy import Engine
from typer.testing import CliRunner

import storage.bucket
from config.policy import BucketPlace
from config.settings import Dicom
from node.adoption import Adopted, adopt
from node.cli import app
from node.intake import Intake, Outcome
from node.scu import Item, Sender
from node.status import receiving_status
from node.views import ImageKind
from storage.archive import keep
from storage.bucket import BucketStore
from storage.database import open_database, reading
from storage.errors import AlreadyStored, BucketUnavailable
from storage.files import FolderStore, InstanceStore
from storage.index import find_instance
from storage.states import ExamState, JobState
from tests.acceptance.nodes import MODALITY, a_site, an_exam, patiently, study_of
from tests.authority import Authority
from tests.buckets import MAY_NOT_WRITE, SwiftServer, a_host, a_swift_server, objects, over_tls, section
from tests.builders import altered
from tests.databases import PostgreSQLDatabases, SQLiteDatabases
from tests.doors import ROOM_ENOUGH, Room, phantom_images
from tests.faults import Offspring, a_nursery
from tests.records import a_file, a_reference

pytestmark = [
    pytest.mark.interop,
    # pynetdicom does not close the socket of a connection that was refused or cut.
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
    pytest.mark.sqlite_alone,
]
DIGEST: Final = re.compile(r"[0-9a-f]{64}\.dcm")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SwiftServer]:
    with a_swift_server(tmp_path_factory.mktemp("swift")) as server:
        yield server


@pytest.fixture
def place(server: SwiftServer) -> BucketPlace:
    """An empty part of the bucket."""
    return server.place()


@pytest.fixture
def bucket(place: BucketPlace, tmp_path: Path) -> BucketStore:
    """The store of one host there."""
    return a_host(tmp_path / "store", place)


@pytest.fixture(params=["folder", "bucket"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> InstanceStore:
    """A folder, then a bucket: whoever uses a store sees no difference."""
    if request.param == "bucket":
        found: BucketStore = request.getfixturevalue("bucket")
        return found
    store = FolderStore(tmp_path / "store")
    store.prepare()
    return store


def received(store: InstanceStore, data: bytes = b"DICM", name: str = "received") -> str:
    """Let a file come in, as the intake does, and return its path."""
    temp = a_file(store.incoming, data, name)
    path = store.path_of(a_reference(), temp)
    store.flush(temp)
    store.make_way(temp, path)
    try:
        store.accept(temp, path)
    except AlreadyStored:
        store.adopt(temp, path)
    return path


def test_what_comes_in_can_be_had_and_removed(store: InstanceStore) -> None:
    path = received(store)
    assert (store.resolve(path).read_bytes(), store.size_of(path)) == (b"DICM", 4)
    assert [kept.path for kept in store.listed("instances")] == [path]
    assert list(store.incoming.iterdir()) == []
    for _ in range(2):
        store.remove(path)
    assert (store.resolve(path).exists(), store.size_of(path)) == (False, None)
    assert list(store.listed("instances")) == []


def test_what_comes_again_takes_the_place_of_what_a_crash_left(store: InstanceStore) -> None:
    received(store, b"half", "first")
    assert store.resolve(received(store, b"whole", "second")).read_bytes() == b"whole"


def test_copies_that_contradict_are_all_kept(store: InstanceStore) -> None:
    paths = [store.set_aside(a_file(store.incoming, content), a_reference()) for content in (b"one", b"two")]
    assert [store.resolve(path).read_bytes() for path in paths] == [b"one", b"two"]
    assert {kept.path for kept in store.listed("conflicts")} == set(paths)


def test_a_result_is_kept_once_and_never_overwritten(store: InstanceStore) -> None:
    first = {store.write_result(a_reference("2.25.1"), b"report") for _ in range(2)}
    second = store.write_result(a_reference("2.25.1"), b"other")
    assert [store.resolve(path).read_bytes() for path in (*first, second)] == [b"report", b"other"]


def test_what_is_kept_of_a_study_is_found_whether_it_is_indexed_or_not(store: InstanceStore) -> None:
    of_study = [store.write_result(a_reference(), data, suffix) for data, suffix in ((b"DICM", "dcm"), (b"{}", "json"))]
    store.write_result(replace(a_reference(), study_uid=f"{a_reference().study_uid}.1"), b"another's")
    assert sorted(store.results_of(a_reference().study_uid)) == sorted(of_study)
    assert store.results_of("1.9") == []


def test_a_store_says_whose_it_is(store: InstanceStore) -> None:
    assert store.owner() == ""
    for owner in ("ab" * 16, "cd" * 16):
        store.mark(owner)
        assert store.owner() == owner
    assert list(store.listed("instances")) == []


def test_a_picture_takes_the_place_of_an_earlier_one(store: InstanceStore) -> None:
    for data in (b"first", b"second"):
        store.write_preview("previews/exam/1/1.2.view.jpg", data)
    assert store.resolve("previews/exam/1/1.2.view.jpg").read_bytes() == b"second"


def test_another_host_gets_what_one_has_put(bucket: BucketStore, place: BucketPlace, tmp_path: Path) -> None:
    other = a_host(tmp_path / "other", place)
    path = received(bucket, b"image")
    assert objects(bucket) == {path}
    assert other.resolve(path).read_bytes() == b"image"
    result = other.write_result(a_reference("2.25.1"), b"report")
    assert bucket.resolve(result).read_bytes() == b"report"
    assert list((other.root / "outgoing").iterdir()) == []


def test_an_object_whose_bytes_are_not_those_that_were_put_is_as_good_as_gone(
    bucket: BucketStore, place: BucketPlace, tmp_path: Path
) -> None:
    path = received(bucket)
    obstore.put(bucket._bucket, path, b"DICK")  # noqa: SLF001 (as somebody else may)
    assert not a_host(tmp_path / "other", place).resolve(path).exists()


def test_what_is_larger_than_one_request_goes_in_parts(
    bucket: BucketStore, place: BucketPlace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage.bucket, "WHOLE", 6 << 20)
    monkeypatch.setattr(storage.bucket, "PART", 5 << 20)
    data = os.urandom(11 << 20)
    path = received(bucket, data)
    assert a_host(tmp_path / "other", place).resolve(path).read_bytes() == data


def test_copies_that_were_not_asked_for_for_long_go_and_are_fetched_again(place: BucketPlace, tmp_path: Path) -> None:
    host = a_host(tmp_path / "store", place, keep_bytes=5)
    paths = [received(host, data, data.decode()) for data in (b"old!", b"used", b"new!")]
    old, used, new = copies = [host.resolve(path) for path in paths]
    for copy in (old, used):
        os.utime(copy, (1, 1))
    host.resolve(paths[1])
    host.sweep(timedelta(0))
    assert [copy.exists() for copy in copies] == [False, True, True]
    os.utime(used, (1, 1))
    host.sweep(timedelta(0))
    # Within the hour nothing goes, whatever it takes.
    assert [copy for copy in copies if copy.exists()] == [new]
    assert [host.resolve(path).read_bytes() for path in paths] == [b"old!", b"used", b"new!"]


def test_what_was_copied_from_a_folder_under_the_same_names_is_found(
    bucket: BucketStore, place: BucketPlace, tmp_path: Path
) -> None:
    # This name could be taken for one that tells the bytes.
    path = f"instances/1.2.3/1.2.3.1/{'1' * 64}.dcm"
    obstore.put(bucket._bucket, path, b"copied")  # noqa: SLF001 (as another tool does)
    assert a_host(tmp_path / "other", place).resolve(path).read_bytes() == b"copied"


def test_what_the_folder_held_before_is_found_there(bucket: BucketStore) -> None:
    before = FolderStore(bucket.root)
    before.prepare()
    path = received(before, b"before")
    assert (bucket.resolve(path).read_bytes(), bucket.size_of(path)) == (b"before", 6)
    assert objects(bucket) == set()
    assert [kept.path for kept in bucket.listed("instances")] == [path]
    bucket.sweep(timedelta(0))
    assert bucket.resolve(path).exists()
    bucket.remove(path)
    assert not bucket.resolve(path).exists()


def test_the_row_commits_after_the_bucket_has_answered(
    bucket: BucketStore, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[set[str]] = []

    def keeping(*arguments: object) -> bool:
        seen.append(objects(bucket))
        return keep(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr("node.intake.keep", keeping)
    room = Room(bucket, engine, Intake(bucket, engine, ROOM_ENOUGH))
    [image, *_] = phantom_images()
    assert room.receive(image).outcome is Outcome.STORED
    with reading(engine) as connection:
        record = find_instance(connection, str(image.SOPInstanceUID))
    assert record
    assert seen == [{record.path}]
    assert DIGEST.fullmatch(Path(record.path).name)


def test_what_is_known_is_not_put_again_and_what_differs_is_set_aside(bucket: BucketStore, engine: Engine) -> None:
    room = Room(bucket, engine, Intake(bucket, engine, ROOM_ENOUGH))
    [image, *_] = phantom_images()
    room.receive(image)
    [first] = objects(bucket)
    assert room.receive(image).outcome is Outcome.KNOWN
    other = dcmread(bucket.resolve(first))
    other.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    assert room.receive(other).outcome is Outcome.KNOWN
    assert objects(bucket) == {first}
    other.PatientID = "OTHER"
    assert room.receive(other).outcome is Outcome.CONFLICT
    [aside] = objects(bucket) - {first}
    assert aside.startswith("conflicts/")


def test_an_object_that_the_bucket_has_lost_is_put_again_when_its_image_comes_again(
    bucket: BucketStore, place: BucketPlace, engine: Engine, tmp_path: Path
) -> None:
    room = Room(bucket, engine, Intake(bucket, engine, ROOM_ENOUGH))
    [image, *_] = phantom_images()
    for file_meta in ("AS_IT_WAS", "ANOTHER_ONE"):
        again = altered(image)
        again.file_meta.ImplementationVersionName = file_meta
        room.receive(again)
        [lost] = objects(bucket)
        bucket.remove(lost)
        assert room.receive(again).outcome is Outcome.KNOWN
        with reading(engine) as connection:
            known = find_instance(connection, image.SOPInstanceUID)
        assert known is not None
        elsewhere = a_host(tmp_path / file_meta, place)
        assert (elsewhere.size_of(known.path), objects(bucket)) == (known.size, {known.path})
        assert dcmread(elsewhere.resolve(known.path)) == image
        bucket.remove(known.path)


def test_what_the_database_has_lost_is_adopted_from_the_bucket(
    bucket: BucketStore, place: BucketPlace, engine: Engine, sqlite_databases: SQLiteDatabases, tmp_path: Path
) -> None:
    room = Room(bucket, engine, Intake(bucket, engine, ROOM_ENOUGH))
    for image in phantom_images():
        room.receive(image)
    elsewhere = a_host(tmp_path / "other", place)
    lost = open_database(sqlite_databases.fresh())
    before, kinds = objects(bucket), frozenset({ImageKind.FOR_PRESENTATION})
    assert adopt(lost, elsewhere, kinds) == Adopted(4, 0)
    assert adopt(lost, elsewhere, kinds) == Adopted(0, 0)
    assert objects(bucket) == before
    lost.dispose()


def test_a_bucket_that_is_gone_is_told_and_leaves_nothing(
    server: SwiftServer, bucket: BucketStore, engine: Engine
) -> None:
    room = Room(bucket, engine, Intake(bucket, engine, ROOM_ENOUGH))
    [image, *_] = phantom_images()
    server.kill()
    try:
        with pytest.raises(BucketUnavailable, match=f"write, http://127.0.0.1:{server.port}: Connect") as refusal:
            room.receive(image)
        for ask in (bucket.reach, bucket.prove, lambda: bucket.resolve("instances/1/2/3/4.dcm")):
            with pytest.raises(BucketUnavailable):
                ask()
    finally:
        server.start()
    assert receiving_status(refusal.value) == 0xA700
    assert room.rows() == (0, 0, 0)
    assert room.files() == set()
    assert room.receive(image).outcome is Outcome.STORED


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"name": "nowhere"}, "write, .*: NoSuchBucket"),
        ({"secret_access_key": "guessed"}, "write, .*: SignatureDoesNotMatch"),
        (dict(zip(("access_key_id", "secret_access_key"), MAY_NOT_WRITE, strict=True)), "write, .*: AccessDenied"),
        ({"endpoint": "http://127.0.0.1:1"}, "write, http://127.0.0.1:1: Connect"),
        ({"plain_http": False}, "write, "),
        ({"ca": "/nowhere/ca.pem"}, "bucket.ca"),
    ],
)
def test_what_is_wrong_with_a_bucket_is_said_without_the_keys(
    place: BucketPlace, tmp_path: Path, changes: dict[str, object], what: str
) -> None:
    with pytest.raises(BucketUnavailable, match=what) as refusal:
        a_host(tmp_path / "store", place, **changes).prove()
    assert not re.search(f"guessed|testing|reading|{place.access_key_id}", str(refusal.value))


def test_a_bucket_that_answers_and_takes_nothing_is_not_within_reach_until_it_takes_something(
    bucket: BucketStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise BaseError("<Code>QuotaExceeded</Code>")

    bucket.reach()
    with monkeypatch.context() as patch:
        patch.setattr(obstore, "put", full)
        for ask in (lambda: received(bucket), bucket.reach, bucket.reach):
            with pytest.raises(BucketUnavailable, match="QuotaExceeded"):
                ask()
    bucket.reach()
    assert objects(bucket) == set()
    # What has answered all is asked for nothing in particular again.
    monkeypatch.setattr(obstore, "put", full)
    bucket.reach()


def test_a_server_of_ones_own_is_known_by_its_authority(
    server: SwiftServer, place: BucketPlace, tmp_path: Path
) -> None:
    authority = Authority(tmp_path, "hospital")
    with over_tls(server, authority.signed("s3")) as port:
        place = replace(place, endpoint=f"https://localhost:{port}", plain_http=False)
        with pytest.raises(BucketUnavailable, match="write, https"):
            a_host(tmp_path / "unknown", place).prove()
        a_host(tmp_path / "known", place, ca=str(authority.path)).prove()


def test_a_bucket_that_is_not_there_is_not_taken_for_a_file_that_is_gone(place: BucketPlace, tmp_path: Path) -> None:
    nowhere = a_host(tmp_path / "store", place, name="nowhere")
    for ask in (nowhere.resolve, nowhere.size_of, nowhere.remove, lambda path: list(nowhere.listed(path))):
        with pytest.raises(BucketUnavailable):
            ask("instances/1/2/3/4.dcm")


def test_check_tries_all_that_is_asked_of_the_bucket(
    place: BucketPlace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node.cli.running._model", lambda _: "not looked at")  # which takes torch seconds to load

    def told(text: str) -> dict[str, object]:
        config = tmp_path / "mammonode.toml"
        config.write_text(
            f'[storage]\nfolder = "{tmp_path / "store"}"\nmax_used_percent = 100\nmin_free_gb = 0\n'
            f"[dicom]\nport = 0\n[http]\nport = 0\n{text}",
            encoding="utf-8",
        )
        said = CliRunner().invoke(app, ["check", "--config", str(config), "--json"])
        [found] = [each for each in json.loads(said.output)["checks"] if each["check"] == "bucket"]
        return dict(found)

    assert told(section(place)) == {
        "check": "bucket",
        "ok": True,
        "warns": False,
        "detail": f"s3://{place.name}/{place.prefix}: written, read, listed and removed",
        "remedy": "",
    }
    assert objects(a_host(tmp_path / "store", place)) == set()
    wrong = told(section(replace(place, secret_access_key="guessed")))  # noqa: S106 (and wrong)
    assert not wrong["ok"]
    assert "SignatureDoesNotMatch" in str(wrong["detail"])
    assert "guessed" not in str(wrong)


@pytest.mark.acceptance
def test_two_hosts_share_a_bucket_and_lose_nothing_when_one_is_killed_or_the_bucket_goes(
    tmp_path: Path, server: SwiftServer, place: BucketPlace, postgresql_databases: PostgreSQLDatabases
) -> None:
    first, second = an_exam("BUCKET-1"), an_exam("BUCKET-2")
    settings = section(place)
    database = postgresql_databases.empty()
    with a_site(tmp_path, database=database, bucket=settings) as site, a_nursery() as nursery:
        reading_host = tmp_path / "reading.toml"
        text = site.config.read_text(encoding="utf-8")
        reading_host.write_text(text.replace(str(tmp_path / "store"), str(tmp_path / "reading")), encoding="utf-8")

        def start(command: str, config: Path, **faults: object) -> Offspring:
            return nursery.start(command, config, tmp_path / f"{command}.log", **faults)

        # Killed when the bucket has the second image, and no row names it.
        serve = start("serve", site.config, crash=("put", "after", 2))
        assert patiently(lambda: serve.has_logged("ready"))
        with pytest.raises(AssertionError):
            site.send(first)
        serve.wait()
        exam = site.exam(study_of(first))
        assert exam
        assert exam.arrivals == 1
        store = site.parts.store
        assert isinstance(store, BucketStore)
        assert len(objects(store)) == 2
        serve = start("serve", site.config)
        assert patiently(lambda: serve.has_logged("ready"))
        site.send(first)
        assert len(objects(store)) == 4
        assert patiently(lambda: site.job(study_of(first)) is not None)

        # The bucket goes: nobody is told success, and the reading waits without using up its tries.
        server.kill()
        second[0].save_as(tmp_path / "image.dcm", enforce_file_format=True)
        [refused] = Sender(Dicom(ae_title=MODALITY)).send(site.door, [Item.of(tmp_path / "image.dcm")])
        assert refused.status == 0xA700
        assert refused.words == BucketUnavailable.__doc__
        worker = start("work", reading_host)
        assert patiently(lambda: worker.has_logged("will be tried again"))
        job = site.job(study_of(first))
        assert job
        assert (job.state, job.attempts) == (JobState.QUEUED, 0)
        line, *_ = [line for line in worker.lines() if line["event"] == "will be tried again"]
        assert line["cause"].startswith("The bucket did not do as asked")

        # It comes back: all goes on by itself.
        server.start()
        site.send(second)
        for study in (study_of(first), study_of(second)):
            assert site.answered(study).state is ExamState.ANSWERED
            assert site.archives["pacs"].files(study)
        images = {path for path in objects(store) if path.startswith("instances/")}
        assert {path.split("/")[3] for path in images} == {str(image.SOPInstanceUID) for image in (*first, *second)}
        assert len(images) == 8
        # The other host has fetched them.
        assert {store.resolve(path).name for path in images} <= {
            p.name for p in (tmp_path / "reading/copies").iterdir()
        }
        for process in (serve, worker):
            process.signal(15)
            assert process.wait() == 0
