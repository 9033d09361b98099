"""Training with numbers that are none, or of half precision."""

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from ai.errors import Diverged
from ai.training.phases import Part, Precision
from tests.toy_training import Drawn, a_part, down, entropy, no_curves, one_number, run, uncut

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ai.training.engine import Trained

__all__ = ["no_curves", "uncut"]


class Spoilt(Drawn):
    def __init__(self, count: int) -> None:
        super().__init__(count, seed=1)
        self.images[-1] = np.nan


def test_a_loss_that_is_no_number_stops_the_run_and_names_its_place(tmp_path: Path) -> None:
    part = a_part(phases=[{"loss": "bce", "epochs": 1, "learning_rate": 1e30}])
    with pytest.raises(Diverged, match=r"learning rate\. Part network, phase 1, epoch 1, step 2"):
        run(tmp_path, part)
    assert list(tmp_path.iterdir()) == []


def test_a_validation_loss_that_is_no_number_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(Diverged, match="Part network, phase 1, epoch 1, in validation"):
        run(tmp_path, validation=Spoilt(5))


def test_the_checkpoint_of_the_last_good_epoch_stays(uncut: "tuple[Path, Trained]", tmp_path: Path) -> None:
    calls = 0

    def spoilt(network: "nn.Module", batch: "tuple[Tensor, ...]") -> "Tensor":
        nonlocal calls
        calls += 1
        return entropy(network, batch) * (math.nan if calls > 20 else 1.0)

    # An epoch is two steps of two pieces and three batches of validation.
    with pytest.raises(Diverged, match="phase 1, epoch 3, in validation"):
        run(tmp_path, objective=spoilt)
    trained, steps = run(tmp_path)
    assert steps[0].done == 5
    assert trained is not None
    assert trained.weights.read_bytes() == uncut[1].weights.read_bytes()


def test_weights_that_the_last_step_spoilt_are_not_kept(tmp_path: Path) -> None:
    import torch

    from ai.training.engine import train_part

    part = Part.model_validate(
        {"network": "toy", "batch": 4, "phases": [{"loss": "bce", "epochs": 1, "learning_rate": 3e37}]}
    )
    # The only loss that is seen is a number; the step after it leaves none.
    with pytest.raises(Diverged, match="Part network, phase 1, epoch 1: weight is not finite"):
        train_part(
            one_number(-3.3e38), {"bce": down}, part, Drawn(4), None, tmp_path, seed=1, device=torch.device("cpu")
        )
    assert list(tmp_path.iterdir()) == []


def test_weights_beyond_half_precision_are_not_written(tmp_path: Path) -> None:
    import torch

    from ai.training.checkpoints import export

    with pytest.raises(Diverged, match="scale is beyond what half precision can hold"):
        export({"scale": torch.tensor([1e5])}, tmp_path / "model.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_the_loss_falls_on_images_seen_again_and_again(tmp_path: Path) -> None:
    part = a_part(phases=[{"loss": "bce", "epochs": 12, "learning_rate": 0.05}], average=None)
    trained, _ = run(tmp_path, part)
    assert trained is not None
    assert trained.history[-1].training < 0.8 * trained.history[0].training


@pytest.mark.parametrize(
    ("device", "capabilities", "expected"),
    [
        ("cpu", {"avx2": True}, "single"),
        ("cpu", {"avx512_bf16": True, "amx_bf16": False}, "single"),
        ("cpu", {"avx512_bf16": True, "amx_bf16": True}, "bfloat16"),
        ("cuda", {"avx2": True}, "bfloat16"),
    ],
)
def test_auto_is_bfloat16_where_that_is_quick(
    monkeypatch: pytest.MonkeyPatch, device: str, capabilities: dict[str, bool], expected: str
) -> None:
    import torch

    from ai.training.devices import resolved

    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert resolved(Precision.AUTO, torch.device(device)) == expected
    assert resolved(Precision.SINGLE, torch.device(device)) == "single"
    assert resolved(Precision.BFLOAT16, torch.device(device)) == "bfloat16"


@pytest.mark.parametrize(("precision", "there"), [(Precision.BFLOAT16, True), (Precision.SINGLE, False)])
def test_depthwise_gradients_are_float32_where_the_rest_is_bfloat16(
    tmp_path: Path, precision: Precision, *, there: bool
) -> None:
    from torch import nn

    seen = set()

    def objective(network: nn.Module, batch: "tuple[Tensor, ...]") -> "Tensor":
        outputs: Tensor = network(batch[0].expand(-1, 2, -1, -1))
        if outputs.grad_fn is not None:  # in validation there is none
            seen.add("Depthwise" in type(outputs.grad_fn).__name__)
        return outputs.float().mean()

    part = a_part(phases=[{"loss": "bce", "epochs": 1, "learning_rate": 0.05}])
    run(tmp_path, part, network=nn.Conv2d(2, 2, 3, groups=2, bias=False), objective=objective, precision=precision)
    assert seen == {there}
