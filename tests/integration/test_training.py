"""Training, its checkpoints and the model it leaves, on drawn images and a canvas of 64 by 64."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
from safetensors.numpy import load_file
from typer.testing import CliRunner

from ai.datasets.manifest import read_manifest
from ai.errors import Diverged, ForeignCheckpoint, InvalidDataset
from ai.exam import STANDARD_VIEWS, Exam, Laterality
from ai.models import CARD, open_model
from ai.pixels import view_image
from ai.training.samples import Sample, load_samples
from node.phantom import phantom_exam
from tests.mammograms import a_data_set

if TYPE_CHECKING:
    from ai.training.loop import Step, TrainingPlan

# The name that smp wants instead gives the encoder's tensors other keys.
pytestmark = pytest.mark.filterwarnings("ignore:`timm-` encoders are deprecated:DeprecationWarning")

CANVAS = (64, 64)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return a_data_set(tmp_path_factory.mktemp("data") / "set", 6)


@pytest.fixture(scope="module")
def samples(manifest: Path) -> list[Sample]:
    return load_samples(manifest.parent, read_manifest(manifest), CANVAS)


def a_plan(**changes: Any) -> "TrainingPlan":
    from ai.training.loop import TrainingPlan

    return replace(TrainingPlan(canvas=CANVAS, epochs=2, batch=3, seed=4, pretrained=False), **changes)


class Cut(Exception):
    """The power went out."""


def run(plan: "TrainingPlan", samples: list[Sample], folder: Path, cut_at: int = 0) -> tuple[Path | None, list["Step"]]:
    """Train, and cut the run off at a step of all; 0 lets it end."""
    import torch

    from ai.training.loop import train

    steps: list[Step] = []

    def on_step(step: "Step") -> None:
        steps.append(step)
        if len(steps) == cut_at:
            raise Cut

    try:
        return train(plan, samples, folder, torch.device("cpu"), on_step), steps
    except Cut:
        return None, steps


@pytest.fixture(scope="module")
def uncut(samples: list[Sample], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("uncut")
    _, steps = run(a_plan(), samples, folder)
    assert [(s.epoch, s.step, s.steps) for s in steps] == [(1, 1, 2), (1, 2, 2), (2, 1, 2), (2, 2, 2)]
    return folder


def weights(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = load_file(folder / "model.safetensors")
    return found


def check_equal(first: Path, second: Path) -> None:
    a, b = weights(first), weights(second)
    assert a.keys() == b.keys()
    for name, tensor in a.items():
        np.testing.assert_array_equal(tensor, b[name], err_msg=name)


def test_a_run_that_was_cut_off_gives_the_weights_of_an_uncut_one(
    samples: list[Sample], uncut: Path, tmp_path: Path
) -> None:
    _, before = run(a_plan(), samples, tmp_path, cut_at=3)
    assert before[-1].epoch == 2
    assert not (tmp_path / "model.safetensors").exists()
    _, after = run(a_plan(), samples, tmp_path)
    # It goes on after the last whole epoch.
    assert [(s.epoch, s.step) for s in after] == [(2, 1), (2, 2)]
    assert after[0].loss == before[2].loss
    check_equal(tmp_path, uncut)


def test_a_finished_run_is_not_done_again(samples: list[Sample], uncut: Path, tmp_path: Path) -> None:
    shutil.copytree(uncut, tmp_path, dirs_exist_ok=True)
    (tmp_path / "model.safetensors").unlink()
    _, steps = run(a_plan(), samples, tmp_path)
    assert steps == []
    check_equal(tmp_path, uncut)


def test_the_seed_decides_what_is_learnt(samples: list[Sample], uncut: Path, tmp_path: Path) -> None:
    run(a_plan(seed=5), samples, tmp_path)
    assert any((tensor != weights(uncut)[name]).any() for name, tensor in weights(tmp_path).items())


@pytest.mark.parametrize("change", [{"epochs": 3}, {"seed": 5}, {"learning_rate": 1e-4}])
def test_the_checkpoint_of_another_plan_is_refused(samples: list[Sample], uncut: Path, change: dict[str, Any]) -> None:
    before = (uncut / "checkpoint.pt").read_bytes()
    with pytest.raises(ForeignCheckpoint, match=r"output folder.*checkpoint\.pt"):
        run(a_plan(**change), samples, uncut)
    assert (uncut / "checkpoint.pt").read_bytes() == before


def test_the_checkpoint_of_other_images_is_refused(samples: list[Sample], uncut: Path) -> None:
    # Another fold in the same folder would be validated on patients that the network has seen.
    with pytest.raises(ForeignCheckpoint):
        run(a_plan(), [samples[0], *samples[2:], samples[1]][:5] + samples[:1], uncut)


def test_fewer_images_than_a_batch_are_refused(samples: list[Sample], tmp_path: Path) -> None:
    with pytest.raises(InvalidDataset, match="2 images are fewer than one batch of 3"):
        run(a_plan(), samples[:2], tmp_path)


def test_a_loss_that_is_no_number_stops_the_run_and_spoils_no_checkpoint(samples: list[Sample], tmp_path: Path) -> None:
    with pytest.raises(Diverged, match="learning rate"):
        run(a_plan(learning_rate=float("inf"), epochs=1), samples, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_loss_falls_on_images_seen_again_and_again(samples: list[Sample], tmp_path: Path) -> None:
    _, steps = run(a_plan(epochs=4, batch=6), samples, tmp_path)
    losses = [s.loss for s in steps]
    assert losses[-1] < 0.9 * losses[0]


def test_the_weights_may_be_read_by_whoever_may_read_the_rest(uncut: Path) -> None:
    assert (uncut / "model.safetensors").stat().st_mode == (uncut / "checkpoint.pt").stat().st_mode


def test_the_weights_are_half_precision(uncut: Path) -> None:
    found = weights(uncut)
    assert {tensor.dtype for tensor in found.values() if tensor.dtype.kind == "f"} == {np.dtype(np.float16)}
    assert sum(tensor.nbytes for tensor in found.values()) < 25 * 2**20


@pytest.fixture(scope="module")
def trained(manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the model directory that the command writes."""
    folder = tmp_path_factory.mktemp("trained")
    mammonode(
        "train", manifest, "-o", folder, "--epochs", 1, "--batch", 2, "--folds", 2, "--canvas", "64x64",
        "--no-pretrained", "--device", "cpu", "--threads", 1,
    )  # fmt: skip
    return folder


def mammonode(*arguments: object) -> str:
    """Run the command line in this process, and return what it wrote on stdout."""
    from node.cli import app

    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == 0, result.output
    return str(result.stdout)


def test_the_card_says_how_the_model_was_made(trained: Path) -> None:
    model = open_model(str(trained))
    assert model.weights() == [trained / "model.safetensors"]
    assert model.card.training.plan["canvas"] == [64, 64]
    assert model.card.training.plan["split"] == {"seed": 1, "folds": 2, "fold": 0}
    assert model.card.training.patients + model.card.evaluation["validation"]["patients"] == 6
    assert model.card.training.start == "random"


def test_the_written_model_reads_a_phantom_exam(trained: Path) -> None:
    from ai.readers.registry import load_reader

    phantom = phantom_exam(2, small=True)
    exam = Exam(tuple(view_image(image, view) for view, image in zip(STANDARD_VIEWS, phantom.images, strict=True)))
    reader = load_reader(open_model(str(trained)), "cpu", threads=1, threshold=0.0)
    findings = reader.read(exam)
    assert reader.device == "cpu"
    assert findings.model.digest == open_model(str(trained)).digest
    assert [image.view for image in findings.images] == list(STANDARD_VIEWS)
    assert [image.uid for image in findings.images] == [str(image.SOPInstanceUID) for image in phantom.images]
    assert {b.laterality for b in findings.breasts} == set(Laterality)
    assert findings.score == max(b.score for b in findings.breasts)
    for image in findings.images:
        assert image.malignancy is not None
        # The image shows the worst of what it says (rule R4).
        assert image.score == max([round(100 * image.malignancy), *(m.suspicion for m in image.masses)])
        for mass in image.masses:
            assert mass.full_mask(image.shape).sum() == mass.mask.sum() > 0
        assert image.probability is not None
        assert image.probability.shape == image.shape  # no finer than a small image, and 512 at most
        assert image.probability.dtype == np.float32
        assert 0 <= image.probability.min() < image.probability.max() <= 1
        # The detection is the mean over the core of the mass, on the canvas; the map tells the same in the image.
        means = [float(image.probability[mass.full_mask(image.shape)].mean()) for mass in image.masses]
        assert means == pytest.approx([mass.detection for mass in image.masses], abs=0.1)
    again = reader.read(exam)
    assert [m.box for i in again.images for m in i.masses] == [m.box for i in findings.images for m in i.masses]


def test_two_folds_with_the_same_weights_read_like_one(trained: Path, tmp_path: Path) -> None:
    from ai.readers.registry import load_reader

    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    shutil.copy(tmp_path / "model.safetensors", tmp_path / "second.safetensors")
    card = (tmp_path / CARD).read_text(encoding="utf-8")
    entry = card[card.index("[[weights]]") :].split("\n\n")[0]
    (tmp_path / CARD).write_text(
        card.replace(entry, entry + "\n\n" + entry.replace("model.safetensors", "second.safetensors"))
    )
    model = open_model(str(tmp_path))
    assert len(model.weights()) == 2
    image = view_image(phantom_exam(2, small=True).images[0], STANDARD_VIEWS[0])
    one, two = (load_reader(open_model(str(f)), "cpu", threads=1).read(Exam((image,))) for f in (trained, tmp_path))
    assert two.images[0].malignancy == pytest.approx(one.images[0].malignancy)
    assert one.model.digest != two.model.digest


def test_predict_writes_what_a_scorer_reads(trained: Path, manifest: Path, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    shutil.copytree(manifest.parent, folder)
    cv2.imwrite(str(folder / "images" / "002.png"), np.zeros((160, 120), np.uint8))
    mammonode(
        "predict", folder / "manifest.csv", "-o", tmp_path / "out.json", "--model", trained, "--device", "cpu",
        "--threads", 1,
    )  # fmt: skip
    written = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    files = [r.file for r in read_manifest(folder / "manifest.csv")]
    assert [i["file"] for i in written["images"]] == files
    for image in written["images"]:
        if image["file"] == "images/002.png":
            assert image["refused"]
            assert image["malignancy"] is None
        else:
            assert "refused" not in image
            assert 0 <= image["malignancy"] <= 1
    for detection in written["detections"]:
        assert detection.keys() == {"file", "bbox", "score", "malignancy"}
        assert detection["file"] in files
        x, y, width, height = detection["bbox"]
        assert 0 <= x < x + width <= 120
        assert 0 <= y < y + height <= 160
        assert 0 <= detection["score"] <= 1


def test_evaluate_repeats_the_figures_of_the_card(trained: Path, manifest: Path) -> None:
    told = json.loads(
        mammonode("evaluate", manifest, "--model", trained, "--validation", "--json", "--device", "cpu", "--threads", 1)
    )
    assert told == open_model(str(trained)).card.model_dump(mode="json")["evaluation"]["validation"]
