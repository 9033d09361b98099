"""A GPU that really runs out of memory; needs torch and a GPU, and is skipped without."""

from functools import partial
from typing import Any

import numpy as np
import pytest

from ai.exam import Laterality, View, ViewPosition
from ai.findings import ImageFindings


def test_a_gpu_that_really_runs_out_of_memory_reads_all_the_same() -> None:
    import torch
    from torch import nn

    from ai.readers.memory import Economy, Elastic, Memory, told

    if not torch.cuda.is_available():
        pytest.skip("no GPU is here")
    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 1, 3, padding=1)]
    memory = Memory(torch.device("cuda"))
    elastic = Elastic(nn.Sequential(*layers).eval().to("cuda"), memory)
    pixels = np.random.default_rng(0).random((8, 1, 1024, 1024), np.float32)

    @torch.inference_mode()
    def read(kept: list[Any]) -> ImageFindings:
        kept[:] = [elastic(torch.from_numpy(pixels).to(memory.where)).cpu()]
        return ImageFindings("1.2", View(Laterality.LEFT, ViewPosition.CC), (1, 1), (), 0, None)

    plain: list[Any] = []
    assert memory.read(partial(read, plain)).warnings == ()
    needed, total = torch.cuda.max_memory_reserved(), torch.cuda.mem_get_info()[1]
    seen: set[str] = set()
    found: list[Any] = []
    try:
        for part in (1, 0.5, 0.25, 0.12, 0.06, 0.0):
            memory.economy = Economy.NONE
            torch.cuda.empty_cache()
            held = torch.cuda.memory_reserved()
            torch.cuda.set_per_process_memory_fraction((held + part * (needed - held)) / total)
            warnings = memory.read(partial(read, found)).warnings
            seen |= set(warnings)
            assert torch.allclose(found[0], plain[0], atol=1e-2), warnings
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert seen == {told(way) for way in Economy if way is not Economy.NONE}
    memory.economy = Economy.NONE
    assert memory.read(partial(read, found)).warnings == ()
