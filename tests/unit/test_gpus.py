"""What the driver of a GPU says, and one that hangs."""

import subprocess
from pathlib import Path

import pytest

from node.gpus import GpuDriver
from storage.workers import Gpu


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file with a line for each time that the driver was asked, its arguments; what it does then stands beside it."""
    program = tmp_path / "nvidia-smi"
    program.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n. {tmp_path}/then\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    return tmp_path / "asked"


def then(asked: Path, does: str) -> None:
    asked.with_name("then").write_text(does)


def test_a_gpu_is_told_as_its_driver_says(asked: Path) -> None:
    then(asked, 'echo "NVIDIA H200, 1024, 8192, 25"')
    assert GpuDriver("cuda:1", "4, 7").now() == Gpu("NVIDIA H200", 1 << 30, 8 << 30, 0.25)
    assert "--id=7" in asked.read_text()


@pytest.mark.parametrize("does", ["exit 6", "echo no devices were found", 'echo "NVIDIA, [N/A], [N/A], [N/A]"; exit 1'])
def test_a_driver_that_has_nothing_to_say_costs_nothing(asked: Path, does: str) -> None:
    then(asked, does)
    assert GpuDriver("cuda").now() == Gpu()


def test_without_a_gpu_no_driver_is_asked(asked: Path) -> None:
    assert GpuDriver("cpu").now() == Gpu()
    assert not asked.exists()


def test_a_driver_that_hangs_and_heeds_no_signal_is_neither_waited_for_nor_asked_again(
    asked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hanging: list[subprocess.Popen[str]] = []
    then(asked, "exec sleep 60")
    driver = GpuDriver("cuda", within=0.2)
    with monkeypatch.context() as kernel:
        kernel.setattr(subprocess.Popen, "kill", lambda process: hanging.append(process))  # noqa: PLW0108 (a method)
        assert [driver.now() for _ in range(3)] == [Gpu()] * 3
    [one] = hanging
    one.kill()
    one.wait()
    then(asked, 'echo "NVIDIA, 1024, 8192, 25"')
    assert GpuDriver("cuda").now() == driver.now() == Gpu("NVIDIA", 1 << 30, 8 << 30, 0.25)
