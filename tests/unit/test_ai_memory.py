"""Readers whose memory does not suffice: a device that claims to have none left is enough to see what they do then."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ai.errors import NotEnoughMemory
from ai.exam import Exam, Laterality, View, ViewImage, ViewPosition
from ai.findings import ExamFindings
from tests.drawn import a_breast
from tests.models import a_model, by_brightness, untrained
from tests.seed_networks import network, registered

if TYPE_CHECKING:
    from ai.readers.base import Reader

VIEWS = [View(side, ViewPosition.CC) for side in Laterality]
EXAM = Exam(
    tuple(
        ViewImage(f"1.2.{n}", view, a_breast((320, 240), mass=(50, 160, 20), right=view.laterality is Laterality.RIGHT))
        for n, view in enumerate(VIEWS)
    )
)
Suffices = Callable[[int, bool, str], bool]
"""Number of pictures, half precision or not, kind of device → whether there is memory for it."""


@pytest.fixture(autouse=True)
def networks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with registered(monkeypatch):
        yield


@pytest.fixture
def reader(tmp_path: Path) -> "Reader":
    """Return a reader of tiles, four at a time, that sees what is bright."""
    from ai.readers.registry import load_reader

    card = {"network": "tile_unet", "options": {"widths": [1]}, "tile": 128, "reduction": 2}
    bright = by_brightness(untrained("tile_unet", {"widths": [1]}), 40, -32)
    return load_reader(a_model(tmp_path, "marita", card, {"mass": 0.5, "candidate": 0.5, "dark": 0.05}, {"it": bright}))


def starve(reader: Any, suffices: Suffices) -> list[tuple[int, bool, str]]:
    """Let a reader's networks run only where the memory suffices; return how each was asked to run."""
    import torch

    asked = []
    for elastic in folds_of(reader)._networks:  # noqa: SLF001

        def run(*inputs: Any, inner: Any = elastic.network) -> Any:
            kind = inputs[0].device.type
            half = kind != "meta" and torch.is_autocast_enabled(kind)
            asked.append((len(inputs[0]), half, kind))
            if not suffices(*asked[-1]):
                raise torch.OutOfMemoryError
            return inner(*inputs)

        elastic.network = Running(run, elastic.network)
    return asked


def folds_of(reader: Any) -> Any:
    """Return a reader's networks, which its map of a view holds."""
    held = [cell.cell_contents for cell in reader._view_map.__closure__]  # noqa: SLF001
    [folds] = [each for each in held if hasattr(each, "_networks")]
    return folds


def Running(run: Callable[..., Any], inner: Any) -> Any:  # noqa: N802 (a class that needs torch)
    from torch import nn

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, *inputs: Any) -> Any:
            return run(*inputs)

    return Network()


def ways(found: ExamFindings) -> list[str]:
    """Return how each image was read, as its warnings say."""
    start = "memory did not suffice at first: read "
    return [w.removeprefix(start) for image in found.images for w in image.warnings if w.startswith(start)]


def scores(found: ExamFindings) -> list[int]:
    return [image.score for image in found.images]


@pytest.mark.parametrize(
    ("suffices", "way"),
    [
        pytest.param(lambda number, _half, _kind: number == 1, "one picture at a time", id="one picture"),
        pytest.param(
            lambda _number, half, _kind: half, "one picture at a time, in half precision", id="half precision"
        ),
    ],
)
def test_an_image_is_read_with_less_memory_and_its_findings_say_how(
    reader: "Reader", suffices: Suffices, way: str
) -> None:
    as_ever = reader.read(EXAM)
    assert ways(as_ever) == []
    asked = starve(reader, suffices)
    found = reader.read(EXAM)
    assert ways(found) == [way, way]
    assert scores(found) == pytest.approx(scores(as_ever), abs=3)
    assert [image.uid for image in found.images] == [image.uid for image in EXAM.images]
    tried = len([each for each in asked if not suffices(*each)])
    assert tried == (1 if way == "one picture at a time" else 2)  # the second image begins where the first has ended


def test_the_next_exam_is_tried_as_ever(reader: "Reader") -> None:
    full = [True]
    starve(reader, lambda number, _half, _kind: number == 1 or not full[0])
    assert len(ways(reader.read(EXAM))) == 2
    full[0] = False
    assert ways(reader.read(EXAM)) == []


def test_a_gpu_without_memory_leaves_the_reading_to_the_cpu(reader: Any) -> None:
    import torch

    from ai.readers.memory import Memory

    plain = reader.read(EXAM)
    # A device of kind "meta" stands for a GPU; the networks are still where the CPU reads.
    memory = Memory(torch.device("meta"))
    reader._memory = folds_of(reader)._memory = memory  # noqa: SLF001
    for elastic in folds_of(reader)._networks:  # noqa: SLF001
        elastic._memory, elastic._place = memory, memory.device  # noqa: SLF001
    asked = starve(reader, lambda _number, _half, kind: kind == "cpu")
    found = reader.read(EXAM)
    assert ways(found) == ["one picture at a time, on the CPU"] * 2
    assert scores(found) == pytest.approx(scores(plain), abs=1)
    assert {kind for _, _, kind in asked} == {"meta", "cpu"}


def test_where_nothing_helps_the_attempt_fails_in_words(reader: "Reader") -> None:
    asked = starve(reader, lambda *_: False)
    with pytest.raises(NotEnoughMemory, match="GPU"):
        reader.read(EXAM)
    assert [(number, half) for number, half, _ in asked] == [(3, False), (1, False), (1, True)]


def test_another_error_is_not_taken_for_one(reader: "Reader") -> None:
    asked = []

    def broken(*_: Any) -> bool:
        asked.append(1)
        raise ValueError("broken")

    starve(reader, broken)
    with pytest.raises(ValueError, match="broken"):
        reader.read(EXAM)
    assert len(asked) == 1


@pytest.mark.parametrize(
    "text",
    [
        "CUDA error: out of memory",
        "DefaultCPUAllocator: can't allocate memory: you tried",
        "CUBLAS_STATUS_ALLOC_FAILED",
    ],
)
def test_what_torch_raises_as_a_plain_error_is_known(text: str) -> None:
    from ai.readers.memory import is_out_of_memory

    assert is_out_of_memory(RuntimeError(text))
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(RuntimeError("sizes do not match"))


def test_an_output_that_half_precision_cannot_hold_is_none() -> None:
    import torch

    from ai.readers.memory import Economy, Elastic, Memory

    memory = Memory(torch.device("cpu"))
    too_large = Elastic(Running(lambda pixels: pixels / 0, torch.nn.Identity()), memory)
    memory.economy = Economy.HALF
    with pytest.raises(FloatingPointError):
        too_large(torch.ones(2, 1))


def test_readers_of_regions_and_boxes_are_read_alike(tmp_path: Path) -> None:
    """A detector gives a list of dictionaries, and the classifier takes two inputs."""
    import torch

    from ai.readers.memory import Economy, Elastic, Memory

    memory = Memory(torch.device("cpu"))
    boxes = Elastic(network("bright_box", level=0.5, margin=1.0, score=0.7), memory)
    contrast = Elastic(network("contrast", slope=1.0, bias=0.1, area=0.2), memory)
    pixels = torch.rand(3, 1, 16, 16)
    as_ever = boxes(pixels), contrast(pixels, (pixels > 0.5).float())
    memory.economy = Economy.SINGLY
    singly = boxes(pixels), contrast(pixels, (pixels > 0.5).float())
    assert torch.equal(singly[1], as_ever[1])
    for one, other in zip(singly[0], as_ever[0], strict=True):
        assert torch.equal(one["boxes"], other["boxes"])
        assert torch.equal(one["scores"], other["scores"])
