"""The events of the log: constant names, each in the catalogue, the grave ones with what to check, all documented."""

import re
from pathlib import Path

from typer.testing import CliRunner

from node.cli import app
from node.events import as_catalog, as_markdown, events
from tests.events import logged_events

ROOT = Path(__file__).parents[2]
GRAVE = {"warning", "error", "exception", "critical"}


def test_every_event_has_a_constant_name() -> None:
    found = logged_events()
    assert len(found) > 80
    assert [logged.where for logged in found if logged.event is None] == []


def test_every_event_is_in_the_catalogue_and_every_one_there_can_happen() -> None:
    assert {logged.event for logged in logged_events()} == set(events()), "node/events.toml"


def test_every_event_that_can_be_grave_says_what_to_check() -> None:
    grave = {logged.event for logged in logged_events() if GRAVE.intersection(logged.levels)}
    assert {event.name for event in events().values() if event.check} == grave, "node/events.toml"


def test_the_catalogue_is_whole() -> None:
    for event in events().values():
        assert event.phase.isalpha(), event
        assert len(event.means.split()) > 2, event
    assert len({event.message_id for event in events().values()}) == len(events())


def test_they_are_documented() -> None:
    documented = (ROOT / "docs" / "events.md").read_text(encoding="utf-8")
    assert documented.splitlines() == list(as_markdown()), "mammonode events --markdown > docs/events.md"


def test_the_command_explains_an_event() -> None:
    shown = CliRunner().invoke(app, ["events", "Refused for GOOD"])
    assert shown.exit_code == 0
    assert "its configuration for this SOP class" in shown.output
    assert "instance received" not in shown.output
    assert CliRunner().invoke(app, ["events", "no such thing"]).exit_code == 1
    assert CliRunner().invoke(app, ["events", "--markdown"]).output.splitlines() == list(as_markdown())


def test_the_catalog_for_journalctl_has_an_entry_for_each() -> None:
    text = "\n".join(as_catalog())
    assert len(re.findall(r"^-- [0-9a-f]{32}$", text, re.MULTILINE)) == len(events())
    assert f"-- {events()['job failed'].message_id}\nSubject: job failed\nDefined-By: Mammonode\n\n" in text
