"""The training loop, on networks of a few numbers."""

import hashlib
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file

from ai.errors import DamagedCheckpoint, Diverged, ForeignCheckpoint, InvalidDataset, InvalidRecipe
from ai.training.history import read_history
from ai.training.phases import Part, Precision

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ai.training.engine import Step, Trained


@pytest.fixture(autouse=True)
def no_curves(one_thread: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the picture empty: it takes longer than these runs; the run of the fixture ``uncut`` draws it."""
    from ai.training import engine

    monkeypatch.setattr(engine, "draw_curves", lambda _, path, *__: path.touch())


class Drawn:
    """Drawn images, whose truth is where they are bright; changed ones have noise."""

    def __init__(self, count: int, seed: int = 0) -> None:
        self.images = np.random.default_rng(seed).random((count, 1, 8, 8), np.float32)
        self.asked: list[tuple[list[int], bool]] = []

    def __len__(self) -> int:
        return len(self.images)

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(self.images.tobytes()).hexdigest()

    def batch(self, chosen: Sequence[int], rng: np.random.Generator | None) -> "tuple[Tensor, ...]":
        import torch

        self.asked.append((list(chosen), rng is not None))
        images = self.images[list(chosen)]
        noise = (
            0 if rng is None else np.stack([0.1 * rng.standard_normal(images.shape[1:], np.float32) for _ in chosen])
        )
        return torch.from_numpy(images + noise), torch.from_numpy((images > 0.5).astype(np.float32))


def a_network(*, plain: bool = False) -> "nn.Module":
    """Build an encoder and a head; a plain one has no batch normalisation and no dropout."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Identity() if plain else nn.BatchNorm2d(4), nn.ReLU())
    network = nn.Sequential()
    network.add_module("encoder", encoder)
    network.add_module("drop", nn.Identity() if plain else nn.Dropout(0.2))
    network.add_module("head", nn.Conv2d(4, 1, 1))
    return network


def entropy(network: "nn.Module", batch: "tuple[Tensor, ...]") -> "Tensor":
    from torch.nn.functional import binary_cross_entropy_with_logits

    return binary_cross_entropy_with_logits(network(batch[0]).float(), batch[1])


COURSE = {
    "network": "toy",
    "batch": 4,
    "accumulation": 2,
    "clip": 1.0,
    "average": 0.9,
    "epoch_examples": 9,
    "phases": [
        {
            "loss": "bce", "epochs": 3, "learning_rate": 0.05, "schedule": "steps", "milestones": [1, 2],
            "frozen": ["encoder"], "frozen_epochs": 2,
        },
        {"loss": "bce", "epochs": 3, "optimiser": "adamw", "learning_rate": 0.02, "schedule": "one_cycle"},
    ],
}  # fmt: skip


def a_part(**changes: Any) -> Part:
    return Part.model_validate(COURSE | changes)


class Cut(Exception):
    """The power went out."""


def run(
    folder: Path,
    part: Part | None = None,
    *,
    training: Drawn | None = None,
    validation: Drawn | None = None,
    cut_at: int = 0,
    network: "nn.Module | None" = None,
    objective: Callable[..., Any] = entropy,
    **options: Any,
) -> "tuple[Trained | None, list[Step]]":
    """Train, and cut the run off at a step of all; 0 lets it end."""
    import torch

    from ai.training.engine import train_part

    steps: list[Step] = []
    options.setdefault("precision", Precision.BFLOAT16)

    def on_step(step: "Step") -> None:
        steps.append(step)
        if len(steps) == cut_at:
            raise Cut

    told: dict[str, Any] = {"seed": 4, "device": torch.device("cpu"), "on_step": on_step} | options
    training = training or Drawn(11)
    validation = validation or Drawn(5, seed=1)
    network = network or a_network()
    try:
        return train_part(network, {"bce": objective}, part or a_part(), training, validation, folder, **told), steps
    except Cut:
        return None, steps


@pytest.fixture(scope="module")
def uncut(tmp_path_factory: pytest.TempPathFactory) -> "tuple[Path, Trained]":
    """Return the folder and the result of a run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("uncut")
    trained, steps = run(folder)
    assert trained is not None
    assert [(s.phase, s.epoch, s.step, s.steps) for s in steps[:5]] == [
        (1, 1, 1, 2), (1, 1, 2, 2), (1, 2, 1, 2), (1, 2, 2, 2), (1, 3, 1, 2),
    ]  # fmt: skip
    assert [(s.done, s.total) for s in steps] == [(i + 1, 12) for i in range(12)]
    return folder, trained


def tensors(path: Path) -> dict[str, NDArray[Any]]:
    found: dict[str, NDArray[Any]] = load_file(path)
    return found


def timeless(trained: "Trained | None") -> list[Any]:
    assert trained is not None
    return [replace(row, seconds=0.0) for row in trained.history]


# After 3 steps: in the second epoch; 6: at the border of the phases; 7: in the second phase; 12: at the very end.
@pytest.mark.parametrize("cut_at", [3, 6, 7, 12])
def test_a_run_that_was_cut_off_gives_the_weights_and_the_curve_of_an_uncut_one(
    uncut: "tuple[Path, Trained]", tmp_path: Path, cut_at: int
) -> None:
    cut, before = run(tmp_path, cut_at=cut_at)
    assert cut is None
    assert not (tmp_path / "model.safetensors").exists()
    # Whatever the new process begins with is replaced.
    trained, after = run(tmp_path, network=a_network())
    assert trained is not None
    whole = (cut_at - 1) // 2 * 2
    assert [s.done for s in after] == list(range(whole + 1, 13))
    if before[whole:]:
        assert after[0].loss == before[whole].loss
    assert timeless(trained) == timeless(uncut[1])
    assert trained.weights.read_bytes() == uncut[1].weights.read_bytes()
    assert [replace(r, seconds=0.0) for r in read_history(tmp_path / "history.csv")] == timeless(uncut[1])


def test_a_finished_run_is_not_done_again(uncut: "tuple[Path, Trained]", tmp_path: Path) -> None:
    shutil.copytree(uncut[0], tmp_path, dirs_exist_ok=True)
    for name in ("model.safetensors", "history.csv", "curves.png"):
        (tmp_path / name).unlink()
    trained, steps = run(tmp_path)
    assert steps == []
    assert trained is not None
    assert trained.weights.read_bytes() == uncut[1].weights.read_bytes()
    assert (tmp_path / "history.csv").read_bytes() == (uncut[0] / "history.csv").read_bytes()
    assert (tmp_path / "curves.png").exists()
    assert (uncut[0] / "curves.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("changes", "differs"),
    [
        ({"part": a_part(clip=2.0)}, "differs in part.clip$"),
        ({"part": a_part(batch=3, accumulation=1)}, "differs in part.accumulation, part.batch$"),
        ({"training": Drawn(11, seed=5)}, "differs in training$"),
        # Another fold in the same folder would be validated on patients that the network has seen.
        ({"validation": Drawn(11)}, "differs in validation$"),
        ({"seed": 5}, "differs in seed$"),
        ({"precision": Precision.SINGLE}, "differs in precision$"),
        ({"what": {"recipe": "another"}}, "differs in what.recipe$"),
    ],
)
def test_a_foreign_checkpoint_is_refused(uncut: "tuple[Path, Trained]", changes: dict[str, Any], differs: str) -> None:
    before = (uncut[0] / "checkpoint.pt").read_bytes()
    with pytest.raises(ForeignCheckpoint, match=r"output folder.*checkpoint\.pt " + differs):
        run(uncut[0], **changes)
    assert (uncut[0] / "checkpoint.pt").read_bytes() == before


def test_what_is_the_same_in_other_words_is_no_other_plan(
    uncut: "tuple[Path, Trained]", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True})
    shutil.copytree(uncut[0], tmp_path, dirs_exist_ok=True)
    assert run(tmp_path, precision=Precision.AUTO, what={})[1] == []


@pytest.mark.parametrize(
    "damage",
    [
        lambda _: b"",
        lambda content: content[: len(content) // 2],
        lambda content: b"\x00" * len(content),
        lambda _: b"not a checkpoint",
        lambda content: content[: len(content) // 2] + b"\xff\xff\xff\xff" + content[len(content) // 2 + 4 :],
    ],
    ids=["empty", "cut", "zeros", "text", "four bytes"],
)
def test_a_damaged_checkpoint_is_refused(
    uncut: "tuple[Path, Trained]", tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    (tmp_path / "checkpoint.pt").write_bytes(damage((uncut[0] / "checkpoint.pt").read_bytes()))
    with pytest.raises(DamagedCheckpoint, match=r"begins anew.*checkpoint\.pt"):
        run(tmp_path)


def test_the_seed_decides_what_is_learnt(uncut: "tuple[Path, Trained]", tmp_path: Path) -> None:
    trained, _ = run(tmp_path, seed=5)
    assert trained is not None
    assert trained.weights.read_bytes() != uncut[1].weights.read_bytes()


def test_files_have_the_mode_of_new_files_and_half_precision(uncut: "tuple[Path, Trained]", tmp_path: Path) -> None:
    (tmp_path / "new").touch()
    names = {"checkpoint.pt", "history.csv", "curves.png", "model.safetensors"}
    assert {p.name for p in uncut[0].iterdir()} == names
    assert {p.stat().st_mode for p in uncut[0].iterdir()} == {(tmp_path / "new").stat().st_mode}
    found = tensors(uncut[1].weights)
    assert {t.dtype for t in found.values() if t.dtype.kind == "f"} == {np.dtype(np.float16)}
    assert found["encoder.1.num_batches_tracked"].dtype == np.int64


def test_the_weights_go_where_the_caller_says(tmp_path: Path) -> None:
    trained, _ = run(tmp_path / "runs", weights=tmp_path / "fold-0.safetensors")
    assert trained is not None
    assert trained.weights == tmp_path / "fold-0.safetensors"
    assert not (tmp_path / "runs" / "model.safetensors").exists()


def test_validation_sees_every_example_unchanged_and_training_never_one_twice(tmp_path: Path) -> None:
    training, validation = Drawn(11), Drawn(5, seed=1)
    run(tmp_path, training=training, validation=validation)
    assert [chosen for chosen, _ in validation.asked] == [[0, 1], [2, 3], [4]] * 6
    assert not any(changed for _, changed in validation.asked)
    assert all(changed for _, changed in training.asked)
    epochs = [[place for chosen, _ in training.asked[i : i + 4] for place in chosen] for i in range(0, 24, 4)]
    assert all(len(set(epoch)) == 8 for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 6


def test_validation_on_some_examples_takes_the_same_from_all_over(tmp_path: Path) -> None:
    validation = Drawn(11, seed=1)
    run(tmp_path, a_part(validation_examples=4), training=Drawn(4), validation=validation)
    assert {tuple(chosen) for chosen, _ in validation.asked} == {(0, 2), (5, 8)}


def test_a_batch_in_pieces_teaches_what_the_whole_batch_teaches(tmp_path: Path) -> None:
    results = []
    for pieces in (1, 3, 4):
        part = a_part(batch=10, accumulation=pieces, epoch_examples=None, average=None)
        trained, _ = run(
            tmp_path / str(pieces), part, network=a_network(plain=True), precision=Precision.SINGLE, seed=1
        )
        assert trained is not None
        results.append(trained.history)
    for other in results[1:]:
        assert [r.training for r in other] == pytest.approx([r.training for r in results[0]], rel=1e-5)
        assert [r.validation for r in other] == pytest.approx([r.validation for r in results[0]], rel=1e-5)


def test_what_is_frozen_keeps_its_weights_and_statistics(tmp_path: Path) -> None:
    import torch

    phase = {"loss": "bce", "epochs": 2, "learning_rate": 0.05, "frozen": ["encoder"], "frozen_epochs": 2}
    network = a_network()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    run(tmp_path / "frozen", a_part(phases=[phase], average=None), network=network)
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]) == name.startswith("encoder"), name
    network = a_network()
    run(tmp_path / "thawed", a_part(phases=[phase | {"epochs": 3}], average=None, keep="last"), network=network)
    assert not any(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(p.requires_grad for p in network.parameters())


def test_what_the_network_itself_never_learns_stays(tmp_path: Path) -> None:
    import torch

    network = a_network()
    bias = network.get_parameter("head.bias").requires_grad_(False)  # noqa: FBT003
    before = bias.clone()
    run(tmp_path, network=network)
    assert torch.equal(network.get_parameter("head.bias"), before)
    assert not bias.requires_grad


@pytest.mark.parametrize(
    ("frozen", "reason"),
    [
        (["encoder", "enc"], "phase 1|frozen: the network has no 'enc'; it has encoder, head"),
        (["encoder", "head"], "frozen: encoder, head leaves nothing to learn"),
    ],
)
def test_frozen_parts_that_make_no_sense_are_refused(tmp_path: Path, frozen: list[str], reason: str) -> None:
    phase = {"loss": "bce", "epochs": 1, "learning_rate": 0.1, "frozen": frozen}
    with pytest.raises(InvalidRecipe, match=reason):
        run(tmp_path, a_part(phases=[phase]))
    assert list(tmp_path.iterdir()) == []


def test_a_loss_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidRecipe, match="phase 1: loss 'dice' is not there; there are bce"):
        run(tmp_path, a_part(phases=[{"loss": "dice", "epochs": 1, "learning_rate": 0.1}]))


def test_too_few_examples_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidDataset, match="3 examples are fewer than one batch of 4"):
        run(tmp_path, training=Drawn(3))


def test_validation_examples_must_be_there_where_they_are_needed(tmp_path: Path) -> None:
    import torch

    from ai.training.engine import train_part

    class Empty(Drawn):
        def __bool__(self) -> bool:
            return True

    with pytest.raises(InvalidDataset, match="no examples to validate on"):
        run(tmp_path, validation=Empty(0))
    part = a_part(phases=[{"loss": "bce", "epochs": 1, "learning_rate": 0.1, "patience": 1}])
    with pytest.raises(InvalidDataset, match="patience"):
        train_part(a_network(), {"bce": entropy}, part, Drawn(8), None, tmp_path, seed=1, device=torch.device("cpu"))


# One number, w = 1 at first, whose training loss is w itself: Adam takes it down by the learning rate, step by step.
def one_number(start: float = 1.0) -> "nn.Module":
    import torch
    from torch import nn

    network = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        network.weight.fill_(start)
    return network


def down(network: "nn.Module", batch: "tuple[Tensor, ...]") -> "Tensor":
    """Return w in training and its distance from 0.72 in validation."""
    w = network.get_parameter("weight").sum() * batch[0].isfinite().all()
    return w if network.training else (w - 0.72).abs()


def count_down(folder: Path, *phases: dict[str, Any], cut_at: int = 0, **changes: Any) -> "Trained":
    """Train, cut off at a step of all and taken up again where that is wanted."""
    told = [{"loss": "bce", "epochs": 5, "learning_rate": 0.1, **phase} for phase in phases or ({},)]
    part = Part.model_validate({"network": "toy", "batch": 4, "phases": told} | changes)
    options: dict[str, Any] = {"objective": down, "training": Drawn(4), "precision": Precision.SINGLE}
    if cut_at:
        assert run(folder, part, network=one_number(), cut_at=cut_at, **options)[0] is None
    trained, _ = run(folder, part, network=one_number(), **options)
    assert trained is not None
    return trained


def kept(trained: "Trained") -> float:
    return float(tensors(trained.weights)["weight"].item())


def test_the_epoch_with_the_lowest_validation_loss_is_kept(tmp_path: Path) -> None:
    trained = count_down(tmp_path)
    assert [r.training for r in trained.history] == pytest.approx([1.0, 0.9, 0.8, 0.7, 0.6], abs=1e-5)
    assert [r.validation for r in trained.history] == pytest.approx([0.18, 0.08, 0.02, 0.12, 0.22], abs=1e-5)
    assert [r.examples for r in trained.history] == [4] * 5
    assert kept(trained) == pytest.approx(0.7, abs=1e-3)


def test_the_last_epoch_is_kept_where_the_recipe_says_so(tmp_path: Path) -> None:
    assert kept(count_down(tmp_path, keep="last")) == pytest.approx(0.5, abs=1e-3)


def test_sgd_gathers_momentum(tmp_path: Path) -> None:
    # Steps of 0.1, 0.1 (1 + 0.9), 0.1 (1 + 0.9 + 0.81); the run is cut off before the third.
    trained = count_down(tmp_path, {"epochs": 4, "optimiser": "sgd"}, cut_at=3)
    assert [r.training for r in trained.history] == pytest.approx([1.0, 0.9, 0.71, 0.439], abs=1e-5)


def test_a_phase_without_progress_ends_early_and_the_next_begins_where_it_was_best(tmp_path: Path) -> None:
    trained = count_down(tmp_path, {"patience": 1}, {"epochs": 2, "learning_rate": 0.01})
    assert [(r.phase, r.epoch) for r in trained.history] == [(1, 1), (1, 2), (1, 3), (1, 4), (2, 1), (2, 2)]
    assert [r.training for r in trained.history] == pytest.approx([1, 0.9, 0.8, 0.7, 0.7, 0.69], abs=1e-5)
    # Worse than the phase before, but the best of its own.
    assert kept(trained) == pytest.approx(0.69, abs=1e-3)


def test_a_cut_run_knows_what_was_best_and_for_how_long_it_has_waited(tmp_path: Path) -> None:
    # The third epoch is the best; the run is cut off in the fifth, which is the last.
    trained = count_down(tmp_path, {"epochs": 9, "patience": 2}, cut_at=5)
    assert len(trained.history) == 5
    assert kept(trained) == pytest.approx(0.7, abs=1e-3)


def test_the_moving_average_warms_up_and_is_what_is_validated(tmp_path: Path) -> None:
    trained = count_down(tmp_path, {"epochs": 3}, average=0.5, keep="last")
    # w is .9, .8, .7; the average .9, (.9 + .8) / 2, (.85 + .7) / 2.
    assert [r.validation for r in trained.history] == pytest.approx([0.18, 0.13, 0.055], abs=1e-5)
    assert kept(trained) == pytest.approx(0.775, abs=1e-3)


@pytest.mark.parametrize(
    ("phase", "rates"),
    [
        ({}, [0.1, 0.1, 0.1, 0.1]),
        ({"schedule": "steps", "milestones": [1, 3]}, [0.1, 0.01, 0.01, 0.001]),
        ({"schedule": "steps", "milestones": [2], "factor": 0.5}, [0.1, 0.1, 0.05, 0.05]),
        # Steps 0 to 3 of 4: cosines of 0, 45, 90 and 135 degrees, from 0.1 to 0.02.
        (
            {"schedule": "cosine", "final_rate": 0.02},
            [0.06 + 0.04 * math.cos(math.pi * i / 4) for i in range(4)],
        ),
        # Up from a 25th to the peak at step 1, then down to nothing at step 3 (torch's defaults).
        ({"schedule": "one_cycle", "warm_up": 0.5}, [0.004, 0.1, 0.05, 4e-7 * 0.1]),
    ],
)
def test_schedules_are_these_numbers(tmp_path: Path, phase: dict[str, Any], rates: list[float]) -> None:
    trained = count_down(tmp_path, {"epochs": 4, **phase})
    assert [r.learning_rate for r in trained.history] == pytest.approx(rates, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("steps", range(1, 12))
def test_one_cycle_of_any_length_can_be_made(steps: int) -> None:
    from ai.training.optimisation import new_optimiser, new_schedule
    from ai.training.phases import Phase

    phase = Phase(loss="bce", epochs=1, learning_rate=0.1, schedule="one_cycle", warm_up=0.1)
    optimiser = new_optimiser(phase, one_number().parameters())
    schedule = new_schedule(phase, optimiser, steps)
    for _ in range(steps):
        optimiser.step()
        schedule.step()


@pytest.mark.parametrize("clip", [None, 0.01])
def test_the_gradient_is_clipped_where_the_recipe_says_so(tmp_path: Path, clip: float | None) -> None:
    import torch

    network, norms = a_network(), []

    def on_step(_: "Step") -> None:
        gradients = [p.grad for p in network.parameters() if p.grad is not None]
        norms.append(float(torch.cat([g.flatten() for g in gradients]).norm()))

    run(tmp_path, a_part(clip=clip), network=network, on_step=on_step)
    assert len(norms) == 12
    if clip is None:
        assert min(norms) > 0.02
    else:
        assert norms == pytest.approx([clip] * 12, rel=1e-3)


def test_the_network_itself_ends_with_the_average_that_is_kept(tmp_path: Path) -> None:
    network = a_network()
    trained, _ = run(tmp_path, network=network)
    assert trained is not None
    for name, tensor in tensors(trained.weights).items():
        np.testing.assert_array_equal(tensor, network.state_dict()[name].numpy().astype(tensor.dtype))


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
