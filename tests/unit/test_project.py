"""The project itself: its names, its layers, what its commands import and say, and what must not stand in its files."""

import re
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path
from xml.parsers import expat

import pytest
from typer.testing import CliRunner

from node.cli import MODULES, app, commands_of

ROOT = Path(__file__).parents[2]
OURS = "mammonode"
BIN = Path(sys.executable).parent
COMMANDS = {name: module for module, names in MODULES.items() for name in names}
NO_MODEL_NEEDED = "import sys; {}; print(sorted({{'torch', 'torchvision'}} & set(sys.modules)))"


@pytest.mark.parametrize("name", ["ai", "config", "node", "storage"])
def test_import_name_is_ours_alone(name: str) -> None:
    assert packages_distributions().get(name, [OURS]) == [OURS]


def test_the_layers_hold() -> None:
    done = subprocess.run([BIN / "lint-imports", "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_all_commands_are_there() -> None:
    assert set(COMMANDS) == {
        *("up", "serve", "work", "check", "echo", "exams", "conflicts", "lanes", "show", "retry", "send"),
        *("read", "data", "models", "train", "recipes", "evaluate", "predict", "conformance"),
        *("demo", "tokens", "events", "selftest", "audit", "backup", "restore", "adopt"),
        *(
            "phantom",
            "jobs",
            "deliveries",
            "destinations",
            "senders",
            "purge",
            "waive",
            "doctor",
            "calibrate",
            "recall",
            "folds",
        ),
    }


@pytest.mark.parametrize("command", COMMANDS)
def test_help_says_what_a_command_does_and_explains_every_option(command: str) -> None:
    parsed = commands_of(COMMANDS[command])[command]
    assert len(parsed.help.split()) > 3
    assert parsed.help.strip()[0].isupper()
    for parameter in parsed.params:
        assert getattr(parameter, "help", None), f"{command}: {parameter.name}"
    shown = CliRunner().invoke(app, [command, "--help"])
    assert shown.exit_code == 0
    assert parsed.help.split()[0] in shown.output


def test_help_names_every_command() -> None:
    shown = CliRunner().invoke(app, ["--help"])
    assert shown.exit_code == 0
    for command in COMMANDS:
        assert re.search(rf"\b{command}\b", shown.output)
    assert "Research use only" in shown.output


def test_the_readme_names_every_command() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for command in COMMANDS:
        assert f"`{command}`" in readme


@pytest.mark.parametrize(
    "imports",
    [
        *("import node.cli", "import node.service, node.supervisor", "import node.demo", "import ai.exam, ai.findings"),
        "import node.conformance",
    ],
)
def test_what_needs_no_model_starts_without_torch(imports: str) -> None:
    code = NO_MODEL_NEEDED.format(imports)
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True, timeout=200)
    assert done.stdout.strip() == "[]"


def test_no_file_names_a_place_on_the_machine_that_it_was_written_on() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    # Put together here, so that this file does not hold what it forbids.
    places = "|".join("/" + name + "/" for name in ("work", "farm", "opt/wheels", "root"))
    forbidden = re.compile(rf"(?<![\w.}}])({places})|\bshared/(reference|lab|data)\b")
    found = []
    for name in listed.stdout.decode().split("\0"):
        path = ROOT / name
        if not name or not path.is_file() or b"\0" in (data := path.read_bytes()):
            continue
        lines = data.decode("utf-8").splitlines()
        found += [f"{name}:{number}: {line}" for number, line in enumerate(lines, 1) if forbidden.search(line)]
    assert found == []


def test_drawn_pictures_of_the_documentation_can_be_shown() -> None:
    pictures = sorted((ROOT / "docs").rglob("*.svg"))
    assert pictures
    for picture in pictures:
        expat.ParserCreate().Parse(picture.read_bytes(), True)  # noqa: FBT003 (the last piece)
