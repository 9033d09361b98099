"""What `mammonode check` finds of doors and audit trail: each setting with which the service could not start."""

import socket
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import pytest
import tomlkit
from sqlalchemy import update

from ai.models import CARD, open_model
from config.settings import load_settings
from node.adoption import Apart
from node.cli.checks import Finding, audit, doors, keys
from node.cli.running import _apart, _checks, _dated, _echo, _scoring, _workers
from node.errors import HandshakeFailed
from node.intake import utc_now
from node.parts import open_parts
from node.scu import EchoResult
from node.tls import Fault
from storage.database import writing
from storage.tables import jobs
from storage.tokens import add_token
from storage.workers import WorkerRecord, note_worker
from tests.authority import Authority
from tests.models import a_quick_model
from tests.records import a_closed_exam

ANY_PORTS = "[dicom]\nport = 0\n[http]\nport = 0\n"


def a_config(folder: Path, lines: str) -> Path:
    path = folder / "mammonode.toml"
    store = f'[storage]\nfolder = "{folder / "store"}"\nmax_used_percent = 100\nmin_free_gb = 0\n'
    path.write_text(store + lines, encoding="utf-8")
    return path


def found(folder: Path, lines: str) -> dict[str, Finding]:
    settings = load_settings(a_config(folder, lines))
    return {each.check: each for each in (*doors(settings), *audit(settings.audit))}


def test_the_address_of_a_door_has_to_be_one_of_this_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node.cli.checks._is_tended", lambda _: False)
    told = found(tmp_path, '[dicom]\nbind = "192.0.2.1"\n[http]\nbind = "127.0.0.1"\nport = 0')
    assert not told["DICOM door"].ok
    assert "192.0.2.1" in told["DICOM door"].detail
    assert "correct bind" in told["DICOM door"].remedy
    assert told["HTTP door"].ok


def test_a_host_that_only_reads_has_the_door_of_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node.cli.checks._is_tended", lambda _: True)
    assert found(tmp_path, '[dicom]\nbind = "192.0.2.1"\n[http]\nenabled = false')["DICOM door"].ok


def test_a_port_that_another_program_has_is_told_of_the_http_door_too(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        taken = stranger.getsockname()[1]
        door = found(tmp_path, f"[dicom]\nport = 0\n[http]\nport = {taken}")["HTTP door"]
    assert not door.ok
    assert f"http, 127.0.0.1:{taken}: Address already in use" in door.detail
    assert "ss -ltnp" in door.remedy


def test_a_door_that_the_network_reaches_without_a_token_is_told(tmp_path: Path) -> None:
    lines = '[dicom]\nport = 0\n[http]\nbind = "0.0.0.0"\nport = 0'
    door = found(tmp_path, lines)["HTTP door"]
    assert not door.ok
    assert "mammonode tokens add" in door.remedy
    parts = open_parts(load_settings(a_config(tmp_path, lines)))
    with writing(parts.engine) as connection:
        add_token(connection, "viewer", ["read"], utc_now(), None)
    parts.engine.dispose()
    assert found(tmp_path, lines)["HTTP door"].ok


def test_a_file_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "ours")
    one, other, none = authority.signed("one"), tmp_path / "other.key", tmp_path / "none"
    signed = authority.signed("other").read_text(encoding="utf-8")
    other.write_text(signed.partition("-----END CERTIFICATE-----\n")[2], encoding="utf-8")
    for lines, name, told in (
        (f'certificate = "{none}"', "HTTP door", f"http.certificate = {none}: No such file"),
        (f'certificate = "{one}"\nkey = "{other}"', "HTTP door", f"http.key = {other}: key values mismatch"),
        (f'certificate = "{one}"\nclient_ca = "{other}"', "HTTP door", f"http.client_ca = {other}: "),
        (f'[audit]\nsyslog_host = "localhost"\nca = "{none}"', "audit.syslog", f"audit.ca = {none}: No such file"),
        (f'[audit]\nfile = "{none}/log"', "audit.file", str(none)),
    ):
        finding = found(tmp_path, ANY_PORTS + lines)[name]
        assert not finding.ok
        assert told in finding.detail
    good = f'certificate = "{one}"\n[audit]\nsyslog_host = "localhost"\nca = "{authority.path}"\nfile = "{none}"'
    assert all(each.ok for each in found(tmp_path, ANY_PORTS + good).values())
    assert not none.exists()


def test_a_worker_that_reads_with_another_model_than_that_of_the_settings_is_told(tmp_path: Path) -> None:
    settings, now = load_settings(a_config(tmp_path, "")), utc_now()
    digest = open_model(settings.reader.model).digest
    workers = [("host:1", "former 1.0", "ab" * 32), ("host:2", "mass-fpn-boxes 1", digest)]
    with writing(open_parts(settings).engine) as connection:
        for owner, model, read_with in workers:
            note_worker(connection, WorkerRecord(owner, model, read_with, "cpu", now, now))
    [told] = _workers(settings)
    assert (told.check, told.ok, told.warns) == ("worker host:1", True, True)
    assert "former 1.0, digest abababababab" in told.detail


def test_scoring_for_a_second_look_that_another_model_has_scored_for_are_told(tmp_path: Path) -> None:
    settings = load_settings(a_config(tmp_path, "[[reader.recall]]\nscore = 60\n"))
    engine, now = open_parts(settings).engine, utc_now()
    for number in (1, 2):
        a_closed_exam(engine, f"1.2.3.{number}.1", study=f"1.2.3.{number}", now=now)
    read = {"answer": "findings", "suspicion": 50, "finished_at": now, "timings": {}}
    with writing(engine) as connection:
        connection.execute(update(jobs).values(read))
    [told] = _scoring(settings)
    assert (told.check, told.ok, told.warns) == ("reader.recall", True, True)
    assert told.detail == "of 2 exams read in 90 days this model has read 0"
    with writing(engine) as connection:
        connection.execute(update(jobs).values(model_digest=open_model(settings.reader.model).digest))
    assert not [*_scoring(settings)]


def test_a_prevalence_of_which_the_model_makes_nothing_is_told(tmp_path: Path) -> None:
    folder = a_quick_model(tmp_path / "model").folder
    settings = load_settings(a_config(tmp_path, f'[reader]\nmodel = "{folder}/"\nprevalence = 0.006\n'))
    assert not [*_scoring(settings)]
    card = tomlkit.parse((folder / CARD).read_text(encoding="utf-8"))
    del card["calibration"]
    (folder / CARD).write_text(tomlkit.dumps(card), encoding="utf-8")
    [told] = _scoring(settings)
    assert (told.check, told.ok, told.warns) == ("reader.prevalence", True, True)
    assert "mass-fpn-boxes has no calibration" in told.detail


def test_what_to_do_goes_by_what_has_happened(tmp_path: Path) -> None:
    (tmp_path / "store").touch()
    findings = list(islice(_checks(load_settings(a_config(tmp_path, ""))), 2))
    assert [each.check for each in findings] == ["database", "disk"]
    for each in findings:
        assert not each.ok
        assert "storage.folder: ls -ld" in each.remedy


@pytest.mark.parametrize(("mode", "told"), [(0o644, ["http.key"]), (0o640, [])])
def test_a_key_that_anybody_may_read_is_told(tmp_path: Path, mode: int, told: list[str]) -> None:
    key = tmp_path / "node.key"
    key.touch()
    key.chmod(mode)
    lines = f'[http]\ncertificate = "{tmp_path / "none.pem"}"\nkey = "{key}"'
    findings = list(keys(load_settings(a_config(tmp_path, lines))))
    assert [(each.check, each.ok, each.warns) for each in findings] == [(name, True, True) for name in told]


def test_what_stands_in_the_query_of_the_databases_url_is_not_told(tmp_path: Path) -> None:
    """A password may: SQLAlchemy hides the one before the host alone."""
    settings = load_settings(a_config(tmp_path, f'database = "sqlite:///{tmp_path}/node.db?cached_statements=17"'))
    [database] = islice(_checks(settings), 1)
    assert (database.ok, "17" in database.detail) == (True, False)


def test_a_certificate_that_the_nodes_own_authorities_have_not_signed_is_told(tmp_path: Path) -> None:
    ours, other = Authority(tmp_path, "ours"), Authority(tmp_path, "other")
    lines = f'[tls]\nlisten = true\ncertificate = "{other.signed("node")}"\nca = "{ours.path}"'
    [told] = [each for each in _dated(load_settings(a_config(tmp_path, lines))) if each.check == "tls"]
    assert not told.ok
    assert "its certificate is of an authority that is not in tls.ca" in told.detail
    assert "it must be one that tls.ca takes" in told.remedy


def test_what_to_do_about_certificates_is_told_of_a_destination_whose_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = EchoResult(answered=False, seconds=0, message=str(HandshakeFailed(f"pacs: {Fault.EXPIRED}")))
    monkeypatch.setattr("node.service.carrier", lambda *_: SimpleNamespace(echo=lambda _: refused))
    place = '[[destinations]]\nname = "pacs"\nae_title = "PACS"\nhost = "pacs.example"\nport = 2762\ntls = true'
    settings = load_settings(a_config(tmp_path, f'[tls]\nca = "{Authority(tmp_path, "ours").path}"\n{place}'))
    told = _echo(settings, settings.destinations[0])
    assert not told.ok
    assert told.remedy.startswith("openssl s_client -connect pacs.example:2762")


def test_a_store_and_a_database_that_are_not_of_one_time_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load_settings(a_config(tmp_path, ""))
    assert list(_apart(settings)) == []
    monkeypatch.setattr("node.adoption.apart", lambda *_: Apart(unknown=3, gone=2, looked_at=9))
    lost, unknown = _apart(settings)
    assert (lost.ok, unknown.ok, unknown.warns) == (False, True, True)
    assert "of the 9 images that came last the database knows 2 that the store has not" in lost.detail
    assert "of the 9 images that came last the store has 3 that the database does not know" in unknown.detail
    assert "mammonode adopt" in lost.remedy
    assert "mammonode adopt" in unknown.remedy
