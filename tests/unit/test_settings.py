"""The settings: refused with a hint, overridden by environment, masked, and documented key by key."""

import re
import tomllib
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from time import tzset
from typing import Any

import pytest
from pydantic import ValidationError

from config.errors import InvalidSettings
from config.settings import (
    DEFAULT_FILE,
    FILE_VARIABLE,
    Caller,
    Delivery,
    Destination,
    Dicom,
    Settings,
    changed_keys,
    known_keys,
    load_settings,
)

A_BUCKET = """
[bucket]
url = "s3://images/site/a/"
endpoint = "https://s3.example.org/"
access_key_id = "us"
secret_access_key = "s3cret"
"""
DOCUMENTED = DEFAULT_FILE.read_text(encoding="utf-8")


@pytest.fixture(autouse=True)
def no_settings_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in [name for name in os.environ if name.startswith("MAMMONODE_")]:
        monkeypatch.delenv(name)


def a_file(folder: Path, text: str) -> Path:
    path = folder / "mammonode.toml"
    path.write_text(text, encoding="utf-8")
    return path


def faults(folder: Path, text: str) -> tuple[str, ...]:
    with pytest.raises(InvalidSettings) as refusal:
        load_settings(a_file(folder, text))
    return refusal.value.faults


def test_without_a_file_the_defaults_hold() -> None:
    assert load_settings().model_dump() == Settings().model_dump()


def test_the_documented_file_says_the_defaults() -> None:
    assert load_settings(DEFAULT_FILE).model_dump() == Settings().model_dump()


def uncommented() -> str:
    """Return the documented file with its examples as settings."""
    example = re.compile(r"^# (\[[\[a-z]|\w+ = |(?:callers|clients|sources) = \[$|  \{|\]$|# )", re.MULTILINE)
    lines = [line[2:] if example.match(line) else line for line in DOCUMENTED.splitlines()]
    text = "\n".join(lines)
    text = text.replace("\ncallers = []", "").replace("\nclients = []", "").replace("\nsources = []", "")
    # Clients are known by an authority's word.
    return text.replace('\nclient_ca = ""', '\nclient_ca = "ca.pem"').replace(
        '\ncertificate = ""', '\ncertificate = "node.pem"'
    )


def test_every_key_is_in_the_documented_file_and_every_key_there_exists() -> None:
    content = tomllib.loads(uncommented())
    found = set()
    for section, values in content.items():
        for table in values if isinstance(values, list) else [values]:
            for key, value in table.items():
                nested = value if isinstance(value, list) and value and isinstance(value[0], dict) else None
                nested = [value] if key in {"web", "query"} else nested
                found |= (
                    {f"{section}.{key}.{leaf}" for item in nested for leaf in item} if nested else {f"{section}.{key}"}
                )
    assert found == set(known_keys())


def test_the_examples_of_the_documented_file_are_valid(tmp_path: Path) -> None:
    settings = load_settings(a_file(tmp_path, uncommented()))
    assert [caller.ae_title for caller in settings.dicom.callers] == ["MODALITY1", "PACS"]
    assert [destination.name for destination in settings.destinations] == ["pacs", "archive"]
    assert [client.scopes for client in settings.http.clients] == [("store", "read")]


def test_every_key_of_the_documented_file_is_explained() -> None:
    lines = DOCUMENTED.splitlines()
    keys = [number for number, line in enumerate(lines) if re.match(r"\w+ = ", line)]
    assert len(keys) > 25
    for number in keys:
        assert lines[number - 1].startswith("# "), lines[number]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("[dicom]\nprot = 104", "dicom.prot: unknown key; did you mean dicom.port?"),
        ("[dicm]\nport = 104", "dicm: unknown key; did you mean dicom?"),
        (
            '[[destinations]]\nname = "a"\nae_title = "A"\nhost = "h"\nprt = 1\nport = 1',
            "destinations.prt: unknown key",
        ),
        ('[storage]\nzzzzzz = "x"', "storage.zzzzzz: unknown key"),
    ],
)
def test_an_unknown_key_is_refused_with_its_path_and_the_nearest_known_one(
    tmp_path: Path, text: str, fault: str
) -> None:
    [found] = faults(tmp_path, text)
    assert found.startswith(fault)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("[dicom]\nport = 70000", "dicom.port"),
        ('[dicom]\nae_title = "SEVENTEEN_LETTERS"', "dicom.ae_title"),
        ('[dicom]\nae_title = "BACK\\\\SLASH"', "dicom.ae_title"),
        ("[exam]\ncomplete_quiet = 0", "exam.complete_quiet"),
        ('[reader]\ndevice = "gpu"', "reader.device"),
        ('[bucket]\nurl = "https://bucket"', "bucket.url"),
        ('[bucket]\nurl = "s3://images"\naccess_key_id = "us"', "bucket"),
        ('[bucket]\nendpoint = "http://s3.example.org"', "bucket"),
        (f"{A_BUCKET}[retention]\nwatermark_percent = 80", "retention.watermark_percent"),
        ('[[destinations]]\nname = "a"\nae_title = "A"\nhost = "pacs..example.org"\nport = 1', "destinations.host"),
        ('[audit]\nsyslog_host = ".example.org"\nca = "/ca.pem"', "audit.syslog_host"),
        ('[[destinations]]\nname = "A B"\nae_title = "A"\nhost = "h"\nport = 1', "destinations.name"),
        (
            '[[destinations]]\nname = "a"\nae_title = "A"\nhost = "h"\nport = 1\nobjects = ["RTSS"]',
            "destinations.objects",
        ),
    ],
)
def test_a_wrong_value_is_refused_with_the_path_of_its_key(tmp_path: Path, text: str, key: str) -> None:
    [found] = faults(tmp_path, text)
    assert found.startswith(f"{key}: ")


def test_a_fault_says_in_which_of_several_tables_it_stands(tmp_path: Path) -> None:
    good = '[[destinations]]\nname = "a"\nae_title = "A"\nhost = "h"\nport = 1\n'
    wrong, unknown = good.replace("port = 1", 'port = "x"'), good.replace("host", "hots")
    assert [found for found in faults(tmp_path, good + wrong) if found.endswith(" (number 2)")]
    [found] = [found for found in faults(tmp_path, good + good + unknown) if "unknown" in found]
    assert found == "destinations.hots: unknown key (number 3); did you mean destinations.host?"


@pytest.mark.parametrize(
    ("dicom", "http", "faulty"),
    [
        ("127.0.0.1", "127.0.0.1", True),
        ("0.0.0.0", "localhost", True),  # noqa: S104
        ("::", "::1", True),
        ("192.0.2.1", "127.0.0.1", False),
        ("0.0.0.0", "::1", False),  # noqa: S104
    ],
)
def test_two_doors_at_one_port_of_an_address_are_refused(
    tmp_path: Path, dicom: str, http: str, *, faulty: bool
) -> None:
    text = f'[dicom]\nbind = "{dicom}"\nport = 4242\n[http]\nbind = "{http}"\nport = 4242'
    path = tmp_path / "mammonode.toml"
    path.write_text(text, encoding="utf-8")
    if faulty:
        assert faults(tmp_path, text) == ("http.port: 4242 is dicom.port too, at the same address",)
        text = text.replace("4242", "0")
        path.write_text(text, encoding="utf-8")
    load_settings(path)


@pytest.mark.parametrize("address", ["modality.example.org", "192.168.1.0/24", "192.168.001.020", "192.168.1"])
def test_the_address_of_a_caller_has_to_be_one(tmp_path: Path, address: str) -> None:
    [found] = faults(tmp_path, f'[dicom]\ncallers = [{{ ae_title = "A", address = "{address}" }}]')
    assert found.startswith("dicom.callers.address: ")
    assert f"{address!r} is no IP address" in found


@pytest.mark.parametrize(
    ("address", "seen"),
    [
        (" 192.168.1.20", "192.168.1.20"),
        ("2001:DB8:0::1", "2001:db8::1"),
        ("::FFFF:192.0.2.1", "::ffff:192.0.2.1"),
        ("", ""),
    ],
)
def test_the_address_of_a_caller_is_kept_as_the_door_sees_it(address: str, seen: str) -> None:
    assert Caller(ae_title="A", address=address).address == seen


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    assert len(faults(tmp_path, "[dicom]\nprot = 1\nport = -1\n[exam]\nhard_cap = 0")) == 3


def test_two_destinations_of_one_name_are_refused(tmp_path: Path) -> None:
    one = '[[destinations]]\nname = "pacs"\nae_title = "A"\nhost = "h"\nport = 1\n'
    assert faults(tmp_path, one * 2) == ("destinations: two have one name",)


def test_broken_toml_is_told_with_its_line(tmp_path: Path) -> None:
    [fault] = faults(tmp_path, "[dicom]\nport 104")
    assert "line 2" in fault
    assert "mammonode.toml" in fault


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidSettings, match="no such file"):
        load_settings(tmp_path / "absent.toml")


def test_the_environment_wins_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = a_file(tmp_path, '[dicom]\nport = 105\nae_title = "FROM_FILE"')
    monkeypatch.setenv("MAMMONODE_DICOM__PORT", "106")
    settings = load_settings(path)
    assert (settings.dicom.port, settings.dicom.ae_title) == (106, "FROM_FILE")


def test_the_environment_may_name_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FILE_VARIABLE, str(a_file(tmp_path, "[dicom]\nport = 105")))
    assert load_settings().dicom.port == 105


def test_what_systemd_hands_over_wins_over_the_file_and_the_environment_over_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    (credentials / "mammonode_storage.database").write_text("postgresql://me:s3cret@db/mammonode\n")
    (credentials / "dicom.port").write_text("105")
    (credentials / "something_else").write_text("x")
    (credentials / "mammonode_tls.key").write_text("-----BEGIN PRIVATE KEY-----")
    (credentials / "tls.certificate").write_text("-----BEGIN CERTIFICATE-----")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(credentials))
    path = a_file(tmp_path, '[storage]\ndatabase = "sqlite:///x"\nmin_free_gb = 1\n[dicom]\nport = 104')
    settings = load_settings(path)
    assert settings.storage.database_url == "postgresql://me:s3cret@db/mammonode"
    assert (settings.dicom.port, settings.storage.min_free_gb) == (105, 1)
    # What is a file's name is that of the credential itself.
    assert settings.tls.key == str(credentials / "mammonode_tls.key")
    monkeypatch.setenv("MAMMONODE_DICOM__PORT", "106")
    assert load_settings(path).dicom.port == 106


def test_a_wrong_key_among_the_credentials_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "storage.databse").write_text("x")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    with pytest.raises(InvalidSettings, match=r"storage\.databse: unknown key; did you mean storage\.database"):
        load_settings()


def test_changed_keys_are_named_by_their_paths() -> None:
    one = Settings()
    other = Settings(dicom=Dicom(port=1), destinations=(a_place(),))
    assert changed_keys(one, other) == ["dicom.port", "destinations"]
    assert changed_keys(one, Settings()) == []


def test_a_wrong_value_in_the_environment_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAMMONODE_DICOM__PORT", "many")
    with pytest.raises(InvalidSettings, match=r"dicom\.port"):
        load_settings()


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('dicom.ae_title = "AN AE TITLE THAT IS LONG"', "dicom.ae_title: must have 1 to 16 ASCII characters"),
        ('dicom.ae_title = ""', "dicom.ae_title: must have 1 to 16 ASCII characters"),
        ('dicom.callers = [{ ae_title = "A\\\\B" }]', "dicom.callers.ae_title: must have 1 to 16 ASCII characters"),
        ('destinations = [{ name = "A b" }]', "destinations.name: must have 1 to 32 of a-z, 0-9, - and _"),
        ('destinations = [{ name = "a", windows = ["8-9"] }]', "must be two times of day, as 22:00-06:00"),
        ('bucket.url = "http://me:s3cret@host"', "bucket.url: must be s3:// and the bucket's name"),
        ('bucket.endpoint = "http://me:s3cret@host"', "bucket.endpoint: must begin with http:// or https://"),
        ('http.oidc_issuer = "http://far.example"', "http.oidc_issuer: must begin with https://"),
        ('reader.device = "gpu"', "reader.device: must be auto, cpu, cuda"),
    ],
)
def test_a_text_of_another_form_is_refused_in_words_and_not_quoted(tmp_path: Path, text: str, fault: str) -> None:
    with pytest.raises(InvalidSettings) as refused:
        load_settings(a_file(tmp_path, text))
    told = str(refused.value)
    assert fault in told
    assert not any(part in told for part in ("pattern", "Value error", "s3cret"))


def test_lists_and_whole_sections_come_from_the_environment_as_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAMMONODE_DICOM__CALLERS", '[{"ae_title": "CT"}]')
    monkeypatch.setenv("MAMMONODE_DICOM", '{"port": 105, "ae_title": "FROM_SECTION"}')
    monkeypatch.setenv("mammonode_dicom__port", "106")
    monkeypatch.setenv("MAMMONODE_DESTINATIONS", '[{"name": "a", "ae_title": "A", "host": "h", "port": 1}]')
    monkeypatch.setenv("MAMMONODE_STORAGE__DATABASE", "[s3cret")
    settings = load_settings(a_file(tmp_path, "[dicom]\nport = 104\nallow_unknown_callers = true"))
    assert [caller.ae_title for caller in settings.dicom.callers] == ["CT"]
    assert (settings.dicom.port, settings.dicom.ae_title) == (106, "FROM_SECTION")
    assert settings.dicom.allow_unknown_callers
    assert [destination.name for destination in settings.destinations] == ["a"]
    assert settings.storage.database_url == "[s3cret"


@pytest.mark.parametrize(
    ("name", "text", "fault"),
    [
        ("MAMMONODE_DICOM__CALLERS", "[s3cret", 'environment: error parsing value for field "dicom"'),
        ("MAMMONODE_DICOM__PRT", "1", "dicom.prt: unknown key; did you mean dicom.port?"),
        ("MAMMONODE_DICM__PORT", "1", "dicm: unknown key; did you mean dicom?"),
        ("MAMMONODE_DESTINATIONS__NAME", "a", "destinations: "),
    ],
)
def test_a_variable_that_sets_nothing_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, text: str, fault: str
) -> None:
    monkeypatch.setenv(name, text)
    with pytest.raises(InvalidSettings) as refusal:
        load_settings()
    [found] = refusal.value.faults
    assert found.startswith(fault)
    assert "s3cret" not in found


def test_a_password_is_masked_where_settings_are_shown(tmp_path: Path) -> None:
    settings = load_settings(a_file(tmp_path, '[storage]\ndatabase = "postgresql://me:s3cret@db/mammonode"'))
    assert settings.storage.database_url == "postgresql://me:s3cret@db/mammonode"
    assert "s3cret" not in f"{settings.masked()} {settings!r}"


def test_a_bucket_has_a_name_a_prefix_and_keys_that_are_not_shown(tmp_path: Path) -> None:
    settings = load_settings(a_file(tmp_path, A_BUCKET))
    place = settings.bucket.place
    assert place
    assert (place.name, place.prefix, place.endpoint) == ("images", "site/a", "https://s3.example.org")
    assert (place.secret_access_key, place.keep_bytes) == ("s3cret", 100_000_000_000)
    assert "s3cret" not in f"{settings.masked()} {settings!r} {place!r}"
    assert load_settings().bucket.place is None


def test_without_a_database_it_lies_beside_the_files(tmp_path: Path) -> None:
    settings = load_settings(a_file(tmp_path, f'[storage]\nfolder = "{tmp_path / "store"}"'))
    assert settings.storage.database_url == f"sqlite:///{tmp_path / 'store' / 'mammonode.sqlite'}"


def a_place(**changes: Any) -> Destination:
    return Destination(name="a", ae_title="A", host="h", port=1, **changes)


def test_a_destination_is_tried_as_all_are_but_for_what_it_says_itself() -> None:
    common = Delivery(first_retry=5, give_up_days=3)
    assert a_place().policy(common) == common.policy
    own = a_place(slowest_retry=60, quick_retries=0).policy(common)
    assert (own.quick, own.first, own.slow) == (0, timedelta(seconds=5), timedelta(seconds=60))
    assert own.give_up_after == timedelta(days=3)


@pytest.mark.parametrize(
    ("windows", "open_at", "closed_at"),
    [
        (("22:00-06:00",), ("22:00", "23:59", "00:00", "05:59"), ("06:00", "12:00", "21:59")),
        (("06:00-07:00", "12:30-13:00"), ("06:00", "06:59", "12:45"), ("05:59", "07:00", "13:00", "00:00")),
        ((), ("00:00", "12:00"), ()),
    ],
)
def test_windows_are_parts_of_every_day_in_local_time(
    windows: tuple[str, ...], open_at: tuple[str, ...], closed_at: tuple[str, ...]
) -> None:
    destination = a_place(windows=windows)
    for text, expected in [*((t, True) for t in open_at), *((t, False) for t in closed_at)]:
        moment = datetime.combine(date(2026, 3, 4), time.fromisoformat(text)).astimezone()
        assert destination.is_open(moment) is expected, text
        assert destination.is_open(moment.astimezone(UTC)) is expected, text


@pytest.mark.parametrize(
    ("evening", "hours"), [(datetime(2026, 10, 24, 19, tzinfo=UTC), 9), (datetime(2027, 3, 27, 19, tzinfo=UTC), 7)]
)
def test_windows_go_by_the_local_clock_in_nights_in_which_it_changes(
    monkeypatch: pytest.MonkeyPatch, evening: datetime, hours: int
) -> None:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    tzset()
    destination = a_place(windows=("22:00-06:00",))
    night = [destination.is_open(evening + timedelta(hours=hour)) for hour in range(14)]
    monkeypatch.undo()
    tzset()
    assert sum(night) == hours
    assert any(night[begin : begin + hours] == [True] * hours for begin in range(14)), "in one piece"


@pytest.mark.parametrize("window", ["22:00", "22-06", "24:00-06:00", "22:00-22:00", "22:00 - 06:00"])
def test_a_window_that_is_none_is_refused(tmp_path: Path, window: str) -> None:
    one = f'[[destinations]]\nname = "a"\nae_title = "A"\nhost = "h"\nport = 1\nwindows = ["{window}"]'
    [found] = faults(tmp_path, one)
    assert found.startswith("destinations.windows: ")


def test_settings_do_not_change_once_read() -> None:
    with pytest.raises(ValidationError):
        load_settings().dicom.port = 1  # type: ignore[misc]
