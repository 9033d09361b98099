"""What networks free is kept for the next layer, and given back when asked."""

import subprocess
import sys

import pytest

from ai import allocation

PROGRAM = """
import ctypes, resource
import numpy as np
from ai.allocation import give_back, keep_freed_memory

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        np.ones(16 << 20, np.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

anew = faults()
assert keep_freed_memory()
faults()
kept = faults()
held = resident()
give_back()
print(anew, kept, held - resident())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's settings")
def test_freed_blocks_are_not_cleared_by_the_kernel_again_until_they_are_given_back() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    anew, kept, given_back = map(int, done.stdout.split())
    assert anew > 20 * kept
    assert given_back >= 16 << 20


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctypes.CDLL", lambda _: object())
    assert not allocation.keep_freed_memory()
    allocation.give_back()
