"""The systemd units: valid, sandboxed, and in keeping with what the program does."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from config.settings import Jobs
from node.running import SIGN_OF_LIFE_EVERY
from node.service import DRAIN_SECONDS
from tests.peers import require_program

FOLDER = Path(__file__).parents[2] / "systemd"
UNITS = sorted(path.name for kind in ("service", "target", "timer") for path in FOLDER.glob(f"*.{kind}"))
SERVICES = [name for name in UNITS if name.endswith(".service")]
RUNNING = ["mammonode.service", "mammonode-worker@.service"]
MOST_EXPOSED = 2.0


def lines(unit: str, key: str) -> list[str]:
    text = (FOLDER / unit).read_text(encoding="utf-8")
    return re.findall(rf"^{key}=(.*)$", text, re.MULTILINE)


def seconds(span: str) -> float:
    number, unit = re.fullmatch(r"(\d+)(s|min|h)", span).groups()  # type: ignore[union-attr]
    return int(number) * {"s": 1, "min": 60, "h": 3600}[unit]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The units, with a program that is there in place of the installed one."""
    folder = tmp_path_factory.mktemp("units")
    for name in UNITS:
        text = (FOLDER / name).read_text(encoding="utf-8")
        (folder / name).write_text(text.replace("/opt/mammonode/current/bin/python", sys.executable), encoding="utf-8")
    return folder


def test_they_are_valid(installed: Path) -> None:
    program = require_program("systemd-analyze")
    command = [program, "verify", "--man=no", *(str(installed / name) for name in UNITS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    ours = [line for line in done.stderr.splitlines() if "mammonode" in line]
    assert (done.returncode, ours) == (0, [])


@pytest.mark.parametrize("unit", SERVICES)
def test_they_are_hardly_exposed(installed: Path, unit: str) -> None:
    program = require_program("systemd-analyze")
    command = [program, "security", "--offline=true", f"--threshold={MOST_EXPOSED * 10:.0f}", str(installed / unit)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    [exposure] = re.findall(r"Overall exposure level for .*: ([0-9.]+)", done.stdout)
    assert float(exposure) <= MOST_EXPOSED


@pytest.mark.parametrize("unit", SERVICES)
def test_what_they_leave_is_for_nobody_else(unit: str) -> None:
    assert (lines(unit, "UMask"), lines(unit, "LimitCORE")) == (["0077"], ["0"])


@pytest.mark.parametrize("unit", RUNNING)
def test_signs_of_life_come_in_time_and_ending_is_given_time(unit: str) -> None:
    [watchdog] = lines(unit, "WatchdogSec")
    assert seconds(watchdog) >= 4 * SIGN_OF_LIFE_EVERY
    [stop] = lines(unit, "TimeoutStopSec")
    assert seconds(stop) > (Jobs().drain + SIGN_OF_LIFE_EVERY if "worker" in unit else 2 * DRAIN_SECONDS)


@pytest.mark.parametrize("unit", RUNNING)
def test_a_model_or_settings_that_cannot_be_used_are_not_tried_again(unit: str) -> None:
    assert lines(unit, "RestartPreventExitStatus") == ["78"]
    assert lines(unit, "Restart") == ["always"]
    assert lines(unit, "StartLimitIntervalSec") == ["0"]


def test_one_reload_is_for_doors_and_workers() -> None:
    assert lines("mammonode-worker@.service", "ReloadPropagatedFrom") == ["mammonode.service"]


def test_each_worker_has_the_gpu_of_its_number() -> None:
    assert any("CUDA_VISIBLE_DEVICES=%i" in line for line in lines("mammonode-worker@.service", "Environment"))


@pytest.mark.parametrize("unit", SERVICES)
def test_their_programs_are_in_every_debian(unit: str) -> None:
    commands = [line.lstrip("+").split() for key in ("ExecStart", "ExecReload") for line in lines(unit, key)]
    programs = {word for command in commands for word in command[:1]}
    assert programs <= {"/opt/mammonode/current/bin/python", "/usr/bin/env", "/bin/sh"}
