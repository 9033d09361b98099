"""Model directories: what is not what its card says is refused, with the reason; the digest follows what decides."""

import hashlib
from pathlib import Path
from typing import Any

import pytest
import tomlkit

from ai.errors import InvalidCard, MissingModel, MissingWeights, ModelError, UnknownReader, WrongDigest
from ai.models import CARD, open_model, shipped_models

WEIGHTS = b"weights of a fold"


def a_card(**changes: Any) -> dict[str, Any]:
    """Return a valid card; a dotted key such as ``use__statement`` changes a part, None takes it away."""
    card: dict[str, Any] = {
        "name": "a-model",
        "version": "1.0",
        "reader": "mass_fpn",
        "licence": "Apache-2.0",
        "architecture": {"encoder": "timm-tf_efficientnet_lite0", "canvas": [64, 64]},
        "thresholds": {"mass": 0.5, "candidate": 0.15, "outline": 0.5},
        "use": {"statement": "Research use only.", "notes": ["Trained on drawings."]},
        "training": {
            "data": "drawings",
            "licence": "CC0",
            "attribution": "none",
            "start": "random",
            "patients": 3,
            "images": 6,
            "plan": {"epochs": 2},
        },
        "weights": [{"file": "model.safetensors", "sha256": hashlib.sha256(WEIGHTS).hexdigest()}],
        "evaluation": {"dice": [0.5, 0.4, 0.6]},
    }
    for path, value in changes.items():
        *parents, last = path.split("__")
        part = card
        for parent in parents:
            part = part[parent]
        if value is None:
            del part[last]
        else:
            part[last] = value
    return card


def a_folder(folder: Path, card: dict[str, Any] | None = None, weights: bytes | None = WEIGHTS) -> Path:
    """Write a model directory."""
    folder.mkdir(exist_ok=True)
    (folder / CARD).write_text(tomlkit.dumps(card or a_card()), encoding="utf-8")
    if weights is not None:
        (folder / "model.safetensors").write_bytes(weights)
    return folder


def test_a_valid_directory_is_opened_and_its_weights_are_compared(tmp_path: Path) -> None:
    model = open_model(str(a_folder(tmp_path)))
    assert model.weights() == [tmp_path / "model.safetensors"]
    assert (model.identity.name, model.identity.version) == ("a-model", "1.0")
    assert model.identity.digest == model.digest
    assert model.identity.notes == ("Trained on drawings.",)


def test_a_missing_directory_is_refused_by_name() -> None:
    with pytest.raises(MissingModel, match=r"card\.toml is missing.*no-such-model"):
        open_model("no-such-model")


def test_a_directory_without_a_card_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingModel, match=str(tmp_path)):
        open_model(str(tmp_path))


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"name": None}, "name: "),
        ({"colour": "red"}, "colour: "),
        ({"use__statement": None}, r"use\.statement: "),
        ({"training__images": "many"}, r"training\.images: "),
        ({"thresholds__mass": "high"}, r"thresholds\.mass: "),
        ({"weights": []}, "weights: "),
        ({"weights": [{"file": "a", "sha256": "abc"}]}, r"weights\.0\.sha256: "),
    ],
)
def test_an_invalid_card_is_refused_with_the_key(tmp_path: Path, changes: dict[str, Any], key: str) -> None:
    with pytest.raises(InvalidCard, match=rf"{CARD}: {key}"):
        open_model(str(a_folder(tmp_path, a_card(**changes))))


@pytest.mark.parametrize("content", [b"name = ", b"\xff\xfe binary"])
def test_a_card_that_is_no_toml_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / CARD).write_bytes(content)
    with pytest.raises(InvalidCard, match=str(tmp_path / CARD)):
        open_model(str(tmp_path))


def test_missing_weights_are_named(tmp_path: Path) -> None:
    with pytest.raises(MissingWeights, match=r"model\.safetensors"):
        open_model(str(a_folder(tmp_path, weights=None))).weights()


@pytest.mark.parametrize("weights", [b"", WEIGHTS[:-1], WEIGHTS + b"\0", b"W" + WEIGHTS[1:]])
def test_other_weights_are_refused_by_name(tmp_path: Path, weights: bytes) -> None:
    with pytest.raises(WrongDigest, match=r"model\.safetensors"):
        open_model(str(a_folder(tmp_path, weights=weights))).weights()


def digest(folder: Path, **changes: Any) -> str:
    return open_model(str(a_folder(folder, a_card(**changes)))).digest


@pytest.mark.parametrize(
    "changes",
    [
        {"thresholds__mass": 0.4},
        {"version": "1.1"},
        {"architecture__canvas": [64, 96]},
        {"weights": [{"file": "model.safetensors", "sha256": "0" * 64}]},
    ],
)
def test_what_changes_answers_changes_the_digest(tmp_path: Path, changes: dict[str, Any]) -> None:
    assert digest(tmp_path, **changes) != digest(tmp_path)


def test_evaluation_figures_and_the_place_leave_the_digest_alone(tmp_path: Path) -> None:
    before = digest(tmp_path / "here")
    assert digest(tmp_path / "here", evaluation={"dice": [0.9, 0.8, 1.0]}) == before
    assert digest(tmp_path / "there", evaluation=None) == before


def test_an_unknown_reader_is_refused_with_those_there_are(tmp_path: Path) -> None:
    from ai.readers.registry import load_reader

    with pytest.raises(UnknownReader, match=r"'crystal_ball'; there are .*mass_fpn"):
        load_reader(open_model(str(a_folder(tmp_path, a_card(reader="crystal_ball")))), "cpu")


@pytest.mark.parametrize("key", ["thresholds__mass", "thresholds__outline", "architecture__canvas"])
def test_a_card_without_what_its_reader_needs_is_refused_with_the_key(tmp_path: Path, key: str) -> None:
    from ai.readers.registry import load_reader

    with pytest.raises(InvalidCard, match=rf"'{key.partition('__')[2]}'"):
        load_reader(open_model(str(a_folder(tmp_path, a_card(**{key: None})))), "cpu")


def test_wrong_weights_never_reach_the_network(tmp_path: Path) -> None:
    from ai.readers.registry import load_reader

    with pytest.raises(WrongDigest):
        load_reader(open_model(str(a_folder(tmp_path, weights=b"other"))), "cpu")


def test_all_model_faults_are_one_family() -> None:
    for error in (MissingModel, InvalidCard, MissingWeights, WrongDigest, UnknownReader):
        assert issubclass(error, ModelError)


def test_shipped_models_open_by_name_and_have_the_weights_of_their_cards() -> None:
    for model in shipped_models():
        assert open_model(model.folder.name).digest == model.digest
        assert model.weights()
        assert "esearch use only" in model.card.use.statement


def test_a_gpu_that_is_not_there_is_refused_with_what_to_set() -> None:
    import torch

    from ai.errors import NoSuchDevice
    from ai.models import shipped_models
    from ai.readers.registry import load_reader

    beyond = f"cuda:{torch.cuda.device_count()}"
    with pytest.raises(NoSuchDevice, match=r"reader\.device"):
        load_reader(shipped_models()[0], beyond)
