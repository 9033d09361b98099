"""OpenVINO in torch's place: the same outputs in their structure, one form for each shape, torch where it must be."""

import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ai.errors import RuntimeMissing
from ai.exam import STANDARD_VIEWS, Exam
from ai.models import open_model
from ai.pixels import view_image
from ai.readers.memory import Economy, Elastic, Memory
from ai.readers.registry import load_reader
from ai.readers.runtime import MOST_SHAPES, Compiled, Runtime, require
from config.settings import DEFAULT_MODEL
from node.phantom import phantom_exam

CPU = torch.device("cpu")


class Said(NamedTuple):
    """What a network says."""

    maps: Tensor
    nothing: Tensor | None
    score: Tensor


class Tells(nn.Module):
    """A network that tells a tuple, one part of which is None, and counts how often torch ran it."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 2, 3, padding=1)
        self.runs = 0

    def forward(self, pixels: Tensor) -> Said:
        """Run."""
        self.runs += 1
        maps = self.first(pixels).relu()
        return Said(maps, None, maps.mean((1, 2, 3)))


class Finds(Tells):
    """A network whose output depends on what it sees."""

    def forward(self, pixels: Tensor) -> Any:
        """Run."""
        self.runs += 1
        return [{"boxes": pixels[pixels > 0]}]


@pytest.fixture
def pixels() -> Tensor:
    return torch.from_numpy(np.random.default_rng(1).normal(size=(2, 1, 32, 64)).astype(np.float32))


def test_what_it_says_has_torch_s_structure_and_nearly_its_values(pixels: Tensor) -> None:
    network = Tells().eval()
    compiled = Compiled(network)
    with torch.inference_mode():
        wanted, said = network(pixels), compiled(pixels.to(memory_format=torch.channels_last))
    assert isinstance(said, Said)
    assert said.nothing is None
    torch.testing.assert_close(said.maps, wanted.maps, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(said.score, wanted.score, atol=1e-5, rtol=1e-5)


def test_each_shape_is_compiled_once_and_torch_rests_then(pixels: Tensor) -> None:
    network = Tells().eval()
    compiled = Compiled(network)
    compiled(pixels)
    runs = network.runs
    compiled(pixels + 1)
    assert network.runs == runs
    assert compiled(pixels[:1, :, :16]).maps.shape == (1, 2, 16, 64)
    assert network.runs > runs
    for side in range(16, 16 + MOST_SHAPES):
        compiled(pixels[:, :, :side, :8])
    assert len(compiled.forms) <= MOST_SHAPES


SIGNALLED = """
import gc, signal, torch
from ai.readers.runtime import Compiled
for shapes in ((1, 2), (1, 2, 3)):
    compiled = Compiled(torch.nn.Conv2d(1, 4, 3).eval())
    for count in shapes:
        compiled(torch.zeros(count, 1, 32, 32))
    del compiled
    gc.collect()
heard = []
signal.signal(signal.SIGTERM, lambda *_: heard.append("heard"))
signal.raise_signal(signal.SIGTERM)
print(*heard)
"""


def test_a_process_whose_networks_are_compiled_hears_signals() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SIGNALLED], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "heard\n"), done.stderr


def test_a_detector_stays_torch_s(pixels: Tensor) -> None:
    network = Finds().eval()
    compiled = Compiled(network)
    for each in (pixels, pixels + 1):
        assert torch.equal(compiled(each)[0]["boxes"], each[each > 0])
    assert network.runs == 3  # the first time it was tried


class Divides(nn.Module):
    """A network whose output half precision cannot hold, and counts in which precision it ran."""

    def __init__(self) -> None:
        super().__init__()
        self.ran: list[torch.dtype] = []

    def forward(self, pixels: Tensor) -> Tensor:
        """Run."""
        product = pixels.flatten(1) @ torch.ones(pixels[0].numel(), 1)
        self.ran.append(product.dtype)
        return product / (product.dtype is torch.float32)


def test_half_precision_says_nearly_the_same_in_single(pixels: Tensor) -> None:
    network = Tells().eval()
    with torch.inference_mode():
        wanted, said = network(pixels), Elastic(network, Memory(CPU, Runtime.TORCH_HALF))(pixels)
    assert isinstance(said, Said)
    assert said.maps.dtype is torch.float32
    assert not torch.equal(said.maps, wanted.maps)
    torch.testing.assert_close(said.maps, wanted.maps, atol=0.05, rtol=0.05)


def test_what_half_precision_cannot_hold_is_said_in_single(pixels: Tensor) -> None:
    network = Divides()
    said = Elastic(network, Memory(CPU, Runtime.TORCH_HALF))(pixels)
    assert network.ran == [torch.bfloat16, torch.float32]
    assert said.isfinite().all()


def test_less_memory_is_torch_s_as_well(pixels: Tensor) -> None:
    memory = Memory(CPU, Runtime.OPENVINO)
    network = Tells().eval()
    elastic = Elastic(network, memory)
    with torch.inference_mode():
        whole = elastic(pixels)
    runs, memory.economy = network.runs, Economy.SINGLY
    with torch.inference_mode():
        singly = elastic(pixels)
    assert isinstance(singly, Said)
    assert network.runs == runs + len(pixels)
    torch.testing.assert_close(whole.maps, singly.maps, atol=1e-5, rtol=1e-5)


@pytest.mark.filterwarnings("ignore:`timm-` encoders are deprecated:DeprecationWarning")
def test_the_shipped_model_finds_the_same_with_both() -> None:
    views = zip(STANDARD_VIEWS[:1], phantom_exam(7, small=True).images, strict=False)
    exam = Exam(tuple(view_image(dataset, view) for view, dataset in views))
    readers = [load_reader(open_model(DEFAULT_MODEL), "cpu", threshold=0.0, runtime=r) for r in ("torch", "openvino")]
    one, other = (reader.read(exam) for reader in readers)
    assert [reader.device for reader in readers] == ["cpu", "cpu, openvino"]
    assert any(image.masses for image in one.images)
    assert abs(one.score - other.score) <= 1
    for here, there in zip(one.images, other.images, strict=True):
        assert len(here.masses) == len(there.masses)
        for mass, again in zip(here.masses, there.masses, strict=True):
            assert mass.detection == pytest.approx(again.detection, abs=1e-3)
            np.testing.assert_allclose(mass.box, again.box, atol=2)


@pytest.mark.skipif(
    not {"amx_bf16", "avx512_bf16"} & set(Path("/proc/cpuinfo").read_text().split()),
    reason="bfloat16 is put together by hand on a processor without it",
)
@pytest.mark.filterwarnings("ignore:`timm-` encoders are deprecated:DeprecationWarning")
def test_the_shipped_model_finds_nearly_the_same_in_half_precision() -> None:
    views = zip(STANDARD_VIEWS[:1], phantom_exam(7, small=True).images, strict=False)
    exam = Exam(tuple(view_image(dataset, view) for view, dataset in views))
    model = open_model(DEFAULT_MODEL)
    readers = [load_reader(model, "cpu", runtime=runtime) for runtime in ("torch", "torch-half")]
    one, other = (reader.read(exam) for reader in readers)
    assert [reader.device for reader in readers] == ["cpu", "cpu, torch-half"]
    assert abs(one.score - other.score) <= 3
    for here, there in zip(one.images, other.images, strict=True):
        for mass, again in zip(here.masses, there.masses, strict=True):
            assert mass.detection == pytest.approx(again.detection, abs=0.03)
            np.testing.assert_allclose(mass.box, again.box, atol=10)


def test_only_the_reader_that_was_measured_so_reads_in_half_precision() -> None:
    require(Runtime.TORCH_HALF, CPU, "mass_fpn")
    with pytest.raises(RuntimeMissing, match="mass_fpn alone, not with agarwal"):
        require(Runtime.TORCH_HALF, CPU, "agarwal")


@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_it_reads_on_the_cpu_alone(device: str) -> None:
    with pytest.raises(RuntimeMissing, match="reads on the CPU"):
        require(Runtime.OPENVINO, torch.device(device))
    require(Runtime.TORCH, torch.device(device))


@pytest.mark.filterwarnings("ignore:`timm-` encoders are deprecated:DeprecationWarning")
def test_where_it_is_not_installed_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(RuntimeMissing, match="openvino"):
        load_reader(open_model(DEFAULT_MODEL), "cpu", runtime="openvino")


def test_openvino_tells_nobody_that_it_is_used() -> None:
    require(Runtime.OPENVINO, CPU)
    telling = importlib.import_module("openvino.tools.ovc").telemetry
    assert type(telling).__module__ == "openvino.tools.ovc.telemetry_stub"
    assert sys.modules["openvino_telemetry"] is None
