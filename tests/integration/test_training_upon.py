"""Training that begins with, or is done upon, a finished model, on drawn images and a canvas of 64 by 64."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from ai.errors import ForeignCheckpoint
from ai.exam import STANDARD_VIEWS, Exam
from ai.models import CARD, Model, open_model
from ai.pixels import view_image
from node.phantom import phantom_exam
from tests.training_runs import FPN, invoke, manifest, train

__all__ = ["manifest"]

# The name that smp wants instead gives the encoder's tensors other keys.
pytestmark = [
    pytest.mark.filterwarnings("ignore:`timm-` encoders are deprecated:DeprecationWarning"),
    pytest.mark.usefixtures("one_thread"),
]

BOXES = """
extends = "mass-fpn/boxes"
[split]
parts = 2
[parts.network]
start = "random"
batch = 2
[parts.network.examples]
canvas = [64, 64]
[parts.network.phases.all]
epochs = 1
[reader.thresholds]
candidate = 0.001
"""
LOOK = """
extends = "mass-look"
[split]
parts = 2
[parts.look]
start = "random"
batch = 2
[parts.look.examples]
canvas = [96, 64]
side = 32
[parts.look.phases.all]
epochs = 1
[reader.thresholds]
candidate = 0.001
"""
STUDENT = """
extends = "mass-student/small"
[split]
parts = 2
[parts.network]
start = "random"
batch = 2
[parts.network.examples]
canvas = [32, 32]
[parts.network.phases.all]
epochs = 1
[reader.thresholds]
candidate = 0.001
"""
MEMBER = """
extends = "mass-fpn/boxes"
system = "mass_member"
[split]
parts = 2
[parts.network]
start = "random"
options = { encoder = "timm-tf_efficientnet_lite2" }
batch = 2
[parts.network.examples]
canvas = [32, 32]
[parts.network.phases.all]
epochs = 1
[reader.thresholds]
candidate = 0.001
"""


SEEN = "Whether older, from which the training began, had seen patients of the held-out part is not known."


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recipes")
    for name, content in {"fpn": FPN, "boxes": BOXES, "look": LOOK, "student": STUDENT, "member": MEMBER}.items():
        (folder / f"{name}.toml").write_text(content, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def trained(manifest: Path, files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model without boxes."""
    folder = tmp_path_factory.mktemp("trained")
    train(files / "fpn.toml", manifest, folder, "--no-evaluation")
    return folder


@pytest.fixture(scope="module")
def boxes(manifest: Path, files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model that tells boxes."""
    folder = tmp_path_factory.mktemp("boxes")
    train(files / "boxes.toml", manifest, folder, "--no-evaluation", "--note", SEEN, "--note", "Of films.")
    return folder


def test_a_network_begins_with_that_of_a_trained_model(
    boxes: Path, manifest: Path, files: Path, tmp_path: Path
) -> None:
    from ai.errors import UnusableWeights
    from ai.networks.registry import build
    from ai.training.learners.transfer import trained
    from ai.training.recipe import open_recipe
    from ai.training.systems import SYSTEMS

    (part,) = open_recipe("mass-fpn/boxes").parts
    network = build(part.network, part.options)
    said = SYSTEMS["mass_fpn"].start(network, part, boxes)
    assert re.fullmatch(r"boxes [\d.]+, fold-0\.safetensors, trained on set \(.*\), from random", said)
    own = network.state_dict()
    for key, value in load_file(boxes / "fold-0.safetensors").items():
        np.testing.assert_array_equal(own[key].numpy(), value.astype(own[key].numpy().dtype), key)
    with pytest.raises(UnusableWeights, match="model of mass_fpn, wanted is one of oulu"):
        trained(network, part, boxes, reader="oulu")
    (without,) = open_recipe("mass-fpn/lite0").parts
    with pytest.raises(UnusableWeights, match="do not fit"):
        SYSTEMS["mass_fpn"].start(build(without.network, without.options), without, boxes)
    recipe = files / "onward.toml"
    recipe.write_text(BOXES.replace('start = "random"\n', ""), encoding="utf-8")
    train(recipe, manifest, tmp_path, "--start", boxes, "--no-evaluation")
    card = open_model(str(tmp_path)).card
    assert (card.training.start, card.use.notes) == (said, (SEEN,))


def test_a_second_look_is_trained_upon_a_finished_model_and_reads_with_it(
    boxes: Path, manifest: Path, files: Path, tmp_path: Path
) -> None:
    from ai.readers.registry import load_reader

    train(files / "look.toml", manifest, tmp_path, "--upon", boxes)
    model, first = open_model(str(tmp_path)), open_model(str(boxes))
    assert [w.file for w in model.card.weights] == ["fold-0.safetensors", "look-fold-0.safetensors"]
    assert model.card.weights[0] == first.card.weights[0]
    assert model.card.use.notes == (SEEN,)
    look = model.card.architecture["look"]
    assert {**model.card.architecture, "look": None} == {**first.card.architecture, "look": None}
    assert (look["canvas"], look["side"], look["weights"]) == ([96, 64], 32, ["look-fold-0.safetensors"])
    assert model.card.training.plan["split"]["held_out"] == first.card.training.plan["split"]["held_out"]
    phantom = phantom_exam(2, small=True).images[0]
    exam = Exam((view_image(phantom, STANDARD_VIEWS[0]),))
    once, twice = (load_reader(m, "cpu", threads=1, threshold=0.0).read(exam).images[0] for m in (first, model))
    assert once.masses
    assert twice.masses
    assert {m.detection for m in once.masses}.isdisjoint(m.detection for m in twice.masses)
    assert {m.box for m in once.masses} != {m.box for m in twice.masses}


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ((), "name it with --upon"),
        (("--upon", "mass-fpn-boxes"), "held out other patients"),
        (("--folds", "2"), "there is one"),
        (("--start", "mine.safetensors"), "all parts start at random"),
    ],
)
def test_a_second_look_says_what_it_cannot_be_trained_upon(
    boxes: Path, manifest: Path, files: Path, tmp_path: Path, options: tuple[str, ...], why: str
) -> None:
    upon = () if "--upon" in options or not options else ("--upon", boxes)
    result = invoke("train", files / "look.toml", manifest, "-o", tmp_path / "new", *upon, *options)
    assert result.exit_code == 1
    assert why in " ".join(str(result.exception).split())
    assert not (tmp_path / "new").exists()


def test_what_tells_no_boxes_gets_no_second_look(trained: Path, manifest: Path, files: Path, tmp_path: Path) -> None:
    result = invoke("train", files / "look.toml", manifest, "-o", tmp_path / "new", "--upon", trained)
    assert "with boxes" in str(result.exception)
    other = invoke("train", files / "fpn.toml", manifest, "-o", tmp_path / "new", "--upon", trained)
    assert "leave out --upon" in str(other.exception)


@pytest.mark.parametrize(
    ("weights", "why"), [(["other.safetensors"], "not among the weights"), (["fold-0.safetensors"], "none is left")]
)
def test_a_card_whose_second_look_has_no_weights_of_its_own_is_refused(
    boxes: Path, tmp_path: Path, weights: list[str], why: str
) -> None:
    import tomlkit

    from ai.errors import InvalidCard
    from ai.readers.registry import load_reader

    shutil.copytree(boxes, tmp_path, dirs_exist_ok=True)
    card = tomlkit.parse((tmp_path / CARD).read_text(encoding="utf-8"))
    look = {"canvas": [96, 64], "side": 32, "encoder": "timm-tf_efficientnet_lite0", "trust": 0.5, "weights": weights}
    card["architecture"]["look"] = look
    (tmp_path / CARD).write_text(tomlkit.dumps(card), encoding="utf-8")
    with pytest.raises(InvalidCard, match=why):
        load_reader(open_model(str(tmp_path)), "cpu")


def test_a_student_learns_from_a_finished_model_on_fewer_pixels(
    boxes: Path, manifest: Path, files: Path, tmp_path: Path
) -> None:
    train(files / "student.toml", manifest, tmp_path, "--upon", boxes, "--no-evaluation")
    model, teacher = open_model(str(tmp_path)), open_model(str(boxes))
    assert [w.file for w in model.card.weights] == ["fold-0.safetensors"]
    assert model.card.architecture == {**teacher.card.architecture, "canvas": [32, 32]}
    plan = model.card.training.plan
    assert plan["upon"] == f"boxes {teacher.card.version}, {teacher.digest}"
    assert plan["split"]["held_out"] == teacher.card.training.plan["split"]["held_out"]
    other = tmp_path / "other"
    shutil.copytree(boxes, other)
    card = (other / CARD).read_text(encoding="utf-8")
    (other / CARD).write_text(card.replace('name = "boxes"', 'name = "other"'), encoding="utf-8")
    again = invoke("train", files / "student.toml", manifest, "-o", tmp_path, "--upon", other, "--threads", 1)
    assert isinstance(again.exception, ForeignCheckpoint), "of another teacher"


def test_a_student_of_other_proportions_or_without_boxes_to_learn_is_refused(
    boxes: Path, trained: Path, manifest: Path, files: Path, tmp_path: Path
) -> None:
    wide = tmp_path / "wide.toml"
    wide.write_text(STUDENT.replace("[32, 32]", "[32, 64]"), encoding="utf-8")
    for recipe, upon, why in (
        (wide, boxes, "32 x 64 has other proportions than the 64 x 64 of boxes"),
        (files / "student.toml", trained, "models of mass_fpn with boxes"),
    ):
        result = invoke("train", recipe, manifest, "-o", tmp_path / "new", "--upon", upon)
        assert why in str(result.exception)


def test_a_further_network_answers_together_with_a_finished_models(
    boxes: Path, manifest: Path, files: Path, tmp_path: Path
) -> None:
    from ai.readers.registry import load_reader

    train(files / "member.toml", manifest, tmp_path, "--upon", boxes)
    model, first = open_model(str(tmp_path)), open_model(str(boxes))
    lite0, lite2 = "timm-tf_efficientnet_lite0", "timm-tf_efficientnet_lite2"
    assert [w.file for w in model.card.weights] == ["fold-0.safetensors", "network-fold-0.safetensors"]
    assert model.card.weights[0] == first.card.weights[0]
    assert dict(model.card.architecture) == {**first.card.architecture, "encoder": [lite0, lite2]}
    assert (model.card.use.notes, model.card.training.start) == ((SEEN,), "boxes: random; network: random")
    assert set(model.card.evaluation) == {"validation"}
    exam = Exam((view_image(phantom_exam(2, small=True).images[0], STANDARD_VIEWS[0]),))
    once, both = (load_reader(m, "cpu", threads=1, threshold=0.0).read(exam).images[0] for m in (first, model))
    alone = _alone(model, tmp_path / "alone", 1)
    other = load_reader(alone, "cpu", threads=1, threshold=0.0).read(exam).images[0]
    maps = [one.probability for one in (once, other, both) if one.probability is not None]
    np.testing.assert_allclose(maps[2], (maps[0] + maps[1]) / 2, atol=1e-6)
    told = [one.malignancy for one in (once, other, both) if one.malignancy is not None]
    assert told[2] == pytest.approx((told[0] + told[1]) / 2)
    spans = [one.span for one in (once, other, both) if one.span is not None]
    assert spans[2] == (min(spans[0][0], spans[1][0]), max(spans[0][1], spans[1][1]))

    train(files / "member.toml", manifest, tmp_path / "three", "--upon", tmp_path, "--no-evaluation")
    three = open_model(str(tmp_path / "three")).card
    names = ["fold-0.safetensors", "network-fold-0.safetensors", "network-fold-01.safetensors"]
    assert ([w.file for w in three.weights], three.architecture["encoder"]) == (names, [lite0, lite2, lite2])


def test_the_last_run_of_a_further_network_learns_from_all_upon_the_same_model(
    boxes: Path, manifest: Path, files: Path, tmp_path: Path
) -> None:
    train(files / "member.toml", manifest, tmp_path / "measured", "--upon", boxes, "--no-evaluation")
    final = "--no-evaluation", "--final", tmp_path / "measured"
    train(files / "member.toml", manifest, tmp_path / "all", "--upon", boxes, *final)
    held, of_all = (open_model(str(tmp_path / name)) for name in ("measured", "all"))
    assert (held.card.training.patients, of_all.card.training.patients) == (6, 12)
    assert of_all.card.thresholds == held.card.thresholds
    assert of_all.card.training.plan["final_of"] == f"member {held.card.version}, {held.digest}"
    assert of_all.card.weights[0] == held.card.weights[0]
    result = invoke("train", files / "member.toml", manifest, "-o", tmp_path / "not", "--upon", held.folder, *final)
    assert "trained otherwise (upon)" in str(result.exception)
    assert not (tmp_path / "not").exists()


def _alone(model: Model, folder: Path, place: int) -> Model:
    """Return a model of one of a model's networks."""
    import tomlkit

    shutil.copytree(model.folder, folder, ignore=shutil.ignore_patterns("runs", "alone"))
    card = tomlkit.parse((folder / CARD).read_text(encoding="utf-8")).unwrap()
    card["architecture"]["encoder"] = card["architecture"]["encoder"][place]
    card["weights"] = [card["weights"][place]]
    (folder / CARD).write_text(tomlkit.dumps(card), encoding="utf-8")
    return open_model(str(folder))


def test_a_further_network_unlike_the_finished_models_is_refused(
    boxes: Path, trained: Path, manifest: Path, files: Path, tmp_path: Path
) -> None:
    train(files / "look.toml", manifest, tmp_path / "look", "--upon", boxes, "--no-evaluation")
    for upon, why in (
        (trained, r"options\.boxes: false, as the networks of fpn"),
        (tmp_path / "look", "without a second look"),
        ("mass-fpn-boxes", "held out other patients"),
    ):
        result = invoke("train", files / "member.toml", manifest, "-o", tmp_path / "new", "--upon", upon)
        assert re.search(why, " ".join(str(result.exception).split())), result.exception
        assert not list((tmp_path / "new").glob("*.safetensors"))


def test_a_card_names_an_encoder_for_each_network_or_one_for_all(boxes: Path, tmp_path: Path) -> None:
    from ai.errors import InvalidCard
    from ai.readers.registry import load_reader

    shutil.copytree(boxes, tmp_path, dirs_exist_ok=True)
    card = (tmp_path / CARD).read_text(encoding="utf-8")
    one = 'encoder = "timm-tf_efficientnet_lite0"'
    assert one in card
    (tmp_path / CARD).write_text(card.replace(one, f"{one[:10]}[{one[10:]}]"), encoding="utf-8")
    assert load_reader(open_model(str(tmp_path)), "cpu")
    (tmp_path / CARD).write_text(card.replace(one, f"{one[:10]}[{one[10:]}, {one[10:]}]"), encoding="utf-8")
    with pytest.raises(InvalidCard, match=r"architecture\.encoder: 2 names for 1 weights files"):
        load_reader(open_model(str(tmp_path)), "cpu")
