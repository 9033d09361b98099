"""The guide's commands: each is there, and those of the table of symptoms do what they are there for."""

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import typer
from typer.testing import CliRunner

from config.settings import load_settings
from node.cli import app
from node.faults import KNOWN_FAULTS
from node.parts import open_parts
from storage.database import reading
from storage.exams import list_exams
from tests.pacs import a_free_port, waiting_results

GUIDE: Final = Path(__file__).resolve().parents[2] / "docs" / "operating.md"
OTHERS: Final = {"df", "journalctl", "nvidia-smi", "psql", "ss", "systemctl", "timedatectl"}
"""Programs that the table of symptoms names and that are not ours."""
SENDS: Final = {"echo", "retry", "send"}
"""Those whose end depends on a PACS, or on the exam's state."""

pytestmark = [
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:`timm-` encoders are deprecated:DeprecationWarning"),
]


def commands(text: str) -> list[list[str]]:
    """Return our commands in shell blocks and in backticks, word by word."""
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    spans = re.findall(r"`((?:sudo )?mammonode [a-z][^`]*)`", text)
    found = [re.sub(r"^sudo ", "", line.split("#")[0].strip()) for line in [*lines, *spans]]
    return [shlex.split(line)[1:] for line in found if line.startswith("mammonode ")]


def symptoms() -> list[tuple[str, str, str]]:
    table = GUIDE.read_text(encoding="utf-8").split("## What to do when")[1]
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line.startswith("|")
    ]
    return [(symptom, look, cure) for symptom, look, cure in rows[2:]]


def test_every_command_of_the_guide_is_there_with_its_options() -> None:
    found = commands(GUIDE.read_text(encoding="utf-8"))
    assert len(found) > 40
    for words in found:
        command: Any = typer.main.get_command(app)
        options: set[str] = set()
        for word in words:
            command = (hasattr(command, "get_command") and command.get_command(typer.Context(command), word)) or command
            options |= {option for parameter in command.params for option in parameter.opts}
            if word.startswith("--"):
                assert word in options, words
        assert command.name in words, words


def test_there_is_a_command_for_each_of_twenty_symptoms() -> None:
    rows = symptoms()
    assert len(rows) >= 20
    for symptom, look, cure in rows:
        [command] = re.findall(r"`([^`]+)`", look)
        program = command.split()[0]
        assert program == "mammonode" or program in OTHERS, symptom
        assert cure


def files_of(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): path.read_text(encoding="utf-8") for path in folder.rglob("*") if path.is_file()
    }


def test_store_and_settings_come_back_from_the_backup_each_to_its_place(tmp_path: Path) -> None:
    if shutil.which("rsync") is None:
        pytest.skip("rsync is not installed")
    store, settings = tmp_path / "var" / "lib" / "mammonode", tmp_path / "etc" / "mammonode"
    stays = ("incoming/half", "outgoing/half", "mammonode.sqlite", "mammonode.sqlite-wal", "serve.lock")
    goes = {
        store: ("instances/1.2/incoming/a.dcm", "backups/mammonode-2026.sqlite", "mammonode.toml"),
        settings: ("mammonode.toml", "credentials/storage.database"),
    }
    for file in [folder / name for folder, names in goes.items() for name in names] + [store / name for name in stays]:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(str(file), encoding="utf-8")
    (tmp_path / "host").mkdir()
    guide = GUIDE.read_text(encoding="utf-8").replace("\\\n", " ").replace("BACKUP-HOST:...", str(tmp_path / "host"))
    guide = guide.replace(" /var/lib/mammonode", f" {store}").replace(" /etc/mammonode", f" {settings}")
    lines = [shlex.split(line, comments=True)[1:] for line in guide.splitlines() if line.startswith("sudo rsync ")]
    assert len(lines) == 4
    for line in lines[:2]:
        subprocess.run(line, check=True)
    for folder in goes:
        shutil.rmtree(folder)
        folder.mkdir()
    for line in lines[2:]:
        subprocess.run(line, check=True)
    for folder, names in goes.items():
        assert files_of(folder) == {name: str(folder / name) for name in names}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A node's settings, and the id of an exam that was answered and is not yet sent."""
    folder = tmp_path_factory.mktemp("site")
    path = folder / "mammonode.toml"
    path.write_text(
        f'[storage]\nfolder = "{folder / "store"}"\nmax_used_percent = 100\nmin_free_gb = 0\n'
        f'[[destinations]]\nname = "pacs"\nae_title = "PACS"\nhost = "127.0.0.1"\nport = {a_free_port()}\n',
        encoding="utf-8",
    )
    parts = open_parts(load_settings(path))
    waiting_results(parts.store, parts.engine, ["pacs"])
    with reading(parts.engine) as connection:
        [exam] = list_exams(connection, 1)
    yield path, exam.uid
    parts.engine.dispose()


OURS: Final = sorted({tuple(words) for row in symptoms() for words in commands(" ".join(row))})


@pytest.mark.parametrize("words", OURS, ids=" ".join)
def test_the_commands_for_symptoms_run(site: tuple[Path, str], tmp_path: Path, words: tuple[str, ...]) -> None:
    config, exam = site
    said = {"EXAM": exam, "ticket.json": str(tmp_path / "ticket.json")}
    told = CliRunner().invoke(app, [*(said.get(word, word) for word in words), "--config", str(config)])
    if words[0] in SENDS or words == ("check",):  # the PACS of this test is off
        assert told.exit_code in {0, 1}, told.output
    else:
        assert told.exit_code == 0, told.output
    assert told.exception is None or isinstance(told.exception, (SystemExit, *KNOWN_FAULTS))
