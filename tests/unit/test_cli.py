"""The command line: what each command prints, for people and for scripts, and its exit status."""

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import update

from ai.models import open_model
from config.settings import DEFAULT_MODEL, Settings, Storage, load_settings
from node import cli
from node.faults import KNOWN_FAULTS
from node.parts import Parts, open_parts
from storage.database import writing
from storage.holding import held
from storage.tables import jobs
from tests.command_line import a_config, a_destination, answered, config, contradicted, parts, run
from tests.pacs import a_free_port, a_pacs

__all__ = ["answered", "config", "contradicted", "parts"]

pytestmark = [
    # pynetdicom does not close the socket of a connection that was refused.
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
    # smp renames its encoders one day; the version is pinned.
    pytest.mark.filterwarnings("ignore:`timm-` encoders are deprecated:DeprecationWarning"),
]


def test_check_says_that_all_is_well(tmp_path: Path) -> None:
    with a_pacs() as (_, port):
        door = f"[dicom]\nport = {a_free_port()}\n[http]\nport = {a_free_port()}\n"
        result = run("check", "--config", a_config(tmp_path, more=door + a_destination(port)))
    assert result.exit_code == 0, result.output
    for name in ("settings", "database", "disk", "model", "DICOM door", "HTTP door", "destination pacs"):
        assert f"ok   {name}: " in result.output
    assert "dicom.ae_title = 'MAMMONODE'" in result.output


def test_check_says_when_a_destination_that_commits_could_not_report_to_us(tmp_path: Path) -> None:
    with a_pacs() as (_, port):
        path = a_config(tmp_path, more=a_destination(port) + 'proof = "commitment"\n')
        assert "add PACS to callers in [dicom]" in run("echo", "--config", path).output
        known = '[dicom]\ncallers = [{ ae_title = "PACS" }]\n'
        path = a_config(tmp_path, more=known + a_destination(port) + 'proof = "commitment"\n')
        assert "add PACS" not in run("echo", "--config", path).output


def test_check_says_for_every_failure_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        more = '[reader]\nmodel = "absent"\n' + a_destination(a_free_port())
        taken = stranger.getsockname()[1]
        more = (
            f'[dicom]\nport = {taken}\n[http]\nbind = "127.0.0.2"\nport = {taken}\ncertificate = "absent.pem"\n{more}'
        )
        path = a_config(
            tmp_path, f'database = "postgresql://me:s3cret@127.0.0.1:{a_free_port()}/x"\nmin_free_gb = 1e9', more
        )
        monkeypatch.setattr("node.doors.SOON", 0.2)
        result = run("check", "--json", "--config", path)
    assert result.exit_code == 1
    assert "s3cret" not in result.output
    told = json.loads(result.stdout)
    assert told["settings"]["reader"]["model"] == "absent"
    checks = {check["check"]: check for check in told["checks"]}
    assert [name for name, check in checks.items() if check["ok"]] == ["settings", "clock"]
    for name, remedy in (
        ("database", "storage.database"),
        ("disk", "storage.min_free_gb"),
        ("model", "mammonode models"),
        ("DICOM door", "ss -ltnp"),
        ("HTTP door", "in [http]"),
        ("destination pacs", "does it know MAMMONODE"),
    ):
        assert remedy in checks[name]["remedy"]


def test_check_names_every_fault_of_the_settings(tmp_path: Path) -> None:
    result = run("check", "--config", a_config(tmp_path, "", "[dicom]\nprot = 1\nport = -1"))
    assert result.exit_code == 1
    assert "dicom.prot: unknown key; did you mean dicom.port?" in result.output
    assert "dicom.port: " in result.output
    assert "-> correct this; " in result.output


def test_a_fault_of_the_settings_that_a_reload_finds_is_a_warning_of_the_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node.cli.running.is_the_journal", lambda _stream: True)
    result = run("check", "--settings-only", "--config", a_config(tmp_path, "", "[dicom]\nport = -1"))
    assert [line[:8] for line in result.output.splitlines()] == ["<4>FAIL ", "<4>     "]
    result = run("check", "--settings-only", "--config", a_config(tmp_path))
    assert result.output.startswith("ok ")


def test_echo_tells_who_answers(tmp_path: Path) -> None:
    with a_pacs() as (_, port):
        result = run("echo", "pacs", "--config", a_config(tmp_path, more=a_destination(port)))
    assert result.exit_code == 0
    assert "ok   destination pacs" in result.output
    assert ", gets SEG, SR\n" in result.output


def test_echo_fails_when_one_does_not_answer(tmp_path: Path) -> None:
    result = run("echo", "--json", "--config", a_config(tmp_path, more=a_destination(a_free_port())))
    assert result.exit_code == 1
    assert [check["ok"] for check in json.loads(result.stdout)["checks"]] == [False]


def test_echo_refuses_a_destination_that_is_not_in_the_settings(config: Path) -> None:
    assert run("echo", "nobody", "--config", config).exit_code == 1


def test_recall_tells_from_which_score_on_how_many_exams_would_be_looked_at_twice(
    config: Path, parts: Parts, answered: str
) -> None:
    left_out = run("recall", "--config", config, "--days", 30_000)
    assert f"1 exam read by another model than {DEFAULT_MODEL} left out." in left_out.output
    assert "No exam with a score" in left_out.output
    with writing(parts.engine) as connection:
        connection.execute(update(jobs).values(model_digest=open_model(DEFAULT_MODEL).digest))
    told = json.loads(run("recall", "2", "100", "--config", config, "--days", 30_000, "--json").stdout)
    assert [(row["rate"], row["score"], row["share"]) for row in told if row["sender"] == "all senders"] == [
        (2, 62, 0),
        (100, 1, 1),
    ]
    assert told[1]["low"] < 0.3
    shown = run("recall", "--config", config, "--days", 30_000)
    assert "Fewer than 200 exams" in shown.output
    assert "No exam with a score" in run("recall", "--config", config, "--days", 1).output
    assert run("recall", "0", "--config", config).exit_code == 2


@pytest.mark.parametrize(
    "command",
    [
        ["tokens", "add", "x", "--scope", "read", "--days", "1e12"],
        ["recall", "--days", "99999999"],
        ["audit", "list", "--after", "9" * 20],
        *([name, "--limit", "9" * 20] for name in ("exams", "jobs", "deliveries")),
    ],
    ids=" ".join,
)
def test_a_number_that_is_too_large_is_no_fault_of_the_program(config: Path, command: list[str]) -> None:
    refused = run(*command, "--config", config)
    assert refused.exit_code == 2
    assert "less than or equal to" in refused.output


def test_a_known_fault_is_one_line_and_exit_status_1(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["mammonode", "show", "ffff", "--config", str(config)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    assert capsys.readouterr().err == "mammonode: No exam has this id: list them with mammonode exams. (ffff)\n"


def test_a_fault_of_the_program_is_one_line_without_values(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise LookupError("Secret^Anne")

    monkeypatch.setattr("node.cli.exams.find_exam", fail)
    monkeypatch.setattr(sys, "argv", ["mammonode", "show", "ffff", "--config", str(config)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    told = capsys.readouterr().err
    assert re.fullmatch(
        r"mammonode: a fault of this program, please report it: LookupError in test_cli.py:\d+, from exams.py:\d+\n",
        told,
    )


def test_what_keeps_a_part_from_starting_is_told_without_values(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise LookupError("Secret^Anne")

    monkeypatch.setattr("node.serving.open_parts", fail)
    result = run("serve", "--config", config)
    assert result.exit_code == 1
    told = json.loads(result.stdout)
    assert (told["event"], told["level"]) == ("cannot start", "critical")
    assert told["error"].startswith("LookupError in test_cli.py:")
    assert "Secret" not in result.output


def test_a_second_node_in_the_same_folder_neither_starts_nor_removes_what_the_first_receives(tmp_path: Path) -> None:
    config, store = a_config(tmp_path, more='[http]\nbind = "0.0.0.0"'), tmp_path / "store"
    with held(store):
        coming = store / "incoming" / "image"
        coming.parent.mkdir()
        coming.touch()
        result = run("serve", "--config", config)
    assert result.exit_code == 1
    told = json.loads(result.stdout)
    assert told["event"] == "cannot start"
    assert f"process {os.getpid()} of" in told["error"]
    assert coming.is_file()


def test_a_node_that_has_stopped_ends_though_a_peer_hangs() -> None:
    program = """
import threading
import node.serving
from node.cli import running

def serve(load):
    threading.Thread(target=threading.Event().wait).start()  # as pynetdicom waits
    print("stopped")

node.serving.serve = serve
running.serve(config=None)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout == "stopped\n"


@pytest.mark.parametrize(
    ("command", "event"),
    [(["conflicts", "accept", "1"], "later copy accepted"), (["selftest", "--json"], "self-test failed")],
)
def test_what_a_command_logs_is_not_among_its_results(
    command: list[str],
    event: str,
    config: Path,
    contradicted: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with config.open("a", encoding="utf-8") as settings:
        settings.write(f"[dicom]\nport = {a_free_port()}\n[selftest]\nport = {a_free_port()}")
    monkeypatch.setattr(sys, "argv", ["mammonode", *command, "--config", str(config)])
    with pytest.raises(SystemExit):
        cli.main()
    told = capsys.readouterr()
    assert event in told.err
    assert event not in told.out
    assert told.out


def test_a_door_that_cannot_be_opened_is_a_known_fault(tmp_path: Path) -> None:
    from node.serving import Serving

    with a_pacs() as (_, port):
        settings = load_settings(a_config(tmp_path, more=f"[dicom]\nport = {port}\n[http]\nport = 0"))
        with pytest.raises(KNOWN_FAULTS, match=rf"port in \[dicom\] and \[http\].*dicom, 127\.0\.0\.1:{port}"):
            Serving(settings).open()
        settings = load_settings(a_config(tmp_path, more=f"[dicom]\nport = 0\n[http]\nport = {port}"))
        with pytest.raises(KNOWN_FAULTS, match=rf"http, 127\.0\.0\.1:{port}"):
            Serving(settings).open()


def test_every_command_is_found_in_the_module_that_adds_it() -> None:
    modules = {path.stem for path in Path(cli.__file__).parent.glob("*.py")} - {
        "__init__",
        "options",
        "bars",
        "checks",
        "console",
    }
    assert {module: tuple(cli.commands_of(module)) for module in modules} == cli.MODULES


def test_the_list_of_commands_says_of_each_what_its_own_help_says_first() -> None:
    commands = {name: cli.commands_of(module)[name] for module, names in cli.MODULES.items() for name in names}
    assert {name: " ".join(command.help.split("\n\n")[0].split()) for name, command in commands.items()} == cli.HELP


def test_help_imports_no_command() -> None:
    program = "import sys; from node import cli\ntry: cli.app(['--help'])\nfinally: print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "conformance" in done.stdout
    assert not [name for name in done.stdout.split() if name.startswith(("node.cli.", "sqlalchemy"))]


@pytest.fixture(scope="module")
def an_empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("store")
    open_parts(Settings(storage=Storage(folder=folder))).engine.dispose()
    return folder


@pytest.mark.parametrize("words", ["exams", "jobs", "lanes", "tokens list", "conflicts"])
def test_a_command_that_looks_imports_none_of_what_it_does_not_need(words: str, an_empty_store: Path) -> None:
    program = "import sys; from node import cli\ntry: cli.main()\nfinally: print(*sys.modules, file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", program, *words.split(), "--json"],
        env=os.environ | {"MAMMONODE_STORAGE__FOLDER": str(an_empty_store)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout) is not None
    imported = set(done.stderr.split())
    assert {"sqlalchemy", "pydantic", f"node.cli.{cli_module(words.split(maxsplit=1)[0])}"} <= imported
    reading = {"torch", "numpy", "pydicom", "cv2", "highdicom"}
    serving = {"pynetdicom", "starlette", "uvicorn", "prometheus_client", "node.audit.facts"}
    telling = {"structlog", "rich", "pygments", "xml"}
    of_the_database = {"alembic", "sqlalchemy.orm", "sqlalchemy.dialects.postgresql"}
    changing = {"storage.catalogue", "storage.results", "storage.audit", "tomllib"}
    assert not (reading | serving | telling | of_the_database | changing) & imported
    assert words == "conflicts" or "storage.index" not in imported


def test_the_doors_import_nothing_that_only_reading_and_results_need() -> None:
    program = "import sys; import node.serving; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert {"torch", "highdicom", "pydicom.sr", "cv2", "openvino", "obstore", "imagecodecs"}.isdisjoint(
        done.stdout.split()
    )


def cli_module(command: str) -> str:
    return next(module for module, commands in cli.MODULES.items() if command in commands)
