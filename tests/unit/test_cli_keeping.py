"""The command line: backups, damage, what is adopted."""

import json
import os
import socket
import sys
from pathlib import Path

import pytest
from pydicom.uid import EnhancedSRStorage

from config.settings import load_settings
from node import cli
from node.demo.run import run_demo
from node.intake import Intake
from node.parts import open_parts
from storage.database import installation_id
from storage.holding import held
from tests.builders import altered
from tests.command_line import a_config, config, fault_of, run
from tests.doors import ROOM_ENOUGH, Room, phantom_images
from tests.pacs import a_free_port

__all__ = ["config"]

pytestmark = [
    # pynetdicom does not close the socket of a connection that was refused.
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
    # smp renames its encoders one day; the version is pinned.
    pytest.mark.filterwarnings("ignore:`timm-` encoders are deprecated:DeprecationWarning"),
]


def a_damaged_database(config: Path) -> Path:
    file = config.parent / "store" / "mammonode.sqlite"
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(b"no database" * 1000)
    return file


@pytest.mark.parametrize("command", ["serve", "exams"])
def test_a_damaged_database_is_one_line(
    command: str, config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    a_damaged_database(config)
    monkeypatch.setattr(sys, "argv", ["mammonode", command, "--config", str(config)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    [line] = "".join(capsys.readouterr()).splitlines()
    assert "The database is damaged: stop the node and restore a backup" in line
    assert ("cannot start" in line) == (command == "serve")


def test_check_finds_damage_that_no_question_meets(config: Path) -> None:
    open_parts(load_settings(config)).engine.dispose()
    file = config.parent / "store" / "mammonode.sqlite"
    file.write_bytes(file.read_bytes()[:-4096] + b"\xff" * 4096)
    result = run("check", "--json", "--config", config)
    told = {each["check"]: each for each in json.loads(result.stdout)["checks"]}
    assert not told["database"]["ok"]
    assert "mammonode restore" in told["database"]["detail"]


def test_the_demo_empties_no_folder_but_its_own(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    assert run_demo(tmp_path) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_backup_restore_and_adopt_keep_every_image(tmp_path: Path) -> None:
    config = a_config(tmp_path, more=f"[dicom]\nport = {a_free_port()}")
    opened = open_parts(load_settings(config))
    room = Room(opened.store, opened.engine, Intake(opened.store, opened.engine, ROOM_ENOUGH))
    made = run("backup", "--config", config)
    file = Path(made.output.strip())
    assert file.parent == tmp_path / "store" / "backups"
    assert run("backup", file, "--config", config).exit_code == 1
    # As one in a folder that is closed to the service: it cannot even be looked at.
    assert "File name too long" in fault_of(run("backup", tmp_path / ("x" * 300), "--config", config))
    room.receive(phantom_images()[0])
    refused = run("restore", file, "--config", config)
    assert "--replace" in fault_of(refused)
    same = run("restore", file, "--replace", "--if-schema-changed", "--config", config)
    assert (same.exit_code, room.rows()) == (0, (1, 1, 0))
    assert "stays as it is" in same.output
    restored = run("restore", file, "--replace", "--config", config)
    assert (restored.exit_code, room.rows()) == (0, (1, 1, 0))
    assert str(file) in restored.output
    trail = json.loads(run("audit", "list", "--json", "--config", config).stdout)
    assert [each["outcome"] for each in trail] == [f"database restored from {file.name}"]
    told = run("adopt", "--json", "--config", config)
    assert json.loads(told.stdout) == {"adopted": 0, "unreadable": 0, "gone": 0}
    broken = opened.store.root / "instances" / "1.2" / "1.2.3" / "1.2.3.4.dcm"
    broken.parent.mkdir(parents=True)
    broken.write_bytes(b"cut off")
    restored = run("restore", file, "--replace", "--config", config)
    assert (restored.exit_code, "1 adopted, 1 unreadable" in restored.output) == (1, True)
    broken.unlink()
    [image] = (opened.store.root / "instances").rglob("*.dcm")
    image.unlink()
    told = run("adopt", "--config", config)
    assert (told.exit_code, "the store has not: 1." in told.output) == (1, True)
    opened.engine.dispose()


def test_nothing_is_removed_from_a_store_of_another_installation_until_it_is_taken_over(tmp_path: Path) -> None:
    config = a_config(tmp_path, more=f"[dicom]\nport = {a_free_port()}")
    opened = open_parts(load_settings(config))
    purge = ("purge", "--days", "0", "--yes", "--config", config)
    room = Room(opened.store, opened.engine, Intake(opened.store, opened.engine, ROOM_ENOUGH))
    room.receive(altered(phantom_images()[0], SOPClassUID=EnhancedSRStorage))
    opened.store.mark("ab" * 16)
    assert "The store is another node's" in fault_of(run(*purge))
    found = json.loads(run("check", "--json", "--config", config).stdout)["checks"]
    [told] = [each for each in found if each["check"] == "store"]
    assert not told["ok"]
    assert "mammonode adopt" in told["detail"]
    assert run("adopt", "--config", config).exit_code == 0
    assert opened.store.owner() == installation_id(opened.engine)
    assert "Removed 1 file" in run(*purge).output
    opened.engine.dispose()


def test_nothing_is_restored_under_a_running_node(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as door:
        config = a_config(tmp_path, more=f"[dicom]\nport = {door.getsockname()[1]}")
        open_parts(load_settings(config)).engine.dispose()
        file = run("backup", "--config", config).output.strip()
        assert "stop it first" in fault_of(run("restore", file, "--config", config))
        assert "stop it first" in fault_of(run("adopt", "--config", config))
        # Another program may have the port: `systemctl stop` alone would be a dead end.
        assert "ss -ltnp" in fault_of(run("adopt", "--config", config))


def test_nothing_is_restored_under_a_node_whose_door_is_elsewhere_or_not_open_yet(tmp_path: Path) -> None:
    config = a_config(tmp_path, more=f"[dicom]\nport = {a_free_port()}")
    open_parts(load_settings(config)).engine.dispose()
    file = run("backup", "--config", config).output.strip()
    with held(tmp_path / "store"):
        assert f"process {os.getpid()}" in fault_of(run("restore", file, "--replace", "--config", config))
        assert f"process {os.getpid()}" in fault_of(run("adopt", "--config", config))
    assert run("restore", file, "--config", config).exit_code == 0


def test_nothing_is_restored_under_a_node_that_another_host_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = a_config(tmp_path, more=f"[dicom]\nport = {a_free_port()}")
    open_parts(load_settings(config)).engine.dispose()
    file = run("backup", "--config", config).output.strip()
    monkeypatch.setattr("storage.holding.Seat.holder", lambda _: "process 7 of other")
    assert "process 7 of other" in fault_of(run("restore", file, "--replace", "--config", config))


def test_nothing_is_restored_where_nothing_could_be_adopted(tmp_path: Path) -> None:
    config = a_config(tmp_path, more=f"[dicom]\nport = {a_free_port()}\n[reader]\nmodel = 'none'")
    opened = open_parts(load_settings(config))
    room = Room(opened.store, opened.engine, Intake(opened.store, opened.engine, ROOM_ENOUGH))
    file = run("backup", "--config", config).output.strip()
    room.receive(phantom_images()[0])
    assert "reader.model" in fault_of(run("restore", file, "--replace", "--config", config))
    assert room.rows() == (1, 1, 0)
    opened.engine.dispose()
