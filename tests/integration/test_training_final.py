"""The last run of a recipe, which learns from all patients, on drawn images and a canvas of 64 by 64."""

import shutil
import tomllib
from pathlib import Path
from typing import Any

import pytest
import tomlkit

from ai.datasets.manifest import read_manifest
from ai.errors import InvalidDataset, InvalidRecipe
from ai.models import CARD, open_model
from tests.training_runs import FPN, invoke, manifest, recipe, train

__all__ = ["manifest", "recipe"]

pytestmark = [
    pytest.mark.filterwarnings("ignore:`timm-` encoders are deprecated:DeprecationWarning"),
    pytest.mark.usefixtures("one_thread"),
]

CALIBRATION = {
    "population": "six exams",
    "prevalence": 0.5,
    **{key: {"slope": 1.5, "offset": -0.5} for key in ("finding", "image", "breast", "exam")},
}


@pytest.fixture(scope="module")
def sibling(manifest: Path, recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model that held six patients out, measured and calibrated on them."""
    folder = tmp_path_factory.mktemp("sibling")
    train(recipe, manifest, folder)
    content = tomllib.loads((folder / CARD).read_text(encoding="utf-8"))
    (folder / CARD).write_text(
        tomlkit.dumps({**content, "calibration": CALIBRATION, "selection": ["On whom."]}), encoding="utf-8"
    )
    return folder


@pytest.fixture(scope="module")
def final(sibling: Path, manifest: Path, recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("final")
    train(recipe, manifest, folder, "--final", sibling)
    return folder


def test_it_learns_from_all_and_says_whose_its_figures_are(sibling: Path, final: Path) -> None:
    held, card = open_model(str(sibling)), open_model(str(final)).card
    assert (held.card.training.patients, card.training.patients) == (6, 12)
    assert card.thresholds == held.card.thresholds
    sibling_named = f"fpn {held.card.version} ({held.digest[:12]})"
    words = f"six exams (said of {sibling_named}, whose calibration this is)"
    assert held.card.calibration
    assert card.calibration == held.card.calibration.model_copy(update={"population": words})
    assert card.selection == (f"Of {sibling_named}: On whom.",)
    assert card.evaluation == {f"{images} of fpn": each for images, each in held.card.evaluation.items()}
    assert card.evaluation
    assert card.training.plan["final_of"] == f"fpn {held.card.version}, {held.digest}"
    assert card.training.plan["threshold"].startswith(
        f"that of fpn {held.card.version}, {held.digest}: the lowest with"
    )
    [said] = card.use.notes
    assert said.startswith("The model has learnt from all patients of its set.")
    assert said.endswith(f"those of {sibling_named}, trained alike without 6 of them.")


def test_nobody_is_left_to_validate_on_and_all_are_known(final: Path, manifest: Path, recipe: Path) -> None:
    validated = invoke("evaluate", manifest, "--model", final, "--validation", "--device", "cpu")
    assert isinstance(validated.exception, InvalidDataset)
    assert "nobody is left to validate on" in str(validated.exception)
    scored = invoke("evaluate", manifest, "--model", final, "--device", "cpu", "--threads", 1)
    assert scored.exit_code == 0, scored.output
    words = " ".join(scored.stdout.split())
    assert "12 of the 12 patients are of the part that the model was trained on" in words
    assert "--validation" not in words
    for option in ("--start", "--final"):
        refused = invoke("train", recipe, manifest, "-o", final.parent / "next", option, final, "--device", "cpu")
        assert isinstance(refused.exception, InvalidRecipe)


def test_another_set_is_not_its_own(final: Path, manifest: Path) -> None:
    from ai.datasets.folds import held_out_by, learned_from

    model, records = open_model(str(final)), read_manifest(manifest)
    assert learned_from(model, records) == {record.patient_id for record in records}
    fewer = [record for record in records if record.patient_id != records[0].patient_id]
    assert learned_from(model, fewer) == set()
    with pytest.raises(InvalidDataset, match="not the images that fpn was trained on"):
        held_out_by(model, fewer)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("epochs = 1", "epochs = 2"), r"trained otherwise \(parts\)"),
        (("parts = 2", "parts = 2\nfolds = 2"), "a last run has one"),
        (("parts = 2", "parts = 2\nseed = 5"), "held out other patients"),
    ],
)
def test_a_sibling_that_was_trained_otherwise_is_refused(
    sibling: Path, manifest: Path, tmp_path: Path, change: tuple[str, str], words: str
) -> None:
    (tmp_path / "other.toml").write_text(FPN.replace(*change), encoding="utf-8")
    refused = invoke("train", tmp_path / "other.toml", manifest, "-o", tmp_path / "out", "--final", sibling)
    assert isinstance(refused.exception, InvalidRecipe)
    with pytest.raises(InvalidRecipe, match=words):
        raise refused.exception
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("where", "key", "words"),
    [
        (("training", "plan", "split"), "inner_folds", r"\(split.folds\)"),
        (("training",), "images", r"\(images to learn from\)"),
    ],
)
def test_so_is_one_of_other_folds_or_that_learnt_from_other_images(
    sibling: Path, manifest: Path, recipe: Path, tmp_path: Path, where: tuple[str, ...], key: str, words: str
) -> None:
    other = shutil.copytree(sibling, tmp_path / "sibling", ignore=shutil.ignore_patterns("runs"))
    card = tomlkit.parse((other / CARD).read_text(encoding="utf-8"))
    table: Any = card
    for each in where:
        table = table[each]
    table[key] += 1
    (other / CARD).write_text(tomlkit.dumps(card), encoding="utf-8")
    refused = invoke("train", recipe, manifest, "-o", tmp_path / "out", "--final", other, "--device", "cpu")
    assert isinstance(refused.exception, InvalidRecipe)
    with pytest.raises(InvalidRecipe, match=words):
        raise refused.exception


def test_so_is_one_of_another_budget(sibling: Path, manifest: Path, recipe: Path, tmp_path: Path) -> None:
    other = shutil.copytree(sibling, tmp_path / "sibling")
    refused = invoke("train", recipe, manifest, "-o", tmp_path / "out", "--final", other, "--budget", 6)
    assert "trained otherwise (budget)" in str(refused.exception)
