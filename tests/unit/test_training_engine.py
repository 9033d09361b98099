"""The training loop, on networks of a few numbers."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from ai.errors import DamagedCheckpoint, ForeignCheckpoint, InvalidDataset, InvalidRecipe
from ai.training.history import read_history
from ai.training.phases import Precision
from tests.toy_training import Drawn, a_network, a_part, entropy, no_curves, run, tensors, timeless, uncut

if TYPE_CHECKING:
    from ai.training.engine import Trained

__all__ = ["no_curves", "uncut"]


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
