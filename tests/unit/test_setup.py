"""What installs the service, as far as it can be tried without a machine; tests/acceptance/test_installation.py has one."""

import hashlib
import os
import pwd
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from config.settings import DEFAULT_FILE, changed_keys, load_settings
from tests.peers import require_program

FOLDER = Path(__file__).parents[2] / "systemd"
SETUP = FOLDER / "mammonode-setup"
Rolled = Callable[..., tuple[int, str, list[str]]]


def test_the_settings_that_it_installs_are_the_documented_ones_but_for_the_folders(tmp_path: Path) -> None:
    command = ["bash", "-c", 'source "$1"; settings "$2"', "bash", str(SETUP), str(DEFAULT_FILE)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    (tmp_path / "mammonode.toml").write_text(done.stdout, encoding="utf-8")
    installed, documented = load_settings(tmp_path / "mammonode.toml"), load_settings(DEFAULT_FILE)
    assert set(changed_keys(documented, installed)) == {"storage.folder", "reader.models_folder"}
    assert installed.storage.folder == Path("/var/lib/mammonode")
    assert len(done.stdout.splitlines()) == len(DEFAULT_FILE.read_text(encoding="utf-8").splitlines())


def test_what_root_installs_is_open_to_the_service_whatever_umask_root_has() -> None:
    script = 'umask 077; source "$1"; umask'
    done = subprocess.run(["bash", "-c", script, "bash", str(SETUP)], capture_output=True, text=True, check=True)
    assert done.stdout == "0022\n"


@pytest.mark.parametrize("interpreter", ["true", "false"])
def test_a_version_whose_interpreter_is_gone_is_made_again_and_half_a_one_is_not_left(
    tmp_path: Path, interpreter: str
) -> None:
    made = interpreter == "false"
    wheel = tmp_path / "mammonode-1.0-py3-none-any.whl"
    wheel.write_bytes(b"")
    version = f"1.0-{hashlib.sha256(b'').hexdigest()[:8]}"
    folder = tmp_path / version
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").symlink_to(f"/bin/{interpreter}")
    (folder / ".complete").touch()
    script = 'source "$1"; OPT=$2 PYTHON=true; build "$3"'
    command = ["bash", "-c", script, "bash", str(SETUP), str(tmp_path), str(wheel)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode != 0, f"making {folder}" in done.stdout, not folder.exists()) == (made, made, made)
    assert ("the service was not touched" in done.stderr) is made


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give folders to another user")
def test_the_account_is_made_and_images_and_secrets_are_closed_to_others(tmp_path: Path) -> None:
    sysusers, tmpfiles = require_program("systemd-sysusers"), require_program("systemd-tmpfiles")
    (tmp_path / "etc").mkdir()
    for command in (
        [sysusers, f"--root={tmp_path}", str(FOLDER / "mammonode.sysusers")],
        [tmpfiles, f"--root={tmp_path}", "--create", str(FOLDER / "mammonode.tmpfiles")],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    accounts = [line.split(":") for line in (tmp_path / "etc/passwd").read_text(encoding="utf-8").splitlines()]
    [uid] = [int(account[2]) for account in accounts if account[0] == "mammonode"]
    folders = {
        "etc/mammonode": (0, 0o750),
        "etc/mammonode/credentials": (0, 0o700),
        "var/lib/mammonode": (uid, 0o700),
    }
    found = {name: (tmp_path / name).stat() for name in folders}
    assert {name: (status.st_uid, status.st_mode & 0o777) for name, status in found.items()} == folders


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become nobody")
def test_who_may_not_read_the_settings_is_told_to_use_sudo() -> None:
    nobody = pwd.getpwnam("nobody")
    done = subprocess.run(
        ["sh", FOLDER / "mammonode", "exams"],
        env={"PATH": os.defpath, "MAMMONODE_CONFIG": "/etc/shadow"},
        user=nobody.pw_uid,
        group=nobody.pw_gid,
        extra_groups=[],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "sudo mammonode" in done.stderr


def test_it_removes_nothing_without_being_told_so(tmp_path: Path) -> None:
    kept = tmp_path / "image"
    kept.touch()
    script = f'source "$1"; STATE={tmp_path} ETC={tmp_path} OPT={tmp_path}; remove() {{ rm {kept}; }}; purge'
    done = subprocess.run(["bash", "-c", script, "bash", str(SETUP)], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "remove-all-images" in done.stderr
    assert kept.exists()


@pytest.fixture
def rolled(tmp_path: Path) -> Rolled:
    """Roll a version back on a machine that only notes what is done to it: exit status, stderr, and what was done."""
    done = tmp_path / "done"
    for version in ("old", "new"):
        (tmp_path / "opt" / version / "bin").mkdir(parents=True)
        (tmp_path / "opt" / version / "bin" / "python").symlink_to("/bin/true")
        (tmp_path / "opt" / version / ".complete").touch()
    (tmp_path / "opt" / "current").symlink_to("new")
    backup = tmp_path / "before.sqlite"
    backup.touch()
    (tmp_path / "opt" / "new" / "former").write_text(f"old\n{backup}\n")

    def roll(*failing: str, do: str = "rollback") -> tuple[int, str, list[str]]:
        command = tmp_path / "mammonode"
        command.write_text(f'#!/bin/sh\necho "$@" >>{done}\ncase "$1" in {"|".join(failing) or "-"}) exit 1; esac\n')
        command.chmod(0o755)
        noting = "".join(
            f'{name}() {{ echo {name} "$@" >>{done}; }}; ' for name in ("stop", "start", "switch", "prove")
        )
        script = f'source "$1"; OPT={tmp_path}/opt COMMAND={command}; {noting} {do}'
        ended = subprocess.run(["bash", "-c", script, "bash", str(SETUP)], capture_output=True, text=True, check=False)
        return ended.returncode, ended.stderr, done.read_text().replace(str(backup), "BACKUP").splitlines()

    return roll


RESTORE = "restore --replace --if-schema-changed BACKUP"


def test_going_back_keeps_what_the_database_has_learnt_before_it_puts_the_backup_back(rolled: Rolled) -> None:
    assert rolled() == (0, "", ["stop", "backup", "switch old", RESTORE, "start", "prove"])


def test_it_does_not_go_back_to_a_version_whose_interpreter_is_gone(rolled: Rolled, tmp_path: Path) -> None:
    (tmp_path / "opt" / "old" / "bin" / "python").unlink()
    (tmp_path / "done").touch()
    status, told, done = rolled()
    assert (status, done) == (1, [])
    assert "its Python" in told


def test_where_no_backup_can_be_taken_nothing_is_put_in_the_place_of_the_database(rolled: Rolled) -> None:
    status, told, done = rolled("backup")
    assert (status, done) == (1, ["stop", "backup", "start"])
    assert "no backup could be taken: new goes on" in told


def test_who_has_no_backup_and_a_version_that_does_not_start_is_told_how_to_go_on(rolled: Rolled) -> None:
    status, told, _ = rolled("backup", do="start() { return 1; }; rollback")
    assert status == 1
    assert "goes on" not in told
    assert "uninstall it, which keeps images, database and settings, and install" in told


def test_a_file_that_cannot_be_adopted_keeps_the_former_version_from_nothing(rolled: Rolled) -> None:
    status, _, done = rolled("restore")
    assert (status, done[-2:]) == (0, ["start", "prove"])


def test_who_is_left_with_a_database_that_was_not_put_back_is_told_how_to_do_it(rolled: Rolled, tmp_path: Path) -> None:
    backup = tmp_path / "before.sqlite"
    _, told, _ = rolled("restore", do="start() { return 1; }; rollback")
    assert (
        f"systemctl stop 'mammonode*' && {tmp_path}/mammonode restore --replace --if-schema-changed {backup} &&" in told
    )
    assert "restore" not in rolled(do="start() { return 1; }; rollback")[1]


def test_a_version_that_does_not_become_ready_gives_way_to_the_former_one(rolled: Rolled, tmp_path: Path) -> None:
    made = "build() { version=new; }; prepare() { :; }; current() { echo old; }; "
    fails = f"start() {{ echo start >>{tmp_path}/done; [[ $(grep -c start {tmp_path}/done) -gt 1 ]]; }}; "
    status, told, done = rolled(do=f"{made} {fails} install_version")
    assert (status, "old runs again" in told) == (1, True)
    before = ["stop", "backup", "switch new", "start"]
    assert done == [*before, "stop", "backup", "switch old", RESTORE.replace("BACKUP", ""), "start"]


MASKED = "systemctl() { echo masked; }; "


def test_a_host_that_only_reads_leaves_the_database_alone(rolled: Rolled, tmp_path: Path) -> None:
    (tmp_path / "opt" / "new" / "former").write_text("old\n\n")
    assert rolled(do=f"{MASKED} rollback") == (0, "", ["stop", "switch old", "start", "prove"])
    (tmp_path / "done").unlink()
    made = "build() { version=new; }; prepare() { :; }; current() { echo old; }; "
    assert rolled(do=f"{MASKED} {made} install_version") == (0, "", ["stop", "switch new", "start", "prove"])
    assert (tmp_path / "opt" / "new" / "former").read_text() == "old\n\n"
    (tmp_path / "done").unlink()
    fails = f"start() {{ echo start >>{tmp_path}/done; [[ $(grep -c start {tmp_path}/done) -gt 1 ]]; }}; "
    status, told, done = rolled(do=f"{MASKED} {made} {fails} install_version")
    assert (status, "old runs again" in told) == (1, True)
    assert done == ["stop", "switch new", "start", "stop", "switch old", "start"]


def test_what_is_masked_is_not_started(tmp_path: Path) -> None:
    parts = "mammonode.service mammonode-worker@0.service mammonode-selftest.timer"
    fake = f"""systemctl() {{
  case "$1 $2" in
    show*) echo {parts} ;;
    "is-enabled mammonode-worker@0.service") echo enabled ;;
    is-enabled*) echo masked ;;
    start*) echo "$@" >>{tmp_path}/started ;;
  esac
}}; """
    script = f'source "$1"; {fake} start; prove'
    done = subprocess.run(["bash", "-c", script, "bash", str(SETUP)], capture_output=True, text=True, check=True)
    assert (tmp_path / "started").read_text() == "start mammonode.target mammonode-worker@0.service\n"
    assert "selftest on the host that serves" in done.stdout
