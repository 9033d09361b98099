"""A Debian machine to install on: debootstrap makes its root, systemd-nspawn boots it, nsenter types into it."""

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[1]
ROOTS = CHECKOUT / ".artefacts" / "roots"
"""Roots as debootstrap makes them, kept for the next time."""
SUITE = os.environ.get("MAMMONODE_TEST_SUITE", "bookworm")
MIRROR = os.environ.get("MAMMONODE_TEST_MIRROR", "")
"""Where the packages of a root are; Debian's debootstrap knows Debian's."""
UBUNTU = ("noble",)
"""Which Debian 12's debootstrap does not know yet: it is made as they all are since gutsy, with pip and venv in universe."""
PACKAGES = "systemd,systemd-sysv,dbus,python3,python3-venv,make,ca-certificates"
"""What every Debian has, and what docs/operating.md says to install."""
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
BOOT_SECONDS = 120


@dataclass(frozen=True)
class Machine:
    """A booted machine, on this machine's network.

    Attributes
    ----------
    root
        Its file system.
    pid
        Of its systemd, as this machine counts.
    transcript
        What is typed, what it prints and how long it takes.
    """

    root: Path
    pid: int
    transcript: Path

    def type(self, command: str, *, fails: bool = False) -> str:
        """Type a command as root, and return what it prints on stdout and stderr.

        Parameters
        ----------
        fails
            Whether it is expected to.
        """
        began = time.monotonic()
        done = self.enter(command)
        with self.transcript.open("a", encoding="utf-8") as log:
            log.write(f"# {command}    ({time.monotonic() - began:.1f} s)\n{done.stdout}\n")
        assert (done.returncode != 0) is fails, f"{command}\n{done.stdout}"
        return done.stdout

    def enter(self, command: str) -> subprocess.CompletedProcess[str]:
        """Run a command as root."""
        inside = ["nsenter", "--target", str(self.pid), "--mount", "--uts", "--ipc", "--pid", "--root", "--wd"]
        settings = {"PATH": PATH, "HOME": "/root", "LANG": "C.UTF-8", **_package_settings()}
        variables = [f"{name}={value}" for name, value in settings.items()]
        return subprocess.run(
            [*inside, "--", "/usr/bin/env", "--ignore-environment", *variables, "bash", "-c", command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )


def require_machine() -> None:
    """Skip the test where no machine can be made."""
    if os.geteuid() != 0:
        pytest.skip("only root can boot a machine")
    for program in ("debootstrap", "systemd-nspawn", "nsenter"):
        if not shutil.which(program):
            pytest.skip(f"{program} is not installed: apt-get install debootstrap systemd-container")
    if SUITE in UBUNTU and not MIRROR and not (ROOTS / SUITE).exists():
        pytest.skip("MAMMONODE_TEST_MIRROR is to say where Ubuntu's packages are")


@contextmanager
def a_machine(folder: Path, shown: Mapping[Path, str], transcript: Path) -> Iterator[Machine]:
    """Boot a fresh machine, and switch it off when the context ends.

    Parameters
    ----------
    folder
        Where its file system lies.
    shown
        Folders of this machine → where it sees them, read-only.
    transcript
        Begun anew.
    """
    made = ROOTS / SUITE
    transcript.parent.mkdir(parents=True, exist_ok=True)
    transcript.unlink(missing_ok=True)
    if not made.exists():
        part = made.with_suffix(".part")
        shutil.rmtree(part, ignore_errors=True)
        part.parent.mkdir(parents=True, exist_ok=True)
        options, where = [], [MIRROR] if MIRROR else []
        if SUITE in UBUNTU:
            options, where = ["--no-check-gpg", "--components=main,universe"], [MIRROR, "gutsy"]
        _run("debootstrap", "--variant=minbase", f"--include={PACKAGES}", *options, SUITE, str(part), *where)
        part.rename(made)
    root = folder / "root"
    _run("cp", "--archive", str(made), str(root))
    binds = [f"--bind-ro={path}:{place}" for path, place in shown.items()]
    binds += [f"--bind-ro={path}" for path in _package_files()]
    command = ["systemd-nspawn", f"--directory={root}", "--boot", "--register=no", "--keep-unit", "--console=pipe"]
    with (folder / "console.log").open("wb") as log:
        boot = [*command, "--kill-signal=SIGRTMIN+3", *binds]
        process = subprocess.Popen(boot, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        machine = _booted(root, process.pid, transcript)
        yield machine
    finally:
        process.terminate()
        try:
            process.wait(BOOT_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        shutil.rmtree(root, ignore_errors=True)


def _booted(root: Path, nspawn: int, transcript: Path) -> Machine:
    """Wait until a machine is up. Its systemd is nspawn's child, after another one that sets it up."""
    deadline = time.monotonic() + BOOT_SECONDS
    while time.monotonic() < deadline:
        time.sleep(0.5)
        for child in Path(f"/proc/{nspawn}/task/{nspawn}/children").read_text(encoding="utf-8").split():
            machine = Machine(root, int(child), transcript)
            if machine.enter("systemctl is-system-running").stdout.strip() in {"running", "degraded"}:
                return machine
    raise TimeoutError(f"{root} did not boot")


def _run(*command: str) -> None:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:]


def _package_settings() -> dict[str, str]:
    """Return how pip is told by the environment on this machine where packages are had."""
    return {name: value for name, value in os.environ.items() if name.startswith("PIP_")}


def _package_files() -> set[Path]:
    """Return the files that tell it, the certificates they name, and the folders of packages."""
    told = subprocess.run(["pip", "config", "debug"], capture_output=True, text=True, check=True).stdout
    files = {Path(path) for path in re.findall(r"(/\S+), exists: True", told)}
    text = " ".join([*(file.read_text() for file in files), *_package_settings().values()])
    named = [Path(path) for path in re.findall(r"(?:file://|(?<![\w/:.]))(/[\w./-]+)", text)]
    return files | {path.parent if path.name == "simple" else path for path in named if path.exists()}
