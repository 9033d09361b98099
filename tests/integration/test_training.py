"""Training runs, and what they refuse, on drawn images and a canvas of 64 by 64."""

import json
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
from safetensors.numpy import load_file

from ai.datasets.folds import read_folds
from ai.datasets.manifest import read_manifest
from ai.datasets.records import split_by_patient
from ai.datasets.selection import digest_of, held_out_patients
from ai.errors import DuplicateImages, InvalidDataset, MissingExtra, Unwritable
from ai.exam import STANDARD_VIEWS, Exam
from ai.models import CARD, open_model
from ai.pixels import view_image
from node.phantom import phantom_exam
from tests.training_runs import FPN, Cut, invoke, mammonode, manifest, train

__all__ = ["manifest"]

if TYPE_CHECKING:
    from ai.training.engine import Step
    from ai.training.phases import Part

# The name that smp wants instead gives the encoder's tensors other keys.
pytestmark = [
    pytest.mark.filterwarnings("ignore:`timm-` encoders are deprecated:DeprecationWarning"),
    pytest.mark.usefixtures("one_thread"),
]

OULU = """
extends = "thesis-table-5/unet-ft05"
complete_exams = false
[split]
parts = 3
folds = 2
[parts.network]
options = { widths = [2, 4] }
batch = 3
[parts.network.examples]
canvas = [64, 64]
[parts.network.phases.all]
epochs = 2
milestones = [1]
[rows.plain]
"""

FREE = """
title = "Free"
system = "marita"
[split]
parts = 3
folds = 2
[parts.network]
network = "plain_unet"
options = { widths = [2, 4] }
batch = 3
[parts.network.examples]
tile = 64
reduction = 2
[parts.network.phases.all]
loss = "marita_bce"
epochs = 3
learning_rate = 1e-3
[reader.thresholds]
candidate = 0.1
dark = 0.01
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recipes")
    for name, content in {"fpn": FPN, "oulu": OULU}.items():
        (folder / f"{name}.toml").write_text(content, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def oulu(manifest: Path, files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model of two folds."""
    folder = tmp_path_factory.mktemp("oulu")
    train(f"{files / 'oulu.toml'}#plain", manifest.parent, folder)
    return folder


def test_every_fold_learns_from_the_patients_of_the_others(oulu: Path, manifest: Path) -> None:
    card = open_model(str(oulu)).card
    assert [w.file for w in card.weights] == ["fold-0.safetensors", "fold-1.safetensors"]
    places = split_by_patient(read_manifest(manifest), 3, 1)
    assert card.training.patients == sum(place != 0 for place in places.values()) == 6
    for fold in range(2):
        rows = (oulu / "runs" / f"fold-{fold}" / "network" / "history.csv").read_text().splitlines()
        assert [row.split(",")[-1] for row in rows[1:]] == ["3", "3"]
    assert 0 < card.architecture["mean"] < 1
    assert card.training.plan["threshold"] == "the recipe's"


class Silent:
    """Watches, and cuts the run off at a fold's epoch."""

    def __init__(self, fold: int = -1, epoch: int = -1) -> None:
        self.at = (fold, epoch)
        self.seen: list[tuple[int, int]] = []

    def images(self, what: str, done: int, total: int) -> None:  # noqa: ARG002 (the protocol's)
        assert done <= total

    def step(self, fold: int, part: "Part", step: "Step") -> None:  # noqa: ARG002
        self.seen.append((fold, step.epoch))
        if (fold, step.epoch) == self.at:
            raise Cut

    def says(self, what: str) -> None:
        raise AssertionError(what)


def test_a_run_that_was_cut_off_goes_on_to_the_weights_of_an_uncut_one(
    oulu: Path, manifest: Path, files: Path, tmp_path: Path
) -> None:
    from ai.datasets.registry import open_dataset
    from ai.datasets.sources import Source
    from ai.training.card import Provenance
    from ai.training.recipe import open_recipe
    from ai.training.run import Settings
    from ai.training.run import train as run

    def go(watcher: Silent) -> Path:
        recipe = open_recipe(f"{files / 'oulu.toml'}#plain")
        provenance = Provenance("again", Source("drawn"))
        return run(recipe, open_dataset(manifest), tmp_path, provenance, Settings(evaluate=False), watcher)

    with pytest.raises(Cut):
        go(Silent(fold=1, epoch=2))
    assert not (tmp_path / CARD).exists()
    after = Silent()
    go(after)
    assert set(after.seen) == {(1, 2)}  # the first fold and the second's first epoch are not done again
    for name in ("fold-0.safetensors", "fold-1.safetensors"):
        one, two = load_file(oulu / name), load_file(tmp_path / name)
        assert one.keys() == two.keys()
        for key, tensor in one.items():
            np.testing.assert_array_equal(tensor, two[key], err_msg=key)


def test_a_second_run_in_the_same_folder_is_refused_while_the_first_goes_on(
    manifest: Path, files: Path, tmp_path: Path
) -> None:
    from ai.training.durable import alone

    command = ("train", f"{files / 'oulu.toml'}#plain", manifest, "-o", tmp_path, "--no-evaluation", "--threads", 1)
    with alone(tmp_path):
        result = invoke(*command)
    assert result.exit_code == 1
    assert "Another run trains into this folder" in str(result.exception)
    assert invoke(*command).exit_code == 0


def test_a_run_takes_the_rows_that_where_names_alone(manifest: Path, files: Path, tmp_path: Path) -> None:
    recipe = f"{files / 'oulu.toml'}#plain"
    result = invoke("train", recipe, manifest, "-o", tmp_path / "out", "--where", "view=SPOT")
    assert result.exit_code == 1
    assert "no image" in str(result.exception)
    train(recipe, manifest, tmp_path / "out", "--where", "malignant=0", "--folds", 1, "--no-evaluation")
    every = sum(1 for line in manifest.read_text(encoding="utf-8").splitlines()[1:] if line)
    model = open_model(str(tmp_path / "out"))
    assert 0 < model.card.training.images < every
    scored = ("predict", manifest, "-o", tmp_path / "out.json", "--model", model.folder, "--validation", "--threads", 1)
    assert "give the set that it was trained on" in str(invoke(*scored).exception)
    mammonode(*scored, "--where", "malignant=0")
    read = [image["file"] for image in json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))["images"]]
    held_out = {record.patient_id for record in read_manifest(manifest) if record.file in read}
    assert digest_of(held_out) == model.card.training.plan["split"]["held_out"]


def test_folds_may_be_trained_one_by_one(oulu: Path, manifest: Path, files: Path, tmp_path: Path) -> None:
    recipe = f"{files / 'oulu.toml'}#plain"
    train(recipe, manifest, tmp_path, "--fold", 1, "--no-evaluation")
    assert [w.file for w in open_model(str(tmp_path)).card.weights] == ["fold-1.safetensors"]
    train(recipe, manifest, tmp_path, "--fold", 0, "--no-evaluation")
    first, second = open_model(str(tmp_path)).card, open_model(str(oulu)).card
    assert first.weights == second.weights
    assert first.evaluation == {}


def test_a_free_threshold_is_chosen_on_the_inner_folds(manifest: Path, tmp_path: Path) -> None:
    (tmp_path / "free.toml").write_text(FREE, encoding="utf-8")
    train(tmp_path / "free.toml", manifest, tmp_path / "out", "--budget", 20)
    card = open_model(str(tmp_path / "out")).card
    assert 0 <= card.thresholds["mass"] <= 1
    assert card.training.plan["threshold"].endswith("on the validation images of the folds, each read by its own")
    assert card.training.plan["budget"] == 20
    assert "20 examples" in card.use.notes[0]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        CARD, "fold-0.safetensors", "fold-1.safetensors", "runs"
    ]  # fmt: skip


def test_another_recipe_in_the_same_folder_is_refused(oulu: Path, manifest: Path, files: Path) -> None:
    result = invoke("train", f"{files / 'oulu.toml'}#plain", manifest, "-o", oulu, "--seed", 7, "--threads", 1)
    assert result.exit_code == 1
    assert "output folder" in str(result.exception)


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ("twice", [], r"001\.png.*000\.png|000\.png.*001\.png|share a picture"),
        ("unlabelled", [], "000.png.*--skip-unlabelled"),
        ("mask of who is held out", [], r"masks/.* has 50 x 50 pixels, its image images/.* 120 x 160"),
        ("no mass", [], "no image to train on shows a mass"),
        ("", ["--fold", 2], "no fold 2 of 2"),
        ("", ["--folds", 9], "6 patients are too few for 9 folds"),
        ("", ["--start", "weights.pth"], "all parts start at random"),
        ("", ["--budget", 1], "no step"),
        ("", ["--kind", "x"], "there is no kind 'x'"),
        ("", ["--subset", "test"], "no image is in the subset 'test'"),
    ],
)
def test_what_cannot_be_trained_is_refused(
    manifest: Path, files: Path, tmp_path: Path, change: str, options: list[object], message: str
) -> None:
    folder = tmp_path / "set"
    shutil.copytree(manifest.parent, folder)
    if change == "twice":
        for name in ("001", "002", "003", "004", "005"):
            shutil.copy(folder / "images" / "000.png", folder / "images" / f"{name}.png")
    if change == "unlabelled":
        lines = (folder / "manifest.csv").read_text().splitlines()
        lines[1] = lines[1].split('"')[0]
        (folder / "manifest.csv").write_text("\n".join(lines) + "\n")
    if change == "mask of who is held out":
        held_out = next(r for r in read_manifest(folder / "manifest.csv") if r.boxes and r.patient_id in kept(folder))
        (folder / "masks").mkdir()
        cv2.imwrite(str(folder / "masks" / Path(held_out.file).name), np.zeros((50, 50), np.uint8))
    if change == "no mass":
        table = (folder / "manifest.csv").read_text()
        (folder / "manifest.csv").write_text(re.sub(r"[A-Z]*,\"?\[\[.*\]\]\"?", ",[]", table))
    recipe = f"{files / 'oulu.toml'}#plain"
    result = invoke("train", recipe, folder, "-o", tmp_path / "out", "--threads", 1, *options)
    assert result.exit_code == 1, result.output
    assert result.exception is not None
    result.exception.args = (str(result.exception),)
    with pytest.raises(Exception, match=message):
        raise result.exception
    assert not list((tmp_path / "out").glob("*.safetensors"))


def kept(folder: Path) -> set[str]:
    """Return the patients that the recipe oulu.toml holds out."""
    return held_out_patients(read_manifest(folder / "manifest.csv"), parts=3, part=0, seed=1)


def test_what_a_later_fold_lacks_is_told_before_the_first_trains(
    manifest: Path, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ai.training.learners.oulu import OuluLearner

    real, asked = OuluLearner.examples, []

    def examples(self: OuluLearner, part: "Part", records: Any) -> Any:
        asked.append(part)
        if len(asked) == 4:  # what the second fold is validated on
            raise InvalidDataset("one class")
        return real(self, part, records)

    monkeypatch.setattr(OuluLearner, "examples", examples)
    recipe = f"{files / 'oulu.toml'}#plain"
    result = invoke("train", recipe, manifest, "-o", tmp_path / "out", "--device", "cpu", "--threads", 1)
    assert "one class" in str(result.exception)
    assert not list((tmp_path / "out").rglob("checkpoint.pt"))


def test_a_place_that_cannot_be_written_to_is_told_before_any_work(
    oulu: Path, manifest: Path, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_work(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr("ai.training.run.find_duplicates", no_work)
    monkeypatch.setattr("ai.readers.registry.load_reader", no_work)
    file = tmp_path / "file"
    file.touch()
    model = ("--model", oulu, "--threads", 1)
    for arguments in (
        ("train", f"{files / 'oulu.toml'}#plain", manifest, "-o", file, "--threads", 1),
        ("predict", manifest, "-o", tmp_path / "nowhere" / "out.json", *model),
        ("evaluate", manifest, "--pictures", file, *model),
        ("evaluate", manifest, "--froc", tmp_path / "nowhere" / "froc.png", *model),
    ):
        result = invoke(*arguments)
        assert isinstance(result.exception, Unwritable), result.output


def test_a_package_that_training_needs_is_named(
    manifest: Path, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node.cli.options.find_spec", lambda package: None if package == "tomlkit" else package)
    result = invoke("train", f"{files / 'oulu.toml'}#plain", manifest, "-o", tmp_path / "out")
    assert isinstance(result.exception, MissingExtra)
    assert "pip install 'mammonode[train]'. Missing: tomlkit" in str(result.exception)


def test_an_evaluation_says_that_the_model_was_trained_on_these_patients(
    oulu: Path, manifest: Path, tmp_path: Path
) -> None:
    patients, held_out = {r.patient_id for r in read_manifest(manifest)}, kept(manifest.parent)
    scored = ("evaluate", manifest, "--model", oulu, "--repeats", 2, "--threads", 1)
    told = f"{len(patients - held_out)} of the {len(patients)} patients are of the part that the model was trained on"
    said = mammonode(*scored, "--card", tmp_path)
    assert told in said.replace("\n", " ")
    assert told in (tmp_path / "card.md").read_text(encoding="utf-8")
    assert "the model was trained on" not in mammonode(*scored, "--validation").replace("\n", " ")


def test_who_was_held_out_of_another_set_is_not_guessed(oulu: Path, manifest: Path, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    shutil.copytree(manifest.parent, folder)
    lines = (folder / "manifest.csv").read_text().splitlines(keepends=True)
    gone = min(kept(folder))
    (folder / "manifest.csv").write_text("".join(line for line in lines if f",{gone}," not in line))
    for command in (("evaluate",), ("predict", "-o", tmp_path / "out.json")):
        result = invoke(*command, folder, "--model", oulu, "--validation", "--threads", 1)
        assert isinstance(result.exception, InvalidDataset)
        assert "give the set that it was trained on" in str(result.exception)


def test_a_run_is_dealt_by_a_file_and_its_model_evaluated_by_it(manifest: Path, files: Path, tmp_path: Path) -> None:
    file, output = tmp_path / "folds.csv", tmp_path / "model"
    mammonode("folds", manifest, "-o", file, "--parts", 3, "--seed", 5)
    train(f"{files / 'oulu.toml'}#plain", manifest, output, "--folds-file", file, "--no-evaluation", "--budget", 6)
    split = open_model(str(output)).card.training.plan["split"]
    held_out = read_folds(file).patients(0)
    assert (split["file"], split["folds"], split["inner_folds"]) == ("folds.csv", 3, 2)
    assert split["held_out"] == digest_of(held_out)
    scored = ("evaluate", manifest, "--model", output, "--validation", "--threads", 1, "--repeats", 2, "--json")
    assert "give that with --folds-file" in str(invoke(*scored).exception)
    assert json.loads(mammonode(*scored, "--folds-file", file))["patients"] == len(held_out) == 4


def test_a_picture_that_the_model_was_trained_on_stops_its_evaluation(
    oulu: Path, manifest: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "set"
    shutil.copytree(manifest.parent, folder)
    records = read_manifest(folder / "manifest.csv")
    inside, outside = (next(r for r in records if (r.patient_id in kept(folder)) is held) for held in (True, False))
    pixels = cv2.imread(str(folder / outside.file), cv2.IMREAD_GRAYSCALE)
    assert pixels is not None
    copy = np.round(255 * (pixels[:, ::-1] / 255) ** 1.2).astype(np.uint8)
    cv2.imwrite(str(folder / inside.file), cv2.resize(copy, None, fx=2, fy=3, interpolation=cv2.INTER_CUBIC))
    result = invoke("evaluate", folder, "--model", oulu, "--validation", "--threads", 1)
    assert isinstance(result.exception, DuplicateImages)
    assert all(record.file in str(result.exception) for record in (inside, outside))


def test_recipes_are_listed_and_shown() -> None:
    told = json.loads(mammonode("recipes", "--json"))
    assert {"thesis-table-5/r22fpn-ft07", "marita-table-1/dice", "mass-fpn/lite0"} <= {r["name"] for r in told}
    assert json.loads(mammonode("recipes", "mass-fpn/lite0"))["parts"][0]["start"] == "lite0"
    assert "spie-table-2/r34unet" in mammonode("recipes")


def test_a_trained_model_of_oulu_reads(oulu: Path) -> None:
    from ai.readers.registry import load_reader

    image = view_image(phantom_exam(2, small=True).images[0], STANDARD_VIEWS[0])
    findings = load_reader(open_model(str(oulu)), "cpu", threads=1).read(Exam((image,)))
    assert findings.images[0].malignancy is None
    assert findings.images[0].probability is not None
