"""What ends is told before it does: certificates of the node and of others, tokens; and a clock that nobody keeps."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine
from structlog.testing import capture_logs
from typer.testing import CliRunner

from config.settings import Audit, Http, Settings, Tls, WebService, WorklistSection, load_settings
from node.cli import app
from node.parts import open_parts
from node.timekeeping import ROOM, TIMEX, ClockState, Timekeeping, clock_state, read_timex
from node.tls import Seen, Transport
from node.validity import Validity
from storage.database import writing
from storage.tokens import add_token
from tests.authority import Authority

NOW = datetime.now(UTC)


def told(validity: Validity) -> set[tuple[str, str, str]]:
    """Return event, what and whose of each line."""
    with capture_logs() as logs:
        validity.tick()
    return {(line["event"], line["what"], line["subject"].rpartition("CN=")[2].partition(",")[0]) for line in logs}


def test_what_ends_within_a_month_is_told_and_what_has_ended_too(engine: Engine, tmp_path: Path) -> None:
    authority = Authority(tmp_path, "ours", days=900)
    tls = Tls(
        certificate=str(authority.signed("node", days=29)),
        ca=str(authority.path),
        revoked=str(authority.revocation_list(days=2)),
    )
    http = Http(certificate=str(authority.signed("web", days=31)))
    seen = Seen()
    seen.note("caller MODALITY", {"subject": ((("commonName", "mg1"),),), "notAfter": "Jan  1 00:00:00 2020 GMT"})
    seen.note("caller PLAIN", {})
    with writing(engine) as connection:
        add_token(connection, "viewer", ["read"], NOW, NOW + timedelta(days=4))
        add_token(connection, "for-ever", ["read"], NOW, None)
    transport = Transport.open(tls, seen)
    clock = [NOW]
    validity = Validity(lambda: Settings(tls=tls, http=http), lambda: transport, engine, lambda: clock[0])
    assert told(validity) == {
        ("ends soon", "tls.certificate", "node"),
        ("no longer valid", "caller MODALITY", "mg1"),
        ("ends soon", "token", "viewer"),
    }
    clock[0] = NOW + timedelta(hours=23)
    assert told(validity) == set()
    # What ends is told when it does, and the rest again, as every day.
    clock[0] = NOW + timedelta(days=3)
    news = told(validity)
    assert ("no longer valid", "tls.revoked", "ours") in news
    assert ("ends soon", "http.certificate", "web") in news
    assert ("ends soon", "token", "viewer") in news
    # A token that has ended opens nothing, and is no news.
    clock[0] = NOW + timedelta(days=5)
    assert not [line for line in told(validity) if line[1] == "token"]


def test_the_certificates_of_the_audit_trail_and_of_sources_are_watched_too(engine: Engine, tmp_path: Path) -> None:
    authority = Authority(tmp_path, "ours", days=9)
    audit = Audit(syslog_host="logs", ca=str(authority.path), certificate=str(authority.signed("audit", days=8)))
    key = authority.signed("source", days=7)
    source = WebService(url="https://pacs.example.org/dicom-web", certificate=key, key=key)
    settings = Settings(audit=audit, worklist=WorklistSection(sources=(source,)))
    validity = Validity(lambda: settings, lambda: Transport.open(Tls()), engine, lambda: NOW)
    assert told(validity) == {
        ("ends soon", "audit.ca", "ours"),
        ("ends soon", "audit.certificate", "audit"),
        ("ends soon", "worklist.sources.certificate of https://pacs.example.org/dicom-web", "source"),
    }


def test_check_warns_of_what_ends_and_fails_for_what_has_ended(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "ours", days=900)
    config = tmp_path / "mammonode.toml"
    lines = [
        f'[storage]\nfolder = "{tmp_path / "store"}"\n[reader]\nmodel = "absent"\n[tls]',
        f'ca = "{authority.path}"',
    ]
    ends, ended = authority.signed("soon", days=20), authority.signed("gone", days=-1)
    config.write_text("\n".join([*lines, f'certificate = "{ends}"', f'[http]\ncertificate = "{ended}"']))
    with writing(open_parts(load_settings(config)).engine) as connection:
        add_token(connection, "viewer", ["read"], NOW, NOW + timedelta(days=29))
        add_token(connection, "pacs", ["store"], NOW, NOW + timedelta(days=31))
    told = json.loads(CliRunner().invoke(app, ["check", "--json", "--config", str(config)]).stdout)
    checks = {check["check"]: (check["ok"], check["warns"]) for check in told["checks"]}
    assert (checks["token viewer"], checks["token pacs"]) == ((True, True), (True, False))
    assert checks["tls.certificate"] == (True, True)
    assert checks["tls.ca"] == (True, False)
    assert checks["http.certificate"] == (False, False)
    config.write_text("\n".join([*lines, f'certificate = "{tmp_path / "none.pem"}"']))
    told = json.loads(CliRunner().invoke(app, ["check", "--json", "--config", str(config)]).stdout)
    assert ["No such file" in check["detail"] for check in told["checks"] if check["check"] == "tls"] == [True]


def timex(offset: int, error: int, status: int) -> bytes:
    return TIMEX.pack(0, offset, 0, error, 0, status, 0, 0, 0).ljust(ROOM, b"\0")


@pytest.mark.parametrize(
    ("raw", "state", "is_wrong"),
    [
        (timex(-1500, 20000, 0x0001), ClockState(synchronised=True, offset=-0.0015, error=0.02), False),
        (timex(-1500, 20000, 0x2001), ClockState(synchronised=True, offset=-0.0000015, error=0.02), False),
        (timex(2_000_000, 16_000_000, 0x0001), ClockState(synchronised=True, offset=2, error=16), True),
        (timex(0, 16_000_000, 0x0040), ClockState(synchronised=False, offset=0, error=16), True),
    ],
)
def test_what_the_kernel_says_of_the_clock_is_understood(raw: bytes, state: ClockState, *, is_wrong: bool) -> None:
    assert read_timex(raw) == state
    assert state.is_wrong is is_wrong


def test_the_kernel_of_this_machine_is_understood_too() -> None:
    state = clock_state()
    assert state.synchronised is None or state.error is None or 0 <= state.error <= 16.1, state


def test_a_clock_that_nobody_keeps_is_told_once_and_when_it_is_kept_again() -> None:
    adrift = [ClockState(synchronised=False, offset=offset) for offset in (0.5, 0.6)]
    states = [ClockState(None), *adrift, ClockState(synchronised=True, offset=0.0)]
    timekeeping = Timekeeping(iter(states).__next__)
    with capture_logs() as logs:
        for _ in states:
            timekeeping.tick()
    assert [(line["event"], line["offset"]) for line in logs] == [("clock not kept", 0.5), ("clock kept again", 0.0)]


def test_a_clock_that_jumps_is_told_and_one_that_went_far_forward_is_doubted_for_a_day() -> None:
    wall, steady = [0.0], [0.0]
    timekeeping = Timekeeping(lambda: ClockState(None), lambda: wall[0], lambda: steady[0])

    def later(seconds: float, jump: float = 0) -> tuple[list[float], bool]:
        steady[0] += seconds
        wall[0] += seconds + jump
        with capture_logs() as logs:
            timekeeping.tick()
        return [line["seconds"] for line in logs if line["event"] == "clock jumped"], timekeeping.is_doubtful()

    assert later(600, 0.3) == ([], False)
    assert later(600, 600) == ([600], False)
    assert later(600, 7 * 86400) == ([604800], True)
    assert later(600, -60) == ([-60], True)
    assert later(600, -7 * 86400) == ([-604800], False)
    assert later(600, 3601) == ([3601], True)
    assert later(86399) == ([], True)
    assert later(1) == ([], False)
    assert later(600, 61) == ([61], False)
