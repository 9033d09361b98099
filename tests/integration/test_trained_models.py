"""The models that training runs leave: their cards, their figures, and what they read."""

import hashlib
import json
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from ai.datasets.manifest import read_manifest
from ai.exam import STANDARD_VIEWS, Exam, Laterality
from ai.models import CARD, open_model
from ai.pixels import view_image
from node.phantom import phantom_exam
from tests.training_runs import Cut, invoke, mammonode, manifest, recipe, train

__all__ = ["manifest", "recipe"]

# The name that smp wants instead gives the encoder's tensors other keys.
pytestmark = [
    pytest.mark.filterwarnings("ignore:`timm-` encoders are deprecated:DeprecationWarning"),
    pytest.mark.usefixtures("one_thread"),
]


@pytest.fixture(scope="module")
def trained(manifest: Path, recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the model directory that the command writes."""
    folder = tmp_path_factory.mktemp("trained")
    train(recipe, manifest, folder)
    return folder


def test_the_card_says_how_the_model_was_made(trained: Path) -> None:
    model = open_model(str(trained))
    assert model.weights() == [trained / "fold-0.safetensors"]
    card = model.card
    assert (card.name, card.reader, card.training.start, card.training.data) == ("fpn", "mass_fpn", "random", "set")
    assert dict(card.architecture) == {"encoder": "timm-tf_efficientnet_lite0", "canvas": [64, 64]}
    plan = card.training.plan
    assert plan["recipe"] == "fpn.toml"
    assert plan["parts"][0]["phases"][0]["loss"] == "mass_loss"
    held_out = hashlib.sha256("\n".join(f"P{number}" for number in (10, 2, 3, 4, 5, 6)).encode()).hexdigest()
    assert plan["split"] == {
        "seed": 1, "folds": 2, "fold": 0, "inner_folds": 1, "trained_folds": [0], "held_out": held_out,
    }  # fmt: skip
    assert "held-out part itself" in plan["threshold"]
    assert card.training.patients + card.evaluation["validation"]["patients"] == 12
    assert (trained / "runs" / "fold-0" / "network" / "curves.png").is_file()


def test_the_card_of_a_finished_run_stays_until_another_has_all_its_figures(
    trained: Path, manifest: Path, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(*_: object, **__: object) -> None:
        raise Cut

    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    finished = (tmp_path / CARD).read_bytes()
    monkeypatch.setattr("ai.training.run.predict", cut)
    result = invoke("train", recipe, manifest, "-o", tmp_path, "--device", "cpu", "--threads", 1)
    assert isinstance(result.exception, Cut)
    assert (tmp_path / CARD).read_bytes() == finished


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
        # Exam, breast, image, mass: none is more suspicious than what it lies in (rule R4).
        assert image.score == round(100 * image.malignancy)
        assert all(mass.suspicion <= image.score for mass in image.masses)
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
    shutil.copy(tmp_path / "fold-0.safetensors", tmp_path / "second.safetensors")
    card = (tmp_path / CARD).read_text(encoding="utf-8")
    entry = card[card.index("[[weights]]") :].split("\n\n")[0]
    (tmp_path / CARD).write_text(
        card.replace(entry, entry + "\n\n" + entry.replace("fold-0.safetensors", "second.safetensors"))
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
    card = open_model(str(trained)).card.model_dump(mode="json")["evaluation"]["validation"]
    assert {name: told[name] for name in card} == card


def test_a_calibration_takes_labelled_images_that_can_be_opened_alone(
    trained: Path, manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, words = tmp_path / "set", []

    def fitted(levels: object, population: str) -> None:
        words.append(population)
        raise Cut

    monkeypatch.setattr("ai.evaluation.calibration.calibrate", fitted)
    shutil.copytree(manifest.parent, folder)
    table = (folder / "manifest.csv").read_text(encoding="utf-8")
    (folder / "manifest.csv").write_text(re.sub(r'(003\.png.*MALIGNANT),".*"', r"\1,", table), encoding="utf-8")
    command = ("calibrate", trained, folder, "--device", "cpu", "--threads", 1)
    assert "images/003.png" in str(invoke(*command).exception)
    assert isinstance(invoke(*command, "--skip-unlabelled").exception, Cut)
    assert words == ["5 exams of set that the model was not trained on"]
    (folder / "images" / "002.png").unlink()
    assert "images/002.png" in str(invoke(*command, "--skip-unlabelled").exception)
