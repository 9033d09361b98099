"""What tests of the command line share: a node of their own, with an exam that was answered, and what a command says."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from config.settings import load_settings
from node.cli import app
from node.faults import KNOWN_FAULTS
from node.intake import Intake
from node.parts import Parts, open_parts
from storage.database import reading
from storage.exams import find_exam, list_exams
from tests.builders import altered
from tests.doors import ROOM_ENOUGH, Room, phantom_images
from tests.models import a_quick_model
from tests.pacs import waiting_results


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})


def fault_of(result: Result) -> str:
    """Return the known fault with which a command ended."""
    assert isinstance(result.exception, KNOWN_FAULTS), result.exception
    return str(result.exception)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return a_config(tmp_path)


def a_config(folder: Path, storage: str = "max_used_percent = 100\nmin_free_gb = 0", more: str = "") -> Path:
    path = folder / "mammonode.toml"
    path.write_text(f'[storage]\nfolder = "{folder / "store"}"\n{storage}\n{more}', encoding="utf-8")
    return path


def a_destination(port: int) -> str:
    return f'[[destinations]]\nname = "pacs"\nae_title = "PACS"\nhost = "127.0.0.1"\nport = {port}\n'


@pytest.fixture
def parts(config: Path) -> Iterator[Parts]:
    opened = open_parts(load_settings(config))
    yield opened
    opened.engine.dispose()


@pytest.fixture
def answered(parts: Parts) -> str:
    """An answered exam, whose results wait for two destinations; its id."""
    waiting_results(parts.store, parts.engine, ["pacs", "ris"])
    return the_exam(parts)


def the_exam(parts: Parts) -> str:
    """Return the id of the only exam that there is."""
    with reading(parts.engine) as connection:
        [exam] = list_exams(connection, 2)
    return exam.uid


@pytest.fixture
def contradicted(parts: Parts) -> str:
    """A held exam of one image, which came again as another patient's; its id."""
    image = phantom_images()[0]
    room = Room(parts.store, parts.engine, Intake(parts.store, parts.engine, ROOM_ENOUGH))
    for copy in (image, altered(image, PatientID="RIGHT")):
        room.receive(copy)
    return the_exam(parts)


def exam_of(parts: Parts, uid: str) -> Any:
    with reading(parts.engine) as connection:
        return find_exam(connection, uid)


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a model that reads in a quarter of the time."""
    return a_quick_model(tmp_path_factory.mktemp("model") / "quick").folder
