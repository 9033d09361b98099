"""The conformance statement says what the code does: tables, parameters, statuses; and the printed copy is the present one."""

import ast
import re
from pathlib import Path
from types import ModuleType

import pytest
from pydicom.datadict import tag_for_keyword
from pydicom.sr.coding import Code
from pydicom.tag import Tag
from typer.testing import CliRunner

from ai.errors import Unwritable
from config.mix import PROFILES, ResultKind
from config.settings import Destination, Dicom, ReaderSection, Settings, Storage, known_keys
from node import scu
from node.cli import app
from node.conformance.configuration import configuration
from node.delivery import BATCH
from node.identity import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME, RESEARCH_USE_ONLY, VERSION
from node.results import cad_codes, codes, reasons
from node.results.edition import SERIES
from node.results.encode import ENCODERS
from node.results.forms import FORMS, forms_of
from node.results.reasons import SCHEME, Reason
from node.status import (
    CANNOT_UNDERSTAND,
    COMMITMENT_STATUSES,
    FAILURE_REASONS,
    STATUSES,
    SUCCESS,
    TRIES_BEFORE_CANNOT_UNDERSTAND_IS_FINAL,
    Outcome,
    commitment_status,
    error_comment,
    failure_reason,
    is_warning,
    receiving_status,
    sending_outcome,
)
from tests.statements import CONFIGURATION, DOCUMENT, ROOT, documented_settings, printed, section, table, tables

SERVICES = {"C-ECHO", "N-ACTION", "C-FIND"}
"""What is proposed without an object."""


def test_the_printed_copy_is_the_present_one() -> None:
    command = f"mammonode conformance --config {CONFIGURATION.relative_to(ROOT)} --output {DOCUMENT.relative_to(ROOT)}"
    assert DOCUMENT.read_text(encoding="utf-8") == printed(), f"print it again: {command}"


def test_the_same_configuration_gives_the_same_statement_but_for_what_it_changes() -> None:
    assert "192.0.2.9" not in printed()
    changed = documented_settings().model_copy(update={"dicom": Dicom(bind="192.0.2.9", ae_title="OTHER")})
    text = "\n\n".join(configuration(changed))
    assert "OTHER" in text
    assert "192.0.2.9" in text


def test_the_chapters_are_those_of_the_standard_and_stand_in_the_table_of_contents() -> None:
    headings = re.findall(r"^##(#{0,2}) (\d\S* .+)$", printed(), re.MULTILINE)
    numbers = [title.split()[0] for depth, title in headings if not depth]
    assert numbers == ["1", "2", "3", "4", "5", "6", "7", "8"]
    listed = re.findall(r"^( *)- \[(.+)\]\(#(\S+)\)$", section("2"), re.MULTILINE)
    assert [title for _, title, _ in listed] == [title for _, title in headings if not title.startswith("2 ")]
    assert len({anchor for _, _, anchor in listed}) == len(listed)
    # PS3.2 Annex A.
    for number in ("4.1", "4.2", "4.3", "4.4", "8.1", "8.2", "8.3", "8.4", "8.5", "8.6"):
        assert section(number)


def test_it_says_who_it_is_and_that_it_is_for_research_only() -> None:
    cover = printed()[: printed().index("## 1 ")]
    assert RESEARCH_USE_ONLY in cover
    assert VERSION in cover
    assert RESEARCH_USE_ONLY in section("8.1.1")


def test_every_table_has_as_many_cells_in_each_row() -> None:
    assert len(list(tables(printed()))) > 30  # and `tables` refuses uneven rows


def test_the_overview_names_every_class_with_its_roles() -> None:
    rows = table(section("1"), "User of Service (SCU)")
    contexts = table(section("4.2.1.1"), "Transfer Syntax UID")
    accepted = {row["SOP Class UID"] for row in contexts if "SCP" in row["Role"]}
    proposed = {row["SOP Class UID"] for row in table(section("4.2.1.2"), "Transfer Syntax UID")}
    assert {row["SOP Class UID"] for row in rows if row["Provider of Service (SCP)"] == "Yes"} == accepted
    assert {row["SOP Class UID"] for row in rows if row["User of Service (SCU)"] == "Yes"} == proposed
    assert len({row["SOP Class UID"] for row in rows}) == len(rows) == len(accepted | proposed)


def test_the_association_parameters_are_those_in_force() -> None:
    settings = documented_settings()
    told = {row["Parameter"]: row["Value"] for row in table(section("4.2.2"), "Parameter")}
    assert told["Maximum PDU size received, as acceptor"] == str(scu.MAXIMUM_PDU_SIZE)
    assert told["Maximum PDU size received, as initiator"] == str(scu.MAXIMUM_PDU_SIZE)
    assert told["Simultaneous associations, as acceptor"] == str(settings.dicom.maximum_associations)
    assert told["Simultaneous associations, as initiator"].startswith(f"{len(settings.destinations)},")
    assert told["Network timeout (no message)"] == f"{settings.dicom.network_timeout:g} s"
    assert told["Implementation Class UID"] == IMPLEMENTATION_CLASS_UID
    assert told["Implementation Version Name"] == IMPLEMENTATION_VERSION_NAME
    assert f"at most {BATCH} " in section("4.2.3.1")
    assert f"{settings.delivery.quick_retries} quick retries" in section("4.2.3.1")


def test_every_error_stands_with_the_status_and_the_comment_that_it_is_answered_with() -> None:
    success, *errors, other = table(section("4.2.4.1"), "Error Comment")
    assert success["Status"] == f"{SUCCESS:04X}H"
    assert [(row["Reason"], row["Status"], row["Error Comment"]) for row in errors] == [
        (f"`{kind.__name__}`", f"{receiving_status(kind()):04X}H", f"`{error_comment(kind)}`") for kind, _ in STATUSES
    ]
    assert other["Status"] == f"{receiving_status(ZeroDivisionError()):04X}H" == f"{CANNOT_UNDERSTAND:04X}H"


def test_every_status_that_a_destination_may_answer_stands_with_what_comes_of_it() -> None:
    *rows, none = table(section("4.2.3.1"), "Class", "Behaviour")
    told: dict[int, dict[str, str]] = {}
    for row in rows:
        for first, last in re.findall(r"([0-9A-F]{4})H(?:-([0-9A-F]{4})H)?", row["Status"]):
            told |= dict.fromkeys(range(int(first, 16), int(last or first, 16) + 1), row)
    assert set(told) == set(range(0x10000))
    final = TRIES_BEFORE_CANNOT_UNDERSTAND_IS_FINAL
    words = {
        (Outcome.SENT, Outcome.SENT): "delivered",
        (Outcome.REFUSED, Outcome.REFUSED): "refused for good",
        (Outcome.AGAIN, Outcome.REFUSED): f"tried again; after {final} tries refused for good",
        (Outcome.AGAIN, Outcome.AGAIN): "tried again",
    }
    for status, row in told.items():
        expected = words[sending_outcome(status, final - 1), sending_outcome(status, final)]
        assert re.fullmatch(rf"{expected}(; the .*)?", row["Behaviour"]), f"{status:04X}"
        assert row["Class"] == ("Success" if status == 0 else "Warning" if is_warning(status) else "Failure")
    assert none["Behaviour"] == "tried again"
    assert sending_outcome(None, 100) is Outcome.AGAIN


def test_every_failure_reason_and_every_refusal_of_a_report_stands_with_what_comes_of_it() -> None:
    *rows, other = table(section("4.2.3.2"), "Failure Reason")
    assert {int(row["Failure Reason"][:4], 16) for row in rows} == set(FAILURE_REASONS)
    for row in rows:
        words, verdict = failure_reason(int(row["Failure Reason"][:4], 16))
        assert (row["Meaning"], row["Behaviour"]) == (words, verdict)
    assert other["Behaviour"] == failure_reason(0xC123)[1]
    refused = table(section("4.2.3.2"), "Explanation")
    assert [(row["Reason"], row["Status"]) for row in refused] == [
        (f"`{kind.__name__}`", f"{commitment_status(kind()):04X}H") for kind, _ in COMMITMENT_STATUSES
    ]


def test_every_key_stands_once_with_its_value_its_default_and_its_meaning() -> None:
    rows = table(section("4.4.2"), "Default")
    assert [row["Parameter"] for row in rows] == known_keys()
    told = {row["Parameter"]: row for row in rows}
    assert told["dicom.maximum_associations"]["Value"] == told["dicom.maximum_associations"]["Default"] == "30"
    assert told["dicom.allow_unknown_callers"]["Value"] == "false"
    assert told["exam.hard_cap"] | {"Value": "7200", "Default": "7200"} == told["exam.hard_cap"]
    without = [row["Parameter"] for row in rows if not row["Meaning"]]
    # Their names say it, and so does the documented settings file, with no line for each.
    assert without == ["destinations.ae_title", "destinations.host", "destinations.port"]


def test_a_changed_value_is_told_beside_the_default() -> None:
    changed = Settings(dicom=Dicom(maximum_associations=7, require_called_ae=False), destinations=())
    told = {row["Parameter"]: row for row in table("\n\n".join(configuration(changed)), "Default")}
    assert told["dicom.maximum_associations"] | {"Value": "7", "Default": "30"} == told["dicom.maximum_associations"]
    assert told["dicom.require_called_ae"] | {"Value": "false", "Default": "true"} == told["dicom.require_called_ae"]


def test_no_secret_and_no_place_on_this_machine_is_told(tmp_path: Path) -> None:
    model = ReaderSection(model=str(tmp_path / "model"))
    storage = Storage(folder=tmp_path / "images", database="postgresql://someone:sesame@db.example.org/mammonode")
    text = "\n\n".join(configuration(Settings(storage=storage, reader=model, destinations=())))
    for hidden in ("sesame", "someone", "db.example.org", str(tmp_path), tmp_path.name):
        assert hidden not in text
    told = {row["Parameter"]: row["Value"] for row in table(text, "Default")}
    assert told["storage.database"] == "(set, not shown)"
    assert told["storage.folder"] == told["reader.model"] == "(a place on this machine)"
    assert str(ROOT) not in printed()
    assert str(Path.home()) not in printed() or Path.home() == Path("/")


def test_every_destination_stands_with_its_address_and_its_object_mix() -> None:
    destinations = documented_settings().destinations
    rows = table(section("4.4.1"), "Profile")
    assert [row["Name"] for row in rows] == [destination.name for destination in destinations] != []
    for row, destination in zip(rows, destinations, strict=True):
        mix = destination.mix
        assert (row["AE Title"], row["Host"], row["TCP Port"]) == (
            destination.ae_title,
            destination.host,
            str(destination.port),
        )
        assert row["Threshold"] == str(mix.threshold)
        assert row["Codes of CAD_SR"] == (mix.finding_codes if ResultKind.CAD_SR in mix.objects else "")
        words = {kind: mix.series_descriptions.get(kind) or SERIES[kind][1] for kind in mix.objects}
        assert row["Series"] == "; ".join(f"{kind}: {text}" for kind, text in words.items())
        assert len(row["Objects"].split("; ")) == len(mix.objects)


def test_every_destination_stands_with_how_it_is_sent_to() -> None:
    rows = table(section("4.4.1"), "Windows")
    for row, destination in zip(rows, documented_settings().destinations, strict=True):
        policy = destination.policy(documented_settings().delivery)
        assert (row["Destination"], row["Associations"]) == (destination.name, str(destination.associations))
        assert row["Windows"] == (", ".join(destination.windows) or "always")
        assert row["Quick Retries"] == str(policy.quick)
        assert row["Given Up After"] == f"{policy.give_up_after.days} days"


def test_every_destination_stands_beside_each_form_that_it_may_be_sent() -> None:
    destinations = documented_settings().destinations
    rows = [row for row in table(section("4.2.1.2"), "Sent as") if row["Sent as"] not in SERVICES]
    for form in FORMS:
        places = [row["Destinations"] for row in rows if row["Sent as"] == form.name]
        assert len(places) == 2
        for destination in destinations:
            forms = forms_of(destination.mix, form.kind)
            told = {place.strip() for place in places[0].split(",")}
            assert (destination.name in told) is (forms[:1] == (form,))
            assert (f"{destination.name} (fallback)" in told) is (form in forms[1:])


@pytest.mark.parametrize("profile", PROFILES)
def test_a_mix_is_sent_in_one_form_of_each_kind_and_falls_back_to_another(profile: str) -> None:
    destination = Destination(name="a", ae_title="A", host="h", port=1, profile=profile)
    for kind in ResultKind:
        forms = forms_of(destination.mix, kind)
        assert bool(forms) is (kind in destination.mix.objects)
        assert len({form.choice for form in forms}) == len(forms) <= 2


def test_every_kind_that_can_be_encoded_has_a_section_of_its_own() -> None:
    assert {form.kind for form in FORMS} == set(ENCODERS) == set(ResultKind)
    headings = re.findall(r"^#### 8\.1\.\d+ ([A-Z_]+): ", section("8.1"), re.MULTILINE)
    assert sorted(headings) == sorted(ENCODERS)


def test_the_private_codes_are_all_that_the_code_has() -> None:
    rows = table(section("8.3"), "Code Value")
    told = [(row["Code Value"], row["Code Meaning"]) for row in rows]
    assert {row["Coding Scheme Designator"] for row in rows} == {SCHEME}
    assert len(set(told)) == len(told)
    assert set(told) == {code for module in (codes, cad_codes, reasons) for code in _private(module)}
    assert len(told) > len(Reason)


def test_no_other_module_has_private_codes() -> None:
    users = {
        path.name
        for path in (ROOT / "node").rglob("*.py")
        if re.search(rf"{SCHEME}|\bSCHEME\b", path.read_text(encoding="utf-8"))
    }
    # Two hold codes, one identifies the scheme in the report, two print the statement.
    assert users == {"codes.py", "reasons.py", "sr.py", "annexes.py", "terminology.py"}


def test_the_attributes_of_images_are_those_that_the_code_asks_for() -> None:
    rows = table(section("8.1"), "Purpose")
    told = {tag for row in rows for tag in re.findall(r"\([0-9A-F]{4},[0-9A-F]{4}\)", row["Attributes"])}
    asked = {
        str(Tag(tag))
        for path in ("node/views.py", "node/body_parts.py", "node/headers.py", "ai/pixels.py")
        for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.isalpha()
        if (tag := tag_for_keyword(node.value))
    }
    parts = {  # put together in node.headers
        str(Tag(f"{of}{what}")) for of in ("Acquisition", "Content") for what in ("Date", "Time")
    }
    keys = {
        str(Tag(keyword))
        for keyword in ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "PatientID", "IssuerOfPatientID")
    }
    no_keywords = {str(Tag(word)) for word in ("Date", "Time")}
    assert told == asked - no_keywords | parts | keys


def test_the_command_prints_what_the_configuration_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node.conformance.statement", lambda settings: f"# {settings.destinations[0].name}\n")
    shown = CliRunner().invoke(app, ["conformance", "--config", str(CONFIGURATION)])
    assert (shown.exit_code, shown.stdout) == (0, "# pacs\n")
    output = tmp_path / "statement.md"
    written = CliRunner().invoke(app, ["conformance", "--config", str(CONFIGURATION), "--output", str(output)])
    assert (written.exit_code, written.stdout) == (0, "")
    assert output.read_text(encoding="utf-8") == "# pacs\n"
    nowhere = str(tmp_path / "nowhere" / "statement.md")
    refused = CliRunner().invoke(app, ["conformance", "--config", str(CONFIGURATION), "--output", nowhere])
    assert isinstance(refused.exception, Unwritable)


def _private(module: ModuleType) -> set[tuple[str, str]]:
    """Return values and meanings of a module's codes of our scheme, however deep they lie."""
    found = set()
    waiting = list(vars(module).values())
    while waiting:
        value = waiting.pop()
        if isinstance(value, Code):
            if value.scheme_designator == SCHEME:
                found.add((value.value, value.meaning))
        elif isinstance(value, dict):
            waiting += value.values()
        elif isinstance(value, type) and issubclass(value, Reason):
            waiting += [reason.coded for reason in value]
    return found
