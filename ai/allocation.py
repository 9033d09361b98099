"""How this process gets its memory: large blocks that networks free are kept for the next layer.

The C library (glibc) asks the kernel for every block above 128 KiB anew, and returns it when it is freed. The kernel clears
each page when it is first touched: of an exam read by torch on two processors that was a seventh to a third of the time, in
more than half a million page faults (docs/performance.md). With these settings blocks up to 32 MiB come from the heap,
which grows and shrinks in large steps. The greatest memory stays what it was.

Training has larger ones: a map of 16 images after the first stage has 94 MB. When they come from the heap, too, a step
takes 0.7 of its time for a quarter more memory (docs/performance.md).
"""

import ctypes
from typing import Final

_M_TRIM_THRESHOLD: Final = -1
_M_TOP_PAD: Final = -2
_M_MMAP_THRESHOLD: Final = -3
_M_MMAP_MAX: Final = -4
_MIB: Final = 1 << 20

LARGEST: Final = 32 * _MIB
"""Of a block that comes from the heap: the most that glibc takes (HEAP_MAX_SIZE / 2).

A map of 128 channels, a quarter of the canvas' rows and columns and two ways up has 23.6 MB.
"""
STEP: Final = 256 * _MIB
"""By which the heap grows."""
NEVER: Final = 2_000_000_000
"""Bytes of free memory at the end of the heap from which it would shrink by itself."""


def keep_freed_memory(*, of_any_size: bool = False) -> bool:
    """Let this process keep what it frees, until :func:`give_back`; return whether its C library can (glibc can).

    Parameters
    ----------
    of_any_size
        Also blocks larger than :data:`LARGEST`, as training has them.
    """
    library = ctypes.CDLL(None)
    if not hasattr(library, "mallopt"):
        return False
    wanted = {_M_MMAP_THRESHOLD: LARGEST, _M_TRIM_THRESHOLD: NEVER, _M_TOP_PAD: STEP}
    if of_any_size:
        wanted[_M_MMAP_MAX] = 0
    return all(library.mallopt(name, value) for name, value in wanted.items())


def give_back() -> None:
    """Return to the system what this process has freed, when it will rest for a while."""
    library = ctypes.CDLL(None)
    if hasattr(library, "malloc_trim"):
        library.malloc_trim(0)
