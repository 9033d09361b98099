"""What a GPU changes: nothing that is learnt or read, but for rounding. Skipped where there is none."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from ai.exam import STANDARD_VIEWS, Exam
from ai.models import open_model
from ai.pixels import view_image
from ai.training.phases import Part, Precision
from config.settings import DEFAULT_MODEL
from node.phantom import phantom_exam

if TYPE_CHECKING:
    import torch

    from ai.findings import ExamFindings


@pytest.fixture
def gpu() -> "torch.device":
    import torch

    if not torch.cuda.is_available():
        pytest.skip("there is no GPU that torch can use")
    return torch.device("cuda")


PART: dict[str, Any] = {
    "network": "mass_fpn",
    "options": {"boxes": True},
    "examples": {"canvas": [64, 64]},
    "batch": 2,
    "phases": [{"loss": "mass_loss", "epochs": 2, "optimiser": "adamw", "learning_rate": 1e-3}],
}


def trained(folder: Path, device: "torch.device", precision: Precision) -> dict[str, Any]:
    """Train the shipped network on four drawn canvases, and return its weights."""
    import torch

    from ai.breast import Geometry
    from ai.datasets.records import Record
    from ai.networks.registry import build
    from ai.training.augmentation import Augmentation
    from ai.training.engine import train_part
    from ai.training.learners.mass_fpn import MassExamples, _loss
    from ai.training.samples import Sample
    from tests.builders import L_CC

    rng = np.random.default_rng(0)
    geometry = Geometry((64, 64), (0, 0, 64, 64), mirrored=False, scale=(1, 1), canvas=(64, 64))
    mass = np.zeros((64, 64), np.uint8)
    mass[20:40, 24:44] = 1
    box = np.array([[24.0, 20, 44, 40]])
    samples = [
        Sample(
            Record(str(n), str(n), L_CC, malignant=n % 2 == 0),
            rng.integers(0, 255, (64, 64), np.uint8),
            mass,
            box,
            geometry,
        )
        for n in range(4)
    ]
    part = Part.model_validate(PART)
    torch.manual_seed(0)
    train_part(
        build(part.network, part.options),
        {"mass_loss": _loss},
        part,
        MassExamples(samples, Augmentation()),
        None,
        folder,
        seed=1,
        device=device,
        precision=precision,
    )
    return load_file(folder / "model.safetensors")


@pytest.mark.parametrize("precision", [Precision.SINGLE, Precision.BFLOAT16])
def test_two_runs_on_a_gpu_give_the_same_weights_bit_by_bit(
    gpu: "torch.device", tmp_path: Path, precision: Precision
) -> None:
    one, two = (trained(tmp_path / name, gpu, precision) for name in ("one", "two"))
    for key, tensor in one.items():
        np.testing.assert_array_equal(tensor, two[key], err_msg=key)


def test_the_shipped_reader_finds_the_same_on_a_gpu(gpu: "torch.device") -> None:
    from ai.readers.registry import load_reader

    exam = Exam(tuple(view_image(i, v) for v, i in zip(STANDARD_VIEWS, phantom_exam(7).images, strict=True)))
    there, here = (load_reader(open_model(DEFAULT_MODEL), device).read(exam) for device in (str(gpu), "cpu"))

    def told(findings: "ExamFindings") -> list[list[tuple[int, int, int, int]]]:
        return [[m.box for m in image.masses] for image in findings.images]

    for one, other in zip(told(there), told(here), strict=True):
        assert len(one) == len(other)
        np.testing.assert_allclose(one, other, atol=2)
    assert there.score == pytest.approx(here.score, abs=1)
