"""``mammonode models``, and how a node that is told to read with a model it cannot use refuses to start."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from ai.models import CARD, model_folders, open_model
from node import supervisor
from node.cli import commands_of
from node.supervisor import Child
from tests.command_line import fault_of, run
from tests.models import a_model, untrained

if TYPE_CHECKING:
    from ai.models import Model

# smp renames its encoders one day; the version is pinned.
pytestmark = pytest.mark.filterwarnings("ignore:`timm-` encoders are deprecated:DeprecationWarning")

SHIPPED = open_model(model_folders()[0].name)
SECOND = "mass-fpn-pair"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return a_config(tmp_path)


def a_config(folder: Path, model: str = "mass-fpn-boxes") -> Path:
    path = folder / "mammonode.toml"
    path.write_text(
        f'[storage]\nfolder = "{folder / "store"}"\nmax_used_percent = 100\nmin_free_gb = 0\n[log]\nformat = "json"\n'
        f'[reader]\nmodel = "{model}"\nmodels_folder = "{folder / "models"}"\ndevice = "cpu"\n[dicom]\nport = 0\n[http]\nport = 0\n',
        encoding="utf-8",
    )
    return path


def a_reading_model(folder: Path, folds: int = 2) -> "Model":
    """Write a model that reads: tiny, untrained; its name is a-model-of-marita."""
    options = {"widths": [1]}
    architecture = {"network": "tile_unet", "options": options, "tile": 128, "reduction": 2}
    networks = {f"fold-{n}": untrained("tile_unet", options, seed=n) for n in range(folds)}
    return a_model(folder, "marita", architecture, {"mass": 0.5, "candidate": 0.5, "dark": 0.05}, networks)


def replaced(folder: Path, old: str, new: str) -> None:
    """Change the words of a card."""
    text = (folder / CARD).read_text(encoding="utf-8")
    assert old in text
    (folder / CARD).write_text(text.replace(old, new, 1), encoding="utf-8")


# --- list and show


def test_list_names_shipped_and_installed_models(tmp_path: Path, config: Path) -> None:
    a_reading_model(tmp_path / "models" / "mine")
    shown = run("models", "list", "--config", config)
    assert shown.exit_code == 0
    assert all(word in shown.output for word in (SHIPPED.card.name, "shipped", "mine", "installed", "marita"))
    first, *others, last = json.loads(run("models", "list", "--json", "--config", config).stdout)
    assert [(each["name"], each["where"]) for each in others] == [(SECOND, "shipped")]
    assert (first["name"], first["where"], first["digest"]) == (SHIPPED.card.name, "shipped", SHIPPED.digest)
    assert (last["name"], last["where"], last["reader"]) == ("mine", "installed", "marita")


def test_list_tells_of_a_card_that_is_not_valid_and_of_the_others(tmp_path: Path, config: Path) -> None:
    a_reading_model(tmp_path / "models" / "mine")
    replaced(tmp_path / "models" / "mine", "version = ", "colour = '[/red]'\nversion = ")
    shown = run("models", "list", "--config", config)
    assert shown.exit_code == 0
    assert SHIPPED.card.name in shown.output
    *_, broken = json.loads(run("models", "list", "--json", "--config", config).stdout)
    assert "colour: there is no such key" in broken["fault"]


def test_show_prints_every_key_of_the_card(config: Path) -> None:
    shown = run("models", "show", SHIPPED.card.name, "--config", config)
    assert shown.exit_code == 0
    told = " ".join(shown.output.replace("│", " ").split())
    for words in (
        f"digest {SHIPPED.digest}",
        "mass 0.29",
        "canvas 768, 480",
        "plan.split.fold 0",
        "weights.0.file fold-0.safetensors",
        "notes The model was trained on digitised film",
        "image_auc 0.907, 0.859, 0.948",  # on one line of 80 columns
    ):
        assert words in told


def test_show_prints_the_card_as_json(tmp_path: Path, config: Path) -> None:
    model = a_reading_model(tmp_path / "models" / "mine")
    told = json.loads(run("models", "show", "mine", "--json", "--config", config).stdout)
    assert told == {
        "folder": str(tmp_path / "models" / "mine"),
        "digest": model.digest,
        **model.card.model_dump(mode="json"),
    }
    assert json.loads(run("models", "show", tmp_path / "models" / "mine", "--json", "--config", config).stdout) == told


def test_show_refuses_a_model_that_is_not_there_with_the_names_there_are(tmp_path: Path, config: Path) -> None:
    a_reading_model(tmp_path / "models" / "mine")
    assert f"absent; the names are {SHIPPED.card.name}, {SECOND}, mine" in fault_of(
        run("models", "show", "absent", "--config", config)
    )


def test_every_command_explains_itself_and_its_options() -> None:
    group = commands_of("models")["models"]
    assert set(group.commands) == {"list", "show", "verify", "install"}
    for command in group.commands.values():
        assert len(command.help.split()) > 5
        assert all(getattr(parameter, "help", None) for parameter in command.params)


# --- verify and install


def test_verify_tries_all_that_have_names_and_names_every_fault(tmp_path: Path, config: Path) -> None:
    a_reading_model(tmp_path / "models" / "whole")
    broken = a_reading_model(tmp_path / "models" / "broken").folder
    (broken / "fold-0.safetensors").unlink()
    (broken / "fold-1.safetensors").write_bytes(b"other")
    result = run("models", "verify", "--config", config)
    assert result.exit_code == 1
    assert f"ok   {SHIPPED.card.name}, digest {SHIPPED.digest[:12]}" in result.output
    assert "ok   whole, digest " in result.output
    assert "FAIL broken: A weights file that the model's card names is missing" in result.output
    assert "FAIL broken: A weights file differs from the digest" in result.output
    told = {found["name"]: len(found["faults"]) for found in json.loads(verified(config, "--json"))}
    assert told == {SHIPPED.card.name: 0, SECOND: 0, "broken": 2, "whole": 0}


def verified(config: Path, *arguments: object) -> str:
    return run("models", "verify", *arguments, "--config", config).stdout


def test_verify_of_one_by_name_or_path_is_that_one_alone(tmp_path: Path, config: Path) -> None:
    model = a_reading_model(tmp_path / "models" / "mine")
    for name in ("mine", model.folder):
        result = run("models", "verify", name, "--config", config)
        assert result.exit_code == 0
        assert result.output == f"ok   {name}, digest {model.digest[:12]}\n"
    assert "FAIL absent: The model directory or its card.toml is missing" in verified(config, "absent")
    assert run("models", "verify", "absent", "mine", "--config", config).exit_code == 1


def test_install_prints_the_line_that_puts_the_model_to_work(tmp_path: Path, config: Path) -> None:
    source = a_reading_model(tmp_path / "source").folder
    result = run("models", "install", source, "--config", config)
    assert result.exit_code == 0, result.output
    assert result.stdout == '[reader]\nmodel = "a-model-of-marita"\n'
    assert "installed" in result.stderr
    again = run("models", "install", source, "--config", config)
    assert (again.exit_code, again.stdout) == (0, result.stdout)
    assert "was there already" in again.stderr
    checked = run("check", "--config", a_config(tmp_path, "a-model-of-marita"))
    assert "ok   model: a-model-of-marita 1.0" in checked.output


def test_install_into_another_folder_prints_the_path(tmp_path: Path, config: Path) -> None:
    source, into = a_reading_model(tmp_path / "source").folder, tmp_path / "elsewhere"
    result = run("models", "install", source, "--into", into, "--config", config)
    assert result.stdout == f'[reader]\nmodel = "{into / "a-model-of-marita"}"\n'


def test_install_refuses_what_verify_refuses_and_what_is_there(tmp_path: Path, config: Path) -> None:
    source = a_reading_model(tmp_path / "source").folder
    run("models", "install", source, "--config", config)
    replaced(source, 'version = "1.0"', 'version = "1.1"')
    assert "nothing is overwritten" in fault_of(run("models", "install", source, "--config", config))
    replaced(source, "a-model-of-marita", "another")
    replaced(source, "tile = 128", "tile = 100")
    assert "nothing was changed" in fault_of(run("models", "install", source, "--config", config))


def test_read_takes_an_installed_model_by_its_name(
    tmp_path: Path, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAMMONODE_CONFIG", str(config))
    (tmp_path / "picture_L_CC.png").write_bytes(b"no picture")
    told = fault_of(run("read", tmp_path / "picture_L_CC.png", "--output", tmp_path / "out", "--model", "mine"))
    assert f"mine; the names are {SHIPPED.card.name}" in told
    a_reading_model(tmp_path / "models" / "mine")
    result = run("read", tmp_path / "picture_L_CC.png", "--output", tmp_path / "out", "--model", "mine", "--json")
    assert "names are" not in str(result.exception)


# --- a model that the node cannot read with


def wrong_digest(folder: Path) -> str:
    (folder / "fold-1.safetensors").write_bytes((folder / "fold-0.safetensors").read_bytes())
    return "A weights file differs from the digest in the model's card"


def missing_fold(folder: Path) -> str:
    (folder / "fold-1.safetensors").unlink()
    return "A weights file that the model's card names is missing"


def unknown_reader(folder: Path) -> str:
    replaced(folder, 'reader = "marita"', 'reader = "maritta"')
    return "'maritta'; there are agarwal, madsen, marita, mass_fpn, oulu"


def unknown_key(folder: Path) -> str:
    replaced(folder, "[architecture]", 'colour = "red"\n[architecture]')
    return "colour: there is no such key"


def unknown_key_of_the_reader(folder: Path) -> str:
    replaced(folder, "tile = 128", "tile = 128\ntiles = 128")
    return "architecture.tiles: there is no such key"


def other_network(folder: Path) -> str:
    replaced(folder, "widths = [1]", "widths = [2]")
    return "tensors do not fit"


ON_THE_CARD = (wrong_digest, missing_fold, unknown_reader, unknown_key)
IN_THE_READER = (unknown_key_of_the_reader, other_network)


@pytest.fixture
def no_signals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node.running.Signals.listen", lambda _: None)


@pytest.mark.usefixtures("no_signals")
@pytest.mark.parametrize(
    ("command", "fault"),
    [
        *((command, fault) for command in ("serve", "work", "up") for fault in ON_THE_CARD),
        *(("work", fault) for fault in IN_THE_READER),
    ],
)
def test_a_node_refuses_at_start_a_model_that_it_cannot_read_with(
    tmp_path: Path, command: str, fault: Callable[[Path], str]
) -> None:
    folder = a_reading_model(tmp_path / "models" / "mine").folder
    reason = fault(folder)
    result = run(command, "--config", a_config(tmp_path, "mine"))
    assert result.exit_code == os.EX_CONFIG
    [line] = [json.loads(text) for text in result.stdout.splitlines()]
    assert (line["event"], line["level"]) == ("cannot start", "critical")
    assert reason in line["error"]
    assert str(folder) in line["error"] or fault is unknown_reader
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("fault", [*ON_THE_CARD, *IN_THE_READER])
def test_check_tells_why_the_model_cannot_be_used(tmp_path: Path, fault: Callable[[Path], str]) -> None:
    reason = fault(a_reading_model(tmp_path / "models" / "mine").folder)
    result = run("check", "--config", a_config(tmp_path, "mine"))
    assert result.exit_code == 1
    [told] = [line for line in result.output.splitlines() if line.startswith("FAIL")]
    assert told.startswith("FAIL model: ")
    assert reason in told
    assert "mammonode models list" in result.output


def tended(child: Child) -> None:
    """Start a child and wait until it has ended."""
    child.tend()
    assert child.process
    child.process.wait()
    child.tend()


@pytest.mark.parametrize(("status", "refused"), [(os.EX_CONFIG, True), (1, False), (0, False)])
def test_a_part_that_refuses_to_start_is_told_from_one_that_died(status: int, refused: bool) -> None:  # noqa: FBT001
    child = Child("work", [sys.executable, "-S", "-c", f"raise SystemExit({status})"])
    tended(child)
    assert child.refused == refused
    assert child.process is None


def test_a_part_that_ran_before_is_started_again_whatever_its_end() -> None:
    child = Child("work", [sys.executable, "-S", "-c", f"raise SystemExit({os.EX_CONFIG})"], start_at=time.monotonic())
    tended(child)
    assert not child.refused


def test_a_part_that_the_machine_has_no_room_for_is_started_later(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(*_: object, **__: object) -> None:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    child = Child("work", [sys.executable, "-S", "-c", ""])
    with monkeypatch.context() as crowded, capture_logs() as lines:
        crowded.setattr(subprocess, "Popen", no_room)
        child.tend()
    assert [(line["event"], line["log_level"]) for line in lines] == [("child not started", "error")]
    assert not child.process
    assert child.start_at > time.monotonic()
    child.start_at = time.monotonic()
    tended(child)
    assert not child.refused


def test_up_ends_with_all_its_parts_when_one_of_them_refuses_to_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = f"import pathlib, time; pathlib.Path({str(tmp_path / 'serves')!r}).touch(); time.sleep(100)"
    refusing = (
        f"import pathlib, time\nwhile not pathlib.Path({str(tmp_path / 'serves')!r}).exists(): time.sleep(0.01)\n"
        f"raise SystemExit({os.EX_CONFIG})"
    )
    children: list[Child] = []

    def stand_in(name: str, _command: object) -> Child:
        code = waiting if name == "serve" else refusing
        children.append(Child(name, [sys.executable, "-S", "-c", code]))
        return children[-1]

    monkeypatch.setattr(supervisor, "Child", stand_in)
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    try:
        assert supervisor.up(None) == os.EX_CONFIG
    finally:
        for number, handler in zip((signal.SIGTERM, signal.SIGINT), before, strict=True):
            signal.signal(number, handler)
    assert [(child.name, child.refused) for child in children] == [("serve", False), ("work 1", True)]
    [serve, _] = children
    assert serve.process
    assert serve.process.poll() == -signal.SIGTERM
