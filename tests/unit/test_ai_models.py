"""Model directories: what is not what its card says is refused, with the reason; the digest follows what decides."""

import hashlib
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tomlkit

from ai.errors import (
    InvalidCard,
    MissingModel,
    MissingWeights,
    ModelError,
    ModelExists,
    NotInstalled,
    UnknownReader,
    UnusableWeights,
    WrongDigest,
)
from ai.installation import install, verify
from ai.models import CARD, READERS, Model, model_folders, open_model, ready_model
from config.settings import DEFAULT_MODEL

WEIGHTS = b"weights of a fold"
TINY = {"widths": [1]}


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
        ({"weights": [{"file": "../other/model.safetensors", "sha256": "0" * 64}]}, r"weights\.0\.file: "),
        ({"weights": [{"file": "/etc/passwd", "sha256": "0" * 64}]}, r"weights\.0\.file: "),
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

    with pytest.raises(InvalidCard, match=key.replace("__", r"\.")):
        load_reader(open_model(str(a_folder(tmp_path, a_card(**{key: None})))), "cpu")


def test_wrong_weights_never_reach_the_network(tmp_path: Path) -> None:
    from ai.readers.registry import load_reader

    with pytest.raises(WrongDigest):
        load_reader(open_model(str(a_folder(tmp_path, weights=b"other"))), "cpu")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"architecture__depth": 3}, r"architecture\.depth: there is no such key"),
        ({"thresholds__sure": 0.5}, r"thresholds\.sure: there is no such key"),
        ({"thresholds__mass": 1.5}, r"thresholds\.mass: "),
        ({"architecture__canvas": [64, 65]}, r"architecture\.canvas: mass_fpn takes multiples of 32, not 64 x 65"),
        ({"architecture__encoder": "resnet1001"}, r"options of mass_fpn: .*resnet1001"),
    ],
)
def test_a_card_that_the_shipped_reader_cannot_use_is_refused_with_the_key(
    tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    from ai.readers.registry import load_reader

    with pytest.raises(InvalidCard, match=reason):
        load_reader(open_model(str(a_folder(tmp_path, a_card(**changes)))), "cpu")


@pytest.mark.filterwarnings("ignore:`timm-` encoders are deprecated:DeprecationWarning")
def test_tensors_that_do_not_fit_the_network_are_refused_with_the_file(tmp_path: Path) -> None:
    from ai.readers.registry import load_reader
    from tests.models import a_model, untrained

    card = a_card()
    model = a_model(
        tmp_path, "mass_fpn", card["architecture"], card["thresholds"], {"fold-0": untrained("tile_unet", TINY)}
    )
    with pytest.raises(UnusableWeights, match=r"fold-0\.safetensors: .* tensors do not fit"):
        load_reader(model, "cpu")


@pytest.mark.filterwarnings("ignore:`timm-` encoders are deprecated:DeprecationWarning")
def test_a_file_that_is_no_safetensors_is_refused_by_name(tmp_path: Path) -> None:
    from ai.readers.registry import load_reader

    with pytest.raises(UnusableWeights, match=r"model\.safetensors"):
        load_reader(open_model(str(a_folder(tmp_path))), "cpu")


def test_all_model_faults_are_one_family() -> None:
    for error in (MissingModel, InvalidCard, MissingWeights, WrongDigest, UnknownReader, NotInstalled, ModelExists):
        assert issubclass(error, ModelError)


def test_shipped_models_open_by_name_and_have_the_weights_of_their_cards() -> None:
    for folder in model_folders():
        model = open_model(folder.name)
        assert model.folder == folder
        assert model.weights()
        assert "esearch use only" in model.card.use.statement


def test_the_model_that_ships_is_no_larger_than_25_mb() -> None:
    assert sum(path.stat().st_size for path in open_model(DEFAULT_MODEL).weights()) <= 25_000_000


def test_a_gpu_that_is_not_there_is_refused_with_what_to_set() -> None:
    import torch

    from ai.errors import NoSuchDevice
    from ai.readers.registry import load_reader

    beyond = f"cuda:{torch.cuda.device_count()}"
    with pytest.raises(NoSuchDevice, match=r"reader\.device"):
        load_reader(open_model("mass-fpn-boxes"), beyond)


# --- names and the models folder


def named(folder: Path, name: str, **changes: Any) -> Path:
    """Write a model directory that is called like its model."""
    folder.mkdir(exist_ok=True)
    return a_folder(folder / name, a_card(name=name, **changes))


def test_a_name_is_a_shipped_model_then_an_installed_one_then_a_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = tmp_path / "models"
    named(installed, "mine", version="installed")
    named(installed, "mass-fpn-boxes")
    monkeypatch.chdir(tmp_path)
    named(Path(), "mine", version="here")
    assert open_model("mine", installed).card.version == "installed"
    assert open_model("./mine", installed).card.version == "here"
    assert open_model("mine").card.version == "here"
    assert open_model("mass-fpn-boxes", installed).digest == open_model("mass-fpn-boxes").digest


def test_a_name_that_is_not_there_is_refused_with_the_names_there_are(tmp_path: Path) -> None:
    named(tmp_path, "mine")
    named(tmp_path, ".installing-0")
    assert [folder.name for folder in model_folders(tmp_path)] == ["mass-fpn-boxes", "mass-fpn-pair", "mine"]
    with pytest.raises(MissingModel, match=r"yours; the names are mass-fpn-boxes, mass-fpn-pair, mine$"):
        open_model("yours", tmp_path)


def test_what_checks_cards_without_torch_knows_the_same_readers() -> None:
    from ai.readers import registry

    assert set(READERS) == set(registry.READERS)


@pytest.mark.parametrize(
    ("changes", "weights", "error"),
    [
        ({"reader": "crystal_ball"}, WEIGHTS, UnknownReader),
        ({}, b"other", WrongDigest),
        ({}, None, MissingWeights),
        ({"colour": "red"}, WEIGHTS, InvalidCard),
    ],
)
def test_a_model_that_cannot_read_is_told_without_its_networks(
    tmp_path: Path, changes: dict[str, Any], weights: bytes | None, error: type[ModelError]
) -> None:
    with pytest.raises(error):
        ready_model(str(a_folder(tmp_path, a_card(**changes), weights)))


# --- verify and install


def a_real_model(folder: Path, name: str = "mine", folds: int = 1) -> Model:
    """Write a model that reads: tiny, untrained."""
    from tests.models import a_model, untrained

    architecture = {"network": "tile_unet", "options": TINY, "tile": 128, "reduction": 2}
    networks = {f"fold-{n}": untrained("tile_unet", TINY, seed=n) for n in range(folds)}
    a_model(folder, "marita", architecture, {"mass": 0.5, "candidate": 0.5, "dark": 0.05}, networks)
    change(folder, "name", name)
    return open_model(str(folder))


def change(folder: Path, key: str, value: Any) -> None:
    """Change a key of a card, or a table's key by a dotted path."""
    card = tomlkit.parse((folder / CARD).read_text(encoding="utf-8"))
    part: Any = card
    *parents, last = key.split(".")
    for parent in parents:
        part = part[parent]
    part[last] = value
    (folder / CARD).write_text(tomlkit.dumps(card), encoding="utf-8")


def zipped(folder: Path, top: str = "", name: str = "model.zip") -> Path:
    """Return a ZIP of a folder's files."""
    path = folder.parent / name
    with zipfile.ZipFile(path, "w") as package:
        for file in sorted(folder.iterdir()):
            package.write(file, f"{top}{file.name}")
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_verify_finds_nothing_wrong_with_a_whole_model(tmp_path: Path) -> None:
    assert verify(a_real_model(tmp_path / "source", folds=2)) == []


def test_verify_names_every_file_that_is_missing_or_another_one(tmp_path: Path) -> None:
    model = a_real_model(tmp_path / "source", folds=3)
    (model.folder / "fold-0.safetensors").unlink()
    (model.folder / "fold-2.safetensors").write_bytes(b"other")
    missing, wrong = verify(model)
    assert isinstance(missing, MissingWeights)
    assert str(missing).endswith("fold-0.safetensors")
    assert isinstance(wrong, WrongDigest)
    assert str(wrong).endswith("fold-2.safetensors")


@pytest.mark.parametrize(
    ("key", "value", "fault"),
    [
        ("reader", "crystal_ball", r"'crystal_ball'; there are agarwal, "),
        ("architecture.network", "tile_net", r"'tile_net'; there are "),
        ("architecture.options", {"depth": 3}, r"tile_unet has no option 'depth'"),
        ("architecture.options", {"widths": [2]}, r"fold-0\.safetensors: .* tensors do not fit"),
        ("architecture.tiles", 128, r"architecture\.tiles: there is no such key"),
    ],
)
def test_verify_tells_why_a_reader_refuses_its_model(tmp_path: Path, key: str, value: Any, fault: str) -> None:
    a_real_model(tmp_path)
    change(tmp_path, key, value)
    [found] = verify(open_model(str(tmp_path)))
    assert re.search(fault, str(found))


def test_an_installed_model_is_found_by_its_name_and_has_only_what_its_card_names(tmp_path: Path) -> None:
    source, into = a_real_model(tmp_path / "source", folds=2), tmp_path / "site" / "models"
    (source.folder / "runs").mkdir()
    (source.folder / "runs" / "checkpoint.pt").write_bytes(b"large")
    model, new = install(source.folder, into)
    assert new
    assert model.folder == into / "mine"
    assert sorted(contents(into)) == [f"mine/{name}" for name in (CARD, "fold-0.safetensors", "fold-1.safetensors")]
    assert open_model("mine", into).digest == source.digest
    assert verify(open_model("mine", into)) == []


@pytest.mark.parametrize("top", ["", "my-model/"])
def test_a_zip_of_a_model_is_installed_with_or_without_a_folder_in_it(tmp_path: Path, top: str) -> None:
    source = a_real_model(tmp_path / "source")
    model, _ = install(zipped(source.folder, top), tmp_path / "models")
    assert contents(model.folder) == contents(source.folder)


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    into = tmp_path / "models"
    source = a_real_model(tmp_path / "source").folder
    install(source, into)
    before = contents(into)
    assert install(source, into)[1] is False
    change(source, "version", "2")
    with pytest.raises(ModelExists, match=str(into / "mine")):
        install(source, into)
    assert contents(into) == before


def test_a_damaged_model_is_not_taken_for_the_same_one(tmp_path: Path) -> None:
    source = a_real_model(tmp_path / "source").folder
    model, _ = install(source, tmp_path / "models")
    (model.folder / "fold-0.safetensors").write_bytes(b"rot")
    with pytest.raises(ModelExists, match="damaged"):
        install(source, tmp_path / "models")


def test_a_shipped_models_name_is_taken(tmp_path: Path) -> None:
    with pytest.raises(ModelExists, match="mass-fpn-boxes"):
        install(a_real_model(tmp_path / "source", "mass-fpn-boxes").folder, tmp_path / "models")


@pytest.mark.parametrize("name", ["../mine", "a/b", ".hidden", "", "two words"])
def test_a_name_that_can_be_no_folders_is_refused(tmp_path: Path, name: str) -> None:
    source = a_real_model(tmp_path / "source", name).folder
    with pytest.raises(NotInstalled, match="can be no folder's"):
        install(source, tmp_path / "site" / "models")
    assert contents(tmp_path / "site") == {}


def test_a_model_with_faults_is_not_installed_and_leaves_nothing(tmp_path: Path) -> None:
    source, into = a_real_model(tmp_path / "source", folds=2).folder, tmp_path / "models"
    (source / "fold-0.safetensors").write_bytes(b"other")
    with pytest.raises(NotInstalled, match=rf"differs from the digest.*{source / 'fold-0.safetensors'}"):
        install(source, into)
    (source / "fold-1.safetensors").unlink()
    with pytest.raises(NotInstalled, match=rf"is missing.*{source / 'fold-1.safetensors'}"):
        install(source, into)
    assert list(into.iterdir()) == []


def broken_zip(folder: Path) -> Path:
    path = zipped(a_real_model(folder / "source").folder)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    return path


def damaged_zip(folder: Path) -> Path:
    path = zipped(a_real_model(folder / "source").folder)
    content = bytearray(path.read_bytes())
    content[content.index(b"FPN") if b"FPN" in content else len(content) // 2] ^= 0xFF
    path.write_bytes(bytes(content))
    return path


def two_models(folder: Path) -> Path:
    path = zipped(a_real_model(folder / "source").folder, "one/")
    with zipfile.ZipFile(path, "a") as package:
        package.writestr("two/card.toml", "")
    return path


def empty_zip(folder: Path) -> Path:
    with zipfile.ZipFile(folder / "empty.zip", "w"):
        return folder / "empty.zip"


def no_card(folder: Path) -> Path:
    (folder / "source").mkdir()
    return folder / "source"


@pytest.mark.parametrize(
    ("package", "reason"),
    [
        (broken_zip, "neither a model directory nor a ZIP"),
        (damaged_zip, "neither a model directory nor a ZIP"),
        (two_models, r"2 files card\.toml"),
        (empty_zip, r"0 files card\.toml"),
        (no_card, r"card\.toml is missing"),
    ],
)
def test_what_is_no_model_is_refused(tmp_path: Path, package: Callable[[Path], Path], reason: str) -> None:
    with pytest.raises(NotInstalled, match=reason):
        install(package(tmp_path), tmp_path / "models")
    assert list((tmp_path / "models").iterdir()) == []


def test_a_models_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "models").write_text("a file")
    with pytest.raises(NotInstalled, match=str(tmp_path / "models")):
        install(a_real_model(tmp_path / "source").folder, tmp_path / "models")
