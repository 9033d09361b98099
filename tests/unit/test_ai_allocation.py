"""What networks free is kept for the next layer, and given back when asked."""

import subprocess
import sys

import pytest

from ai import allocation

PROGRAM = """
import ctypes, resource, sys
import numpy as np
from ai.allocation import give_back, keep_freed_memory

size = int(sys.argv[1])

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        np.ones(size << 20, np.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

anew = faults()
assert keep_freed_memory(of_any_size=sys.argv[2] == "any")
faults()
kept = faults()
held = resident()
give_back()
print(anew, kept, held - resident())
"""

glibc = pytest.mark.skipif(sys.platform != "linux", reason="glibc's settings")


def measured(mebibytes: int, sizes: str) -> tuple[int, int, int]:
    """Return page faults of blocks of a size before and after, and the bytes that are given back."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(mebibytes), sizes], capture_output=True, text=True, check=True
    )
    anew, kept, given_back = map(int, done.stdout.split())
    return anew, kept, given_back


@glibc
@pytest.mark.parametrize(("mebibytes", "sizes"), [(16, "usual"), (16, "any"), (96, "any")])
def test_freed_blocks_are_not_cleared_by_the_kernel_again_until_they_are_given_back(mebibytes: int, sizes: str) -> None:
    anew, kept, given_back = measured(mebibytes, sizes)
    assert anew > 20 * kept
    assert given_back >= mebibytes << 20


@glibc
def test_larger_blocks_of_an_exam_go_back_at_once() -> None:
    anew, kept, _ = measured(96, "usual")
    assert kept > anew / 2


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctypes.CDLL", lambda _: object())
    assert not allocation.keep_freed_memory()
    allocation.give_back()
